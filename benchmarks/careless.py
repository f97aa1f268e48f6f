"""The daemon without its promises: acknowledged at once, nothing remembered, no session. For comparison alone.

Example: careless.py run -c edged.toml
"""

from __future__ import annotations

from collections.abc import Callable

from edged.board.daemon.recovery import ReplayMarks
from edged.board.delivery import inbox
from edged.board.delivery.holds import MessageAck
from edged.cli import main
from edged.formats.channel.reading import ReplayGuard


class _Paid(MessageAck):
    """A debt that is paid as soon as it is made."""

    def __init__(self, acknowledge: Callable[[], None], *, can_wait: bool = True) -> None:
        super().__init__(lambda: None, can_wait=can_wait)
        acknowledge()


def _forget(*_: object) -> None:
    """Remember nothing."""


def _no_mark(guard: ReplayGuard, key: object, count: int) -> None:
    guard._marks[key] = count  # type: ignore[index]  # noqa: SLF001


if __name__ == "__main__":
    inbox.MessageAck = _Paid  # type: ignore[assignment,misc]
    inbox.Inbox._note_answered = _forget  # type: ignore[method-assign]  # noqa: SLF001
    ReplayGuard.accept = _no_mark  # type: ignore[method-assign,assignment]
    ReplayGuard.settle = _forget  # type: ignore[method-assign]
    ReplayMarks.save = ReplayMarks.save_in_ram = _forget  # type: ignore[method-assign]
    main()
