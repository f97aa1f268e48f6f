"""The socket that paho reads and writes: a buffer between paho and the kernel.

Paho asks for one byte, one more, and then the rest of each packet, and writes each packet by itself. Here one read and
one write serve all packets of a turn.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable

from edged.base.nothing import nothing

_READ = 1 << 16
_WRITE_AHEAD = 1 << 18
_GOODBYE = 1.0
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """The socket for paho.

    :ivar error: the error that ended the connection, if there was one.
    :ivar held: make :meth:`recv` look empty, so that paho returns after the packet that it handles.
    :ivar heard_at: when the last bytes came (monotonic).
    :ivar said_at: when the kernel last took bytes.
    :ivar emptied_at: when :meth:`fill` last left nothing in the kernel.
    :ivar on_long_read: called before each read of a packet that is longer than what one :meth:`fill` reads.
    :ivar linger: make :meth:`close` write queued packets and let the broker read them, which a bare close may cut off.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.error: OSError | None = None
        self.held = False
        self.linger = False
        self.on_long_read: Callable[[], None] = nothing
        self.heard_at = self.said_at = self.emptied_at = time.monotonic()
        self._sock = sock
        self._by_record = isinstance(sock, ssl.SSLSocket)
        self._in = b""
        self._at = 0
        self._out = bytearray()
        self._ended = False

    def fill(self) -> None:
        """Read all that the kernel has, up to about 64 kB. TLS hands out records one by one, often a packet each."""
        pieces: list[bytes] = []
        size = 0
        now = time.monotonic()
        try:
            while size < _READ and not self._ended:
                pieces.append(self._sock.recv(_READ))
                size += len(pieces[-1])
                self._ended = not pieces[-1]
                if not self._by_record:
                    break
        except _WOULD_BLOCK:
            size = 0
        except OSError as error:
            self.error = error  # says more than an earlier failure to write: a TLS alert is only read
            self._ended = True
        self._in = b"".join(pieces)
        self._at = 0
        if self._in:
            self.heard_at = now
        if size < _READ:
            self.emptied_at = now

    @property
    def unread(self) -> bool:
        """True if :meth:`recv` returns bytes, or the end, without another :meth:`fill`."""
        return not self.held and (self._at < len(self._in) or self._ended)

    @property
    def unsent(self) -> bool:
        """True while bytes wait for the kernel."""
        return bool(self._out)

    @property
    def tls(self) -> str | None:
        """Return the version of TLS that is spoken, if any."""
        return self._sock.version() if isinstance(self._sock, ssl.SSLSocket) else None

    def flush(self) -> None:
        """Write all that the kernel accepts. After an error only reading goes on: the broker may have said why."""
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
                self.said_at = time.monotonic()
        except _WOULD_BLOCK:
            return
        except OSError as error:
            self.error = self.error or error
            self._out.clear()

    # called by paho

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001
        """Do nothing: the socket never blocks."""

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes of what was read; none at the connection's end."""
        if self.held:
            raise BlockingIOError
        if size > _READ:
            self.on_long_read()
        piece = self._in[self._at : self._at + size]
        self._at += len(piece)
        if not piece and not self._ended:
            raise BlockingIOError
        return piece

    def send(self, data: bytes | bytearray) -> int:
        """Take a whole packet, unless too much waits already."""
        if len(self._out) > _WRITE_AHEAD:
            raise BlockingIOError
        if self.error is None:
            self._out += data
        return len(data)

    def close(self) -> None:
        """Close; where :attr:`linger` is set, within about three seconds."""
        with self._sock, contextlib.suppress(OSError):
            if not self.linger or self._ended:
                return
            until = time.monotonic() + _GOODBYE
            self._sock.settimeout(_GOODBYE)
            self._sock.sendall(self._out)
            self._sock.shutdown(socket.SHUT_WR)
            while time.monotonic() < until and self._sock.recv(_READ):
                pass
