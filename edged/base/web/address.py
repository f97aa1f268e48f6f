"""The address that a daemon's numbers are served on: reachable from this machine only."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from edged.base.errors import ConfigError

_MOST_PORT = 65535
_HINT = '"/run/edged/metrics.sock", or "127.0.0.1:9464"'


class Listen(NamedTuple):
    """A unix socket's path, or else a numeric loopback address and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read ``/PATH`` or ``HOST:PORT``, with brackets around an IPv6 address.

        :raises ConfigError: it is neither, or others than this machine reach it.
        """
        if text.startswith("/"):
            return cls(path=text)
        host, _, port = text.rpartition(":")
        try:
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ConfigError(f"metrics.listen: {text!r} is no address", hint=_HINT) from None
        if not (port.isdecimal() and int(port) <= _MOST_PORT):
            raise ConfigError(f"metrics.listen: {text!r} has no port", hint=_HINT)
        if not address.is_loopback:
            raise ConfigError(
                f"metrics.listen: others than this machine reach {host}, and metrics name models and their versions"
                " to whoever asks",
                hint=f"{_HINT}; docs/metrics.md says how another machine gets them",
            )
        return cls(host=str(address), port=int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"
