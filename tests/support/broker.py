"""Real brokers for tests, each on a free loopback port and gone with its test; and what stands in for odd ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edged.broker import Broker, BrokerOptions, Delivery, Outcome
from edged.demo.broker import Mosquitto, PrivateBroker

__all__ = [
    "DURABLE",
    "Client",
    "Mosquitto",
    "PlainBroker",
    "PrivateBroker",
    "old_broker",
    "password_file",
    "spin",
    "talking_server",
]

DURABLE = ("persistence true", "autosave_on_changes true", "autosave_interval 1")
"""Options with which Mosquitto keeps everything that it acknowledged, also when it is killed."""


class PlainBroker(Mosquitto):
    """A Mosquitto that takes everybody, without TLS, unless ``listener`` says otherwise."""

    def __init__(
        self, directory: Path, listener: Sequence[str] = ("allow_anonymous true",), options: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, listener, options)
        self.url = f"mqtt://127.0.0.1:{self.port}"


def password_file(path: Path, **users: str) -> Path:
    """Write a password file for Mosquitto (PBKDF2-SHA512, as mosquitto_passwd does)."""
    lines = []
    for user, password in users.items():
        salt = os.urandom(12)
        key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
        lines.append(f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}\n")
    path.write_text("".join(lines))
    path.chmod(0o600)
    return path


class Client(Broker):
    """A broker connection that acknowledges everything and remembers what happens to it."""

    def __init__(self, options: BrokerOptions) -> None:
        super().__init__(options)
        self.deliveries: list[Delivery] = []
        self.delivered: list[tuple[int, Outcome]] = []
        self.errors: list[Exception] = []
        self.ups = self.downs = 0
        self.on_message = self._take
        self.on_delivered = lambda token, outcome: self.delivered.append((token, outcome))
        self.on_error = self.errors.append
        self.on_up = self._count_up
        self.on_down = self._count_down

    @property
    def payloads(self) -> list[bytes]:
        """What arrived, in order."""
        return [delivery.payload for delivery in self.deliveries]

    @property
    def hears(self) -> bool:
        """Whether the broker has answered all subscriptions."""
        return self.is_up and self._connection is not None and not self._connection._subscribing

    def _take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.ack()

    def _count_up(self) -> None:
        self.ups += 1

    def _count_down(self) -> None:
        self.downs += 1


def spin(*brokers: Broker, until: Callable[[], object], timeout: float = 15) -> None:
    """Run the loops of ``brokers`` until something holds.

    :raises AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + timeout
    while not until():
        if time.monotonic() > deadline:
            state = [(broker.describe(), broker.stats, broker.last_error) for broker in brokers]
            raise AssertionError(f"it did not happen within {timeout} s: {state}")
        for broker in brokers:
            broker.run_once(0.05 if len(brokers) == 1 else 0.005)


@contextmanager
def listening(url: str, name: str = "") -> Iterator[Client]:
    """Hear all that a broker carries and retains; with a name, what comes while it is not heard, too."""
    client = Client(BrokerOptions(url=url, client_id=name))
    client.subscribe("#", 1)
    client.connect()
    try:
        spin(client, until=lambda: client.hears)
        yield client
    finally:
        client.close()


class OldBroker:
    """Stands before a broker and speaks no MQTT 5: it hangs up, or says so with ``answer`` first.

    :ivar versions: the protocol levels that clients asked for.
    """

    def __init__(self, port: int, answer: bytes = b"") -> None:
        self.versions: list[int] = []
        self._behind = port
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def hang_up(self) -> None:
        """Cut all connections."""
        for sock in self._open[1:]:
            _shut(sock)

    def close(self) -> None:
        """End it."""
        for sock in self._open:
            _shut(sock)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        connect = client.recv(4096)
        self.versions.append(connect[connect.index(b"MQTT") + 4])
        if self.versions[-1] == 5:
            client.sendall(self._answer)
            _shut(client)
            return
        server = socket.create_connection(("127.0.0.1", self._behind))
        self._open.append(server)
        server.sendall(connect)
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(sink)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def old_broker(port: int, answer: bytes = b"") -> Iterator[OldBroker]:
    """Run an :class:`OldBroker`."""
    broker = OldBroker(port, answer)
    try:
        yield broker
    finally:
        broker.close()


@contextmanager
def talking_server(answer: bytes) -> Iterator[str]:
    """Run a server that is no broker: it says ``answer`` to everybody and then nothing. Yields a broker's URL."""
    taken: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                taken[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            _shut(listener)
            thread.join()
            for sock in taken:
                sock.close()
