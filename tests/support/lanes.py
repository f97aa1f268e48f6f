"""A lane with a model that answers in a moment and remembers what it was asked."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError
from edged.board.pipeline import Answered, Lane, Message
from edged.config.model import ModelConfig
from edged.formats.channel.reading import ReplayGuard
from edged.formats.cose.keys import ContentKey
from edged.formats.package.manifest import Digest, Manifest, Part
from edged.formats.spec import Input, Output, Window
from edged.model.live import LiveModel
from edged.model.signal.chain import Prepared

TOPIC = "factory/press-07/vibration"
Floats = npt.NDArray[np.float32]
_NOTHING = Digest(1, bytes(32))


class FakeModel:
    """Answers a window with its mean, and keeps what it was asked."""

    outputs = 2
    keeps_state = False
    seconds = 0.0

    def __init__(self, version: int = 1, **fields: Any) -> None:
        fields.setdefault("input", Input(channels=("a1", "a2")))
        fields.setdefault("window", Window(size=4))
        fields.setdefault("output", Output(kind="classifier", labels=("healthy", "broken")))
        self.identity = bytes([version]) * 32
        self.manifest = Manifest(
            name="gearbox", version=version, created=0, publisher=bytes(32), edged="0.1", alg=3, commit=bytes(32),
            sealed=tuple(Part(kind, bytes(12), _NOTHING, _NOTHING) for kind in ("model", "self_test")), **fields,
        )  # fmt: skip
        self.windows: list[list[float]] = []
        self.closed = False
        self.fails = False
        self.raises: Exception | None = None

    def scores(self, window: Floats, _memory: object = None) -> Floats:
        assert not self.closed
        if self.fails:
            raise ModelError("the runtime fails")
        if self.raises is not None:
            raise self.raises
        self.windows.append(window[:, 0].tolist())
        share = float(window.mean())
        return np.array([1 - share, share], np.float32)

    @staticmethod
    def prepare(window: Floats) -> Prepared:
        return Prepared([window], window)

    def close(self) -> None:
        self.closed = True


def lane(
    model: FakeModel | None = None,
    *,
    sensor: ContentKey | None = None,
    limit: int = 1000,
    guard: ReplayGuard | None = None,
    **table: Any,
) -> tuple[Lane, FakeModel]:
    """Return a lane and its model; ``table`` holds keys of its ``[[model]]`` table."""
    model = model or FakeModel()
    fields = {"name": "gearbox", "channel": "c1", "topic": TOPIC, "format": "f32le", "each": "row", **table}
    sensors = () if sensor is None else (sensor,)
    return Lane(ModelConfig(**fields), cast("LiveModel", model), sensors, guard or ReplayGuard({}), limit), model


def send(to: Lane, payload: bytes, topic: str = TOPIC, *, clock_synchronised: bool = True) -> list[Answered]:
    """Return what a message comes to that is to be published, as the daemon's main loop has it."""
    reading = to.open(Message(topic, payload))
    answers = (to.decide(job, to.ask(job)) for job in to.take(reading, clock_synchronised=clock_synchronised))
    return [answered for answered in answers if answered.publish]
