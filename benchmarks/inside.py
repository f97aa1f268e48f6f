"""The daemon's lanes inside this process: all of its work on a reading but the broker's client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from process import ProcessError

from edged.board.daemon.loader import load_models, next_lanes
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.path import MessagePath
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.results import Results
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.installation import Board
from edged.board.pipeline import Decoders
from edged.board.state import OutboxStore, QuarantineStore, RowStore, State
from edged.broker import Broker, Delivery, Outcome, Stats
from edged.config.load import load_board
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.reading import ReplayGuard
from edged.formats.cose.algorithms import Aead
from edged.model.runtime import Interpreter

Tensors = Sequence[npt.NDArray[Any]]
_UNLIMITED = 10**9


class _Hand:
    """What stands in for a broker: it is always there, and hands out tokens."""

    is_up = True
    drained_at = 0.0
    stats = Stats()

    def __init__(self) -> None:
        self.token = 0

    def publish(self, _topic: str, _payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        del qos, retain
        self.token += 1
        return self.token


class _Tap:
    """What stands in for an interpreter while its tensors are noted."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self.given: list[Tensors] = []

    def run(self, *tensors: npt.NDArray[Any]) -> list[npt.NDArray[np.generic]]:
        self.given.append(tensors)
        return self._interpreter.run(*tensors)


class Inside:
    """A board's lanes, without the daemon around them.

    :ivar engine: the runtime that the board uses.
    """

    def __init__(self, directory: Path) -> None:
        board = Board(load_board(directory / "edged.toml"))
        self._state, keystore, guard = State(board.directory), board.keystore(), ReplayGuard({})
        self.engine = board.engine()
        loaded = load_models(board, keystore, self.engine, self._state, {})
        for error in loaded.errors.values():
            raise error
        name = board.config.device.name
        announcer = Announcer(
            name,
            keystore.signer,
            aead=Aead.A256GCM,
            hubs=board.hubs(),
            sign_results=False,
            max_age=_UNLIMITED,
            begin_epoch=self._state.begin_epoch,
        )
        self._hand, self._health = _Hand(), Health()
        broker = cast("Broker", self._hand)
        announcing = Announcing(broker, announcer, self._health, board.topic, lambda: board.clock(self._state))
        self._results = Results(
            broker,
            announcing,
            self._health,
            OutboxStore(self._state),
            topic=board.topic,
            most=_UNLIMITED,
            longest=_UNLIMITED,
        )
        quarantine, rows = Quarantine(QuarantineStore(self._state), board.hubs(), 0), RowLog(RowStore(self._state))
        self._path = MessagePath(
            self._results, guard, self._health, quarantine, rows, rate=None, slow=_UNLIMITED, wake=lambda: None
        )
        self._path.set_lanes(next_lanes(loaded, {}, guard, Decoders()))

    def serve(self, topic: str, readings: Sequence[bytes]) -> float:
        """Answer readings, each of which has a result that the broker takes at once; return the CPU seconds it took.

        :raises ProcessError: one of them has no result.
        """
        hand, serve, delivered = self._hand, self._path.on_message, self._results.on_delivered
        before, acknowledged = self._health.books.results, [0]

        def acknowledge() -> None:
            acknowledged[0] += 1

        started = time.process_time()
        for reading in readings:
            serve(Delivery(topic, reading, 1, retain=False, dup=False, ack=acknowledge))
            delivered(hand.token, Outcome.TAKEN)
        seconds = time.process_time() - started
        if not self._health.books.results - before == acknowledged[0] == len(readings):
            raise ProcessError(f"{topic}: readings without a result: {self._health.line()}")
        return seconds

    def tensors(self, channel: str, topic: str, readings: Sequence[bytes]) -> list[Tensors]:
        """Answer readings and return what the interpreter was given for each."""
        model = self._path.lanes[channel].model
        interpreter, tap = model.interpreter, _Tap(model.interpreter)
        model.interpreter = cast("Interpreter", tap)
        self.serve(topic, readings)
        model.interpreter = interpreter
        return tap.given

    def invoke(self, channel: str, tensors: Sequence[Tensors]) -> float:
        """Run a lane's interpreter on tensors; return the CPU seconds it took."""
        run = self._path.lanes[channel].model.interpreter.run
        started = time.process_time()
        for given in tensors:
            run(*given)
        return time.process_time() - started

    def close(self) -> None:
        """Wipe the models."""
        for lane in self._path.lanes.values():
            lane.close()
        self._state.close()
