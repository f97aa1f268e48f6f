"""HTTP within bounds: few connections, one small request each, deadlines, and headers that let a browser do little.

Nobody keeps others out by holding connections: each peer has a bound of its own, and a connection that waits for its
client gives way to a new one.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from socketserver import TCPServer
from threading import Lock
from typing import Any, cast

_LOG = logging.getLogger(__name__)

MOST_CONNECTIONS, MOST_OF_PEER = 16, 8
"""Connections in all, and those of one address; a browser opens six."""
MOST_LINE, MOST_HEAD = 2048, 16 * 1024
"""Bytes of a request's first line, and of all that it may consist of."""
_READ, _WRITE, _LINGER = 5.0, 20.0, 1.0
"""Seconds for a whole request, for a whole answer, and for a client to hang up."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


@dataclass(frozen=True)
class Request:
    """A request.

    :ivar path: as received: nothing is decoded in it.
    :ivar peer: the address that it came from; empty on a unix socket.
    """

    method: str
    path: str
    query: str
    headers: Message
    peer: str


@dataclass(frozen=True)
class Response:
    """The response to a request.

    :ivar body: None: the status in words.
    :ivar framed: True if pages of the same origin may show it within themselves.
    """

    status: HTTPStatus = HTTPStatus.OK
    body: bytes | None = None
    type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)
    framed: bool = False


@dataclass
class _Connection:
    """An open connection.

    :ivar idle: True while the server waits for the client: for its request, or for it to hang up.
    """

    peer: str
    idle: bool = True


class Server(ThreadingHTTPServer):
    """Listens at once; ``serve_forever`` then serves, a thread for each connection.

    :param answer: called for each request, in its thread; returns the response.
    :raises OSError: the address cannot be had.
    """

    request_queue_size = 128
    """Connections that the kernel holds until they are accepted: beyond them, everybody waits for seconds."""

    def __init__(self, family: int, address: tuple[str, int] | str, answer: Callable[[Request], Response]) -> None:
        self.address_family = family
        self.answer = answer
        self._lock = Lock()
        self._open: dict[socket.socket, _Connection] = {}
        super().__init__(cast("tuple[str, int]", address), _Handler)  # a path, where it is a unix socket

    def server_bind(self) -> None:
        """Bind, and ask no name server what this machine is called."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as socketserver has them
        """Serve a connection in a thread of its own, or end it where there are too many that are being answered."""
        if not self._admit(request, _peer(client_address)):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as above
        """Serve a connection, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def mark(self, request: socket.socket, *, idle: bool) -> None:
        """Note that a connection waits for its client, or that its request is being answered."""
        with self._lock:
            if request in self._open:
                self._open[request].idle = idle

    def _admit(self, request: socket.socket, peer: str) -> bool:
        """Make room for a connection; return False if there is none to be made."""
        with self._lock:
            counts = Counter(one.peer for one in self._open.values())
            crowd = peer if counts[peer] >= MOST_OF_PEER else None
            if crowd is None and len(self._open) >= MOST_CONNECTIONS:
                waiting = Counter({one.peer: counts[one.peer] for one in self._open.values() if one.idle})
                crowd = waiting.most_common(1)[0][0] if waiting else peer
            if crowd is not None:
                oldest = next((held for held, one in self._open.items() if one.idle and one.peer == crowd), None)
                if oldest is None:
                    return False
                del self._open[oldest]
                with suppress(OSError):  # its thread has just closed it
                    oldest.shutdown(socket.SHUT_RDWR)  # which wakes the thread: it ends
            self._open[request] = _Connection(peer)
        return True

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Keep what a connection broke on from standard error."""
        _LOG.debug("page: a connection failed", exc_info=True)


def _peer(client_address: object) -> str:
    """Return the address that a connection came from; empty on a unix socket."""
    return str(client_address[0]) if isinstance(client_address, tuple) else ""


class _Handler(BaseHTTPRequestHandler):
    """Reads one request, whole and within bounds, before anything is made of it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, request: socket.socket, client_address: object, server: Server) -> None:
        self._server = server
        super().__init__(request, client_address, server)

    def handle(self) -> None:
        try:
            refused = self._read()
            if refused is not None:
                self.send_error(refused)
            elif self.parse_request():  # else it has answered
                path, _, query = self.path.partition("?")
                peer = _peer(self.client_address)
                self._server.mark(self.connection, idle=False)
                self._send(self._server.answer(Request(self.command, path, query, self.headers, peer)))
            self._linger()
        except OSError:
            pass  # the client went away, or was too slow

    def _read(self) -> HTTPStatus | None:
        """Take a request's head; return why it is refused.

        :raises OSError: the client went away.
        """
        self.command = self.path = ""
        self.requestline, self.request_version = "", self.protocol_version
        head, until = bytearray(), time.monotonic() + _READ
        while (end := head.find(b"\r\n\r\n")) < 0 and len(head) <= MOST_HEAD:
            try:
                head += self._receive(until)
            except TimeoutError:
                return HTTPStatus.REQUEST_TIMEOUT
        line = head.find(b"\r\n")
        if not 0 <= line <= MOST_LINE:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        if not 0 <= end <= MOST_HEAD:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        return None

    def _receive(self, until: float) -> bytes:
        """Return what comes next.

        :param until: monotonic seconds.
        :raises TimeoutError: nothing came until then.
        :raises ConnectionResetError: nothing will come any more.
        """
        self.connection.settimeout(max(until - time.monotonic(), 1e-3))
        more: bytes = self.connection.recv(4096)
        if not more:
            raise ConnectionResetError
        if time.monotonic() > until:
            raise TimeoutError
        return more

    def send_error(self, code: int, _message: str | None = None, _explain: str | None = None) -> None:
        """Response with a status, and with nothing of what was asked."""
        self._send(Response(HTTPStatus(code)))

    def _send(self, answer: Response) -> None:
        body = answer.body
        if body is None:
            body = f"{answer.status.value} {answer.status.phrase}\n".encode()
        self.connection.settimeout(_WRITE)
        self.send_response(answer.status)
        shown = {"Content-Type": f"{answer.type}; charset=utf-8", "Cache-Control": "no-store"}
        shown["Content-Security-Policy"] = f"{_POLICY}'{'self' if answer.framed else 'none'}'"
        if answer.status != HTTPStatus.NOT_MODIFIED:
            shown["Content-Length"] = str(len(body))
        for name, value in {**shown, **_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(body)

    def _linger(self) -> None:
        """Wait a little for the client to hang up: closing on unread bytes would take the answer back from it."""
        self._server.mark(self.connection, idle=True)
        self.connection.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _LINGER
        while True:
            self._receive(until)

    def version_string(self) -> str:
        """Name the product, and no version of anything."""
        return "edged"

    def log_message(self, *_args: object) -> None:
        """Log no requests."""
