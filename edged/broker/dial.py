"""From a broker's address to an open socket: when to try, how, and in words what went wrong."""

from __future__ import annotations

import datetime as dt
import math
import random
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

from edged.base.errors import BrokerError
from edged.broker.options import Address, BrokerOptions
from edged.broker.reasons import TAKEN_OVER
from edged.broker.tpm_key import is_tpm_key, use_tpm
from edged.broker.wire import Wire

TIMEOUT = 10.0
"""Seconds for each of: the connection, the TLS handshake, the broker's answer."""

_TLS_HINT = "is this the broker's TLS port? mqtt:// is without TLS"

# from OpenSSL's x509_vfy.h
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_NAME = (62, 64)
_UNKNOWN_CA = (2, 18, 19, 20, 21)


def dial(options: BrokerOptions) -> Wire:
    """Connect. Blocks, for as long as names, routes and handshakes take.

    :raises BrokerError: the broker cannot be reached, or the two do not trust each other.
    """
    address = Address.parse(options.url)
    context = _tls_context(options) if address.tls else None
    try:
        sock = _connect(address)
        return Wire(sock if context is None else _shake_hands(sock, context, address))
    except OSError as error:
        raise explain(error, address) from error


def _connect(address: Address) -> socket.socket:
    if address.path:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((address.host, address.port), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _shake_hands(sock: socket.socket, context: ssl.SSLContext, address: Address) -> socket.socket:
    try:
        return context.wrap_socket(sock, server_hostname=address.host)
    except ConnectionError as error:
        raise BrokerError(f"broker {address}: TLS fails: connection closed", hint=_TLS_HINT) from error


def _tls_context(options: BrokerOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise BrokerError(f"broker.ca {options.ca} cannot be used: {_words(error)}") from error
    if options.cert is not None:
        try:
            if options.key is not None and is_tpm_key(options.key):
                use_tpm()
            # an empty passphrase, or OpenSSL would ask for one at the terminal
            context.load_cert_chain(options.cert, options.key, password="")
        except OSError as error:
            raise BrokerError(
                f"broker.cert {options.cert} and broker.key {options.key} cannot be used: {_words(error)}",
                hint="both are PEM files, the key has no passphrase and belongs to the certificate",
            ) from error
    return context


def explain(error: OSError, address: Address) -> BrokerError:
    """Return an error that explains an error of the operating system or of OpenSSL, with a hint."""
    what: str
    hint: str | None
    if isinstance(error, ssl.SSLCertVerificationError):
        what, hint = _distrust(error, address)
    elif isinstance(error, ssl.SSLError):
        what, hint = _tls_failure(error)
    elif isinstance(error, socket.gaierror):
        what, hint = f"unknown host ({error.strerror})", "check broker.url and this machine's name servers"
    else:
        what, hint = _WORDS_BY_TYPE.get(type(error)) or (_words(error), None)
    return BrokerError(f"broker {address}: {what}", hint=hint)


_WORDS_BY_TYPE: dict[type[OSError], tuple[str, str | None]] = {
    ConnectionRefusedError: ("nothing listens there", "start the broker, or correct broker.url"),
    FileNotFoundError: ("there is no such socket", "start the broker, or correct broker.url"),
    TimeoutError: ("no answer", "check broker.url, the network and firewalls"),
    ConnectionResetError: ("connection lost", None),
    BrokenPipeError: ("connection lost", None),
}


def _distrust(error: ssl.SSLCertVerificationError, address: Address) -> tuple[str, str]:
    if error.verify_code in _WRONG_NAME:
        return (
            f"its certificate is not for {address.host!r}",
            "broker.url must use a name (or address) that stands in the broker's certificate",
        )
    if error.verify_code in _UNKNOWN_CA:
        return "its certificate is from an unknown CA", "broker.ca must name the certificate of the CA that signed it"
    if error.verify_code == _EXPIRED:
        return (
            f"its certificate has expired ({_clock()})",
            "renew the broker's certificate, or set this machine's clock",
        )
    if error.verify_code == _NOT_YET_VALID:
        return f"its certificate is not valid yet ({_clock()})", "set this machine's clock: see timedatectl"
    return f"its certificate is refused: {error.verify_message}", "have the certificate made anew"


def _clock() -> str:
    return f"this machine's clock says {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _tls_failure(error: ssl.SSLError) -> tuple[str, str]:
    if any(word in (error.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")):  # an alert: the broker's verdict
        return (
            f"it refuses this client's certificate ({_words(error)})",
            "broker.cert must be from a CA that the broker trusts, and in date",
        )
    return f"TLS fails: {_words(error)}", _TLS_HINT


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "connection closed").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()


class Dialling:
    """One :func:`dial` in a thread of its own, for a name can take half a minute to look up.

    :ivar outcome: the wire or the error; None while dialling.
    :param done: called from that thread when there is an outcome.
    """

    def __init__(self, options: BrokerOptions, done: Callable[[], None]) -> None:
        self.outcome: Wire | BrokerError | None = None
        self._options = options
        self._done = done
        self._abandoned = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="edged-dial", daemon=True).start()

    def _run(self) -> None:
        outcome: Wire | BrokerError
        try:
            outcome = dial(self._options)
        except BrokerError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  as for broker..local: without an outcome nobody retries
            address = Address.parse(self._options.url)
            outcome = BrokerError(f"broker {address}: {type(error).__name__}: {error}", hint="check broker.url")
        with self._lock:
            if not self._abandoned:
                self.outcome = outcome
                self._done()
            elif isinstance(outcome, Wire):
                outcome.close()

    def abandon(self) -> None:
        """Ignore the outcome, and close the wire if there is one."""
        with self._lock:
            self._abandoned = True
            if isinstance(self.outcome, Wire):
                self.outcome.close()


_FIRST, _LONGEST, _MOST_DOUBLINGS = 1.0, 15.0, 4
"""Seconds. Results should not wait for minutes after a broker is back."""
_STABLE = 5.0
_TAKEOVERS, _WITHIN = 3, 60.0
_IN_A_ROW = 5


class Backoff:
    """Jittered exponential backoff, reset by a stable connection; and signs of another client with this client's id.

    MQTT 5 has a reason code for a connection that another client took over. MQTT 3.1.1 has none, and Mosquitto 2.0.11
    sends none: there it shows only by connections that end soon after they were accepted, in a row.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._takeovers: deque[float] = deque(maxlen=_TAKEOVERS)
        self._short = 0

    def delay(self) -> float:
        """Return the seconds to wait after one more failure: 1 to 15, less up to half, out of step with others."""
        delay = min(math.ldexp(_FIRST, self._failures), _LONGEST)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311  not for secrets

    def note_loss(self, now: float, held: float, code: int) -> None:
        """Note the end of a connection that stood for ``held`` seconds.

        :param code: the broker's reason, or 0.
        """
        if held >= _STABLE:
            self._failures = 0
        if code == TAKEN_OVER:
            self._takeovers.append(now)
        # another edged comes back within the longest delay
        self._short = self._short + 1 if not code and held <= _LONGEST + 1 else 0

    def note_restart(self) -> None:
        """Note a sign that the broker itself was away: an attempt to connect that failed, or a session that is gone."""
        self._short = 0

    def contested(self, now: float) -> bool:
        """Return True if another client seems to take each connection over."""
        said_so = len(self._takeovers) == _TAKEOVERS and now - self._takeovers[0] <= _WITHIN
        return said_so or self._short >= _IN_A_ROW
