"""Boards that a test plays before a real hub, over real brokers: what they announce and seal is real, and so are attacks."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from edged.broker import BrokerOptions
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.result import Plain
from edged.formats.cose.algorithms import Aead
from edged.formats.identity import Record
from support.broker import DURABLE, Client, PlainBroker, spin
from support.hub_process import HubProcess, board_of
from support.parties import ANSWER, Board, encoder, epochs

PATIENCE = 90.0


class Sent(NamedTuple):
    """A sealed result.

    :ivar key: key id in hex, and count: what it is known by at home.
    """

    key: tuple[str, int]
    topic: str
    payload: bytes


class Played:
    """A board.

    :param tap: a connection to the broker that it speaks to.
    :param hubs: records of those that it grants its results to.
    :param first: number of its first epoch.
    """

    def __init__(
        self, board: Board, tap: Client, hubs: Sequence[Record], first: int = 1, *, sign_results: bool = False
    ) -> None:
        self.board = board
        self.name = board.name
        self.tap = tap
        self.announcer = Announcer(
            board.name,
            board.sign,
            aead=Aead.A256GCM,
            hubs=hubs,
            sign_results=sign_results,
            max_age=86_400,
            begin_epoch=epochs(first),
        )

    def topic(self, level: str) -> str:
        """Return one of its topics."""
        return f"edged/{self.name}/{level}"

    def announce(self, now: float | None = None) -> bytes:
        """Announce, and return what now stands there.

        :param now: Unix seconds by its clock.
        """
        payload = self.announcer.announcement(time.time() if now is None else now)
        self.tap.publish(self.topic("announce"), payload, qos=1, retain=True)
        return payload

    def seal(self, channel: str = "c1", *, late: bool = False) -> Sent:
        """Seal a result of readings of its own."""
        kid, count, payload = self.announcer.seal(channel, encoder(), ANSWER, Plain(os.urandom(32)), late=late)
        return Sent((kid.hex(), count), self.topic(channel), payload)

    def send(self, channel: str = "c1", *, late: bool = False) -> Sent:
        """Seal a result and publish it."""
        sent = self.seal(channel, late=late)
        self.tap.publish(sent.topic, sent.payload, qos=1)
        return sent

    def serve(self, *channels: str) -> None:
        """Say that it is there, and what it serves."""
        models = tuple(
            ServedModel(one, "gearbox", 3, 3, "classifier", labels=("healthy", "broken")) for one in channels
        )
        sealed = self.announcer.seal_inventory(Inventory("1.0", 30.0, models).encode())
        self.tap.publish(self.topic("inventory"), sealed, qos=1, retain=True)
        self.tap.publish(self.topic("status"), b"online", qos=1, retain=True)


class Scene:
    """Two brokers and a hub, none of them started, and a test that hears and says what it likes.

    :ivar upstream: where boards publish; ``tap``: the test's connection to it.
    :ivar local: where plain results go; ``home``: the test's connection to it, which hears all of the hub's.
    :ivar played: names of the boards that were asked for.
    """

    def __init__(self, path: Path, *, hub: str = "", more_local: str = "", durable: bool = False) -> None:
        self.played: set[str] = set()
        self._boards: dict[str, Board] = {}
        self._stack = ExitStack()
        options = DURABLE if durable else ()
        for folder in ("upstream", "local"):
            (path / folder).mkdir()
        self.upstream = self._stack.enter_context(PlainBroker(path / "upstream", options=options))
        self.local = self._stack.enter_context(PlainBroker(path / "local", options=options))
        self.hub = HubProcess(path / "hub", self.upstream.url, local=self.local.url, hub=hub, more_local=more_local)
        self._stack.callback(self.hub.close)
        self.tap = self._connect(self.upstream, "edged/+/nonce")
        self.home = self._connect(self.local, "edged-hub/#")

    def _connect(self, broker: PlainBroker, *topics: str) -> Client:
        client = Client(BrokerOptions(url=broker.url, client_id=f"test-{topics[0][:9]}", session_expiry=3600))
        for topic in topics:
            client.subscribe(topic, 1)
        client.connect()
        self._stack.callback(client.close)
        spin(client, until=lambda: client.hears)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def board(self, name: str, *, first: int = 1, enrolled: bool = True, sign_results: bool = False) -> Played:
        """Play a board, with the keys that it was enrolled with if it was."""
        board = self._boards.get(name) or Board(name)
        if enrolled and name not in self._boards:
            self.enrol(board)
        self.played.add(name)
        return Played(board, self.tap, [self.hub.record], first, sign_results=sign_results)

    def enrol(self, board: Board) -> None:
        """Put a board's record before the hub, and wait until it is read where the hub runs."""
        self._boards[board.name] = board
        self.hub.enrol(board.record, board.record.encode(board.sign))
        if self.hub.processes:
            self.wait(lambda status: board_of(status, board.name))

    def until(self, holds: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Have the test's connections work until something holds."""
        try:
            spin(self.tap, self.home, until=holds, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.hub.log[-3000:]}") from None

    def wait(self, holds: Callable[[dict[str, Any]], object], timeout: float = PATIENCE) -> dict[str, Any]:
        """Have them work until the hub's status is as wanted; return it."""
        found: dict[str, Any] = {}
        asked = 0.0

        def look() -> object:
            nonlocal found, asked
            if time.monotonic() - asked < 0.1:
                return False
            asked = time.monotonic()
            found = self.hub.status()
            return holds(found)

        try:
            self.until(look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{json.dumps(found, indent=1)}\n{error}") from None
        return found

    def settle(self) -> None:
        """Have what the test has said reach the broker."""
        self.until(lambda: not self.tap.pending)

    def send_heard(self, board: Played) -> Sent:
        """Have a board send results until the broker says that somebody subscribes to them; return that one."""
        while True:
            before = self.tap.stats.unheard
            sent = board.send()
            self.settle()
            if self.tap.stats.unheard == before:
                return sent

    def arrived(self, topic: str = "") -> Counter[tuple[str, int]]:
        """Return how often each result has come at home, live, by key id and count."""
        found: Counter[tuple[str, int]] = Counter()
        for delivery in self.home.deliveries:
            if b'"kid"' in delivery.payload and not delivery.retain and delivery.topic.startswith(topic):
                result = json.loads(delivery.payload)
                found[result["kid"], result["count"]] += 1
        return found

    def wait_arrived(self, *sent: Sent, timeout: float = PATIENCE) -> None:
        """Wait until results have come at home."""
        wanted = {one.key for one in sent}
        self.until(lambda: wanted <= set(self.arrived()), timeout)

    def refused(self, device: str, status: dict[str, Any] | None = None) -> Counter[str]:
        """Return how many messages of a board the hub has refused, by kind."""
        return Counter(board_of(status or self.hub.status(), device).get("refused", {}))

    def expect(self, device: str, kind: str, count: int = 1) -> None:
        """Wait until exactly so many messages of a board are refused for that reason, and none for another.

        The reason must stand among the last refusals, too.
        """
        status = self.wait(lambda status: self.refused(device, status)[kind] >= count)
        assert self.refused(device, status) == {kind: count}
        assert any(one["kind"] == kind and f"/{device}/" in one["topic"] for one in status["refused_lately"])

    def standing(self, topic: str = "edged-hub/#") -> dict[str, bytes]:
        """Return what the broker at home retains."""
        client = Client(BrokerOptions(url=self.local.url, session_expiry=0))
        client.subscribe(topic, 1)
        client.subscribe("homeassistant/#", 1)
        client.subscribe("fence", 1)
        client.connect()
        try:
            spin(client, until=lambda: client.hears)
            client.publish("fence", b"", qos=1)
            spin(client, until=lambda: any(one.topic == "fence" for one in client.deliveries))
            return {one.topic: one.payload for one in client.deliveries if one.retain}
        finally:
            client.close()
