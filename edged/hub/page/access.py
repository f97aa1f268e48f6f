"""Access to the page: for callers on this machine, and for those who know a token.

* Away from loopback nothing is served without the token.
* On loopback a request must also be addressed to this machine by a name of its own: a web page elsewhere can have its
  own name resolve to 127.0.0.1, and would else read along (DNS rebinding). Any port will do, so that a tunnel may
  begin at another one.
* The token stands in an address once. What the browser then keeps is derived from it, so that it holds across restarts
  of the hub, and gives the token itself away to nobody.
* A proxy that knows its users, as Home Assistant's ingress does, needs no token, and may show the page within its own.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import parse_qs

from edged.base.errors import ConfigError
from edged.base.web.server import Request, Response

_SHORTEST_TOKEN = 16
_YEAR = 365 * 24 * 3600
_MOST_PORT = 65535
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.ASCII)
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_ASK = b"""<!doctype html>
<html lang="en"><title>edged hub: token wanted</title>
<p>This page wants the hub's token. Open it once as <code>?token=TOKEN</code>, with the token that
<code>[page] token</code> in <code>hub.toml</code> refers to; this browser then remembers it.
<p><a href="./">Try again</a>, if you have just done so.
"""
"""The link helps who came by a link: a browser sends no strict cookie along with what another page began."""


@dataclass(frozen=True)
class PageAddress:
    """The address that the page is served on. ``host`` is numeric."""

    family: int
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST:PORT``, with brackets around a host that is an IPv6 address.

        :raises ConfigError: it is not one, or its name does not resolve.
        """
        host, _, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or (":" in bare and bare == host) or not (port.isdecimal() and int(port) <= _MOST_PORT):
            raise ConfigError(
                f"page.address: {text!r} is no address", hint="HOST:PORT, as 127.0.0.1:8099 or [::1]:8099"
            )
        try:
            family, _, _, _, found = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"page.address: {bare!r} does not resolve: {error}") from error
        return cls(family, str(found[0]), int(port))

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches the address."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def name(self) -> str:
        """The host as URLs have it."""
        return f"[{self.host}]" if self.family == socket.AF_INET6 else self.host


class Access:
    """Lets requests in, or refuses them.

    :param proxy: the numeric address of a proxy that lets in only whom it knows; requests from there pass.
    :raises ConfigError: the address is open to others and there is neither token nor proxy; the token can be guessed;
        ``proxy`` is no address.
    """

    def __init__(self, address: PageAddress, token: str | None, proxy: str | None = None) -> None:
        if token is not None and len(token) < _SHORTEST_TOKEN:
            raise ConfigError(
                f"page.token: fewer than {_SHORTEST_TOKEN} characters can be guessed",
                hint="openssl rand -hex 16 makes one",
            )
        if token is None and proxy is None and not address.is_loopback:
            raise ConfigError(
                f"page.address: others than this machine reach {address.host}, and page.token is not set",
                hint="set page.token, or serve on 127.0.0.1 and come through ssh -L",
            )
        self._own = _OWN_NAMES | {address.name} if address.is_loopback else _OWN_NAMES
        self._is_loopback = address.is_loopback
        self._proxy = None if proxy is None else _proxy(proxy)
        self._token = token
        self._cookie = f"edged-hub-{address.port}"  # cookies are shared by all ports of a host
        self._pass = "" if token is None else hmac.new(token.encode(), b"edged.hub.page", hashlib.sha256).hexdigest()

    def is_proxied(self, request: Request) -> bool:
        """Return True if a request comes from the proxy."""
        return self._proxy is not None and _plain(request.peer) == self._proxy

    def refuse(self, request: Request) -> Response | None:
        """Return the response that refuses a request, or None if the request may pass."""
        hosts = request.headers.get_all("Host", [])
        if len(hosts) != 1 or not (named := _HOST.fullmatch(hosts[0].lower())):
            return Response(HTTPStatus.BAD_REQUEST)
        is_proxied = self.is_proxied(request)
        # a proxy on this machine has the address of every browser on it
        is_local = self._is_loopback or (is_proxied and _plain(request.peer).is_loopback)
        if is_local and named[1] not in self._own:
            return Response(HTTPStatus.MISDIRECTED_REQUEST, b"This page is served to localhost only.\n")
        return None if is_proxied else self._refuse_unknown(request)

    def _refuse_unknown(self, request: Request) -> Response | None:
        if self._token is None and self._is_loopback:
            return None
        if self._token is None:
            return Response(HTTPStatus.FORBIDDEN, b"This page is served through its proxy only.\n")
        if request.path == "/" and "token=" in request.query:
            return self._let_in(request.query)
        if any(_equal(value, self._pass) for value in self._kept(request)):
            return None
        return self._ask()

    def _let_in(self, query: str) -> Response:
        given = parse_qs(query).get("token", [])
        if self._token is None or len(given) != 1 or not _equal(given[0], self._token):
            return self._ask()
        cookie = f"{self._cookie}={self._pass}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Strict"
        return Response(HTTPStatus.SEE_OTHER, headers={"Location": "./", "Set-Cookie": cookie})

    def _kept(self, request: Request) -> list[str]:
        """Return the values of this hub's cookie."""
        lines = request.headers.get_all("Cookie", [])
        pairs = (pair.strip().partition("=") for line in lines for pair in line.split(";"))
        return [value for name, _, value in pairs if name == self._cookie]

    def _ask(self) -> Response:
        return Response(HTTPStatus.UNAUTHORIZED, _ASK, "text/html", {"WWW-Authenticate": 'Cookie realm="edged hub"'})


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def _proxy(text: str) -> _Ip:
    """Read the address of a proxy.

    :raises ConfigError: it is none.
    """
    try:
        return _plain(text)
    except ValueError:
        raise ConfigError(f"page.proxy: {text!r} is no address", hint="a numeric one, as 172.30.32.2") from None


def _plain(text: str) -> _Ip:
    """Return an IP address, of version 4 also where a socket for both versions has it as one of version 6.

    :raises ValueError: it is none.
    """
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
