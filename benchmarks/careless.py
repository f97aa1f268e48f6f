"""The daemon without its promises: acknowledged at once, nothing remembered, no session. For comparison alone.

Example: careless.py run -c edged.toml
"""

from __future__ import annotations

from collections.abc import Callable

from edged.base.nothing import nothing
from edged.board.daemon.recovery import ReplayMarks
from edged.board.delivery import path
from edged.board.delivery.hold import Hold
from edged.broker import Delivery
from edged.broker.arrivals import Arrivals
from edged.broker.lean_paho import Publish
from edged.cli import main
from edged.formats.channel.reading import ReplayGuard


class _Released(Hold):
    """A hold that nobody waits for."""

    __slots__ = ()

    def __init__(self, released: Callable[[], None]) -> None:
        super().__init__(nothing)
        released()


def _take(self: Arrivals, publish: Publish) -> None:
    topic, payload, qos, retain, dup, mid = publish
    self._stats.received += 1
    self._hand_out(Delivery(topic, payload, qos, retain, dup, nothing))
    if qos and self._connection is not None:
        self._connection.acknowledge(mid)


def _no_mark(guard: ReplayGuard, key: object, count: int) -> None:
    guard._marks[key] = count  # type: ignore[index]  # noqa: SLF001


if __name__ == "__main__":
    Arrivals.take = _take  # type: ignore[method-assign]
    path.Hold = _Released  # type: ignore[misc]
    ReplayGuard.accept = _no_mark  # type: ignore[method-assign,assignment]
    ReplayGuard.settle = nothing  # type: ignore[method-assign,assignment]
    ReplayMarks.save = ReplayMarks.save_in_ram = nothing  # type: ignore[method-assign,assignment]
    main()
