"""A gate between a client and its broker that can hold back what either says: a network that dies at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Gate:
    """Passes bytes on to a broker and back. What is held back is dropped with its connection, as a dead network would.

    :param behind: the broker's URL.
    :ivar url: to connect to.
    :ivar held: what the client has said since :meth:`hold` and the broker has not heard.
    """

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._behind = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.held = b""
        self._holds_said = self._holds_heard = self._is_shut = False
        self._open = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            _shut(one)
            one.close()

    def hold(self, *, said: bool = False, heard: bool = False) -> None:
        """From now on, keep what the client says from the broker, or from the client what it would hear."""
        self.held = b""
        self._holds_said, self._holds_heard = said, heard

    def shut(self) -> None:
        """End all connections, and those that come."""
        self._is_shut = True
        for one in self._open[1:]:
            _shut(one)

    def free(self) -> None:
        """Let everything through again, of connections that come now."""
        self.shut()
        self._holds_said = self._holds_heard = self._is_shut = False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_shut:
                    client.close()
                    continue
                broker = socket.create_connection(self._behind)
                self._open += [client, broker]
                threading.Thread(target=self._pass_on, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._pass_back, args=(broker, client), daemon=True).start()

    def _pass_on(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._holds_said:
                    self.held += data
                else:
                    broker.sendall(data)
        _shut(broker)

    def _pass_back(self, broker: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := broker.recv(65536):
                if not self._holds_heard:
                    client.sendall(data)
        _shut(client)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
