"""Results under more channel keys than an announcement holds, over a real broker: each reaches its hub, once."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import pytest

from edged.base.clock import Clock
from edged.base.errors import UnknownKeyError
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.results import Results
from edged.board.health import Health
from edged.board.pipeline import Answered
from edged.board.state import OutboxStore, State
from edged.broker import Broker, BrokerOptions, Delivery
from edged.formats.channel.announce import MOST_EPOCHS, split
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.receiver import Receiver
from edged.formats.channel.result import Plain
from edged.formats.cose.algorithms import Aead
from support.broker import Client, PlainBroker, spin
from support.parties import ANSWER, Board, Hub, encoder
from support.promises import NOTHING_LOST
from support.serving import topic

pytestmark = [pytest.mark.broker, NOTHING_LOST]

_RUNS = 45


class Run:
    """One run of the part of a daemon that results leave by."""

    def __init__(self, directory: Path, url: str, board: Board, hub: Hub) -> None:
        self._stack = ExitStack()
        self.state = self._stack.enter_context(closing(State(directory)))
        self.broker = self._stack.enter_context(closing(Broker(BrokerOptions(url=url, client_id="press-07"))))
        announcer = Announcer(
            "press-07", board.sign, aead=Aead.A256GCM, hubs=[hub.record], sign_results=False, max_age=86_400,
            begin_epoch=self.state.begin_epoch,
        )  # fmt: skip
        health = Health()
        announcing = Announcing(self.broker, announcer, health, topic, lambda: Clock(time.time(), synchronised=True))
        self.results = Results(
            self.broker, announcing, health, OutboxStore(self.state), topic=topic, most=10**7, longest=1e9
        )
        self.broker.on_delivered, self.broker.on_up = self.results.on_delivered, self.results.on_up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self, number: int) -> bytes:
        """Answer a reading; return its name once its result is stored."""
        name = hashlib.sha256(number.to_bytes(8, "big")).digest()
        answered = Answered(ANSWER, Plain(name), publish=True, redelivered=False)
        self.results.publish("c1", encoder(), answered, None)
        self.results.outbox.flush(time.monotonic())
        return name


@pytest.mark.parametrize(
    ("options", "fewer"), [((), False), (("max_packet_size 4000",), True)], ids=["any", "small packets"]
)
def test_results_of_forty_five_runs_without_a_broker_all_open(
    tmp_path: Path, options: tuple[str, ...], *, fewer: bool
) -> None:
    """Killed each time; what the broker takes at once bounds how many keys are announced, and no result."""
    board, hub = Board(), Hub()
    receiver = Receiver(hub.key, hub.name, [board.record])
    accepted: Counter[bytes] = Counter()
    announced: list[int] = []
    early: list[Delivery] = []

    def hears(delivery: Delivery) -> None:
        delivery.ack()
        if delivery.topic.endswith("/announce"):
            receiver.announce("press-07", delivery.payload, time.time())
            announced.append(len(split(delivery.payload)))
            return
        try:
            opened = receiver.open(delivery.topic, delivery.payload, time.time())
        except UnknownKeyError:
            early.append(delivery)
        else:
            accepted[opened.result.input.digest] += 1  # type: ignore[union-attr]

    with PlainBroker(tmp_path, options=options) as broker:
        names = []
        for number in range(_RUNS):
            with Run(tmp_path / "state", broker.url, board, hub) as run:
                names.append(run.answer(number))
        hearing = Client(BrokerOptions(url=broker.url, client_id="hub"))
        hearing.on_message = hears
        hearing.subscribe("edged/press-07/+", 1)
        hearing.connect()
        with closing(hearing), Run(tmp_path / "state", broker.url, board, hub) as last:
            spin(hearing, until=lambda: hearing.hears)
            last.broker.connect()

            def is_done() -> bool:
                last.results.turn(time.monotonic())
                return last.results.outbox.is_idle and len(accepted) >= _RUNS

            spin(hearing, last.broker, until=is_done, timeout=30)
            assert OutboxStore(last.state).epochs() == []
    assert accepted == Counter(names)
    assert early == []
    assert (max(announced) < MOST_EPOCHS) is fewer
