"""Whether an aggregator can be reached at all: what its own program says only in the journal, and retries for ever."""

from __future__ import annotations

import socket
import ssl

_SECONDS = 5.0


def unreachable(address: str, ca: str) -> str | None:
    """Return what is in the way of a TLS connection; None where one stands.

    Whether the board is allowed is not asked: an aggregator tells that to no one but the holder of its node key.

    :param address: ``HOST:PORT``.
    :param ca: the file of who vouches for the aggregator's certificate.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=ca)
        with (
            socket.create_connection((host, int(port)), _SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not believed: {error.verify_message}"
    except TimeoutError:
        return f"no answer within {_SECONDS:.0f} s"
    except ssl.SSLError as error:
        return f"no TLS: {error.reason or error}"
    except OSError as error:
        return error.strerror or str(error)
