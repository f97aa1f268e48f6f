"""Which stored windows give way to new ones.

Those that another signal chain prepared go first: nothing can be trained with them. Then the oldest of the label that
has the most windows, so that a rare label is not washed out by a frequent one; windows without a label are one more
such label, so that a store full of labelled ones goes on taking what an operator has not seen yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Group(NamedTuple):
    """Stored windows of one model that are alike.

    :ivar usable: whether the model's present chain prepared them.
    :ivar label: None for none.
    :ivar windows: how many, of ``size`` bytes in all.
    """

    usable: bool
    label: int | None
    windows: int
    size: int


def plan(groups: Sequence[Group], excess: int) -> list[int]:
    """Return how many windows of each group go, so that ``excess`` bytes do, or all.

    Windows of one group count as of one size, which they are.
    """
    left = [group.windows for group in groups]
    while excess > 0 and any(left):
        alive = [at for at, count in enumerate(left) if count]
        at = max(alive, key=lambda at: _turn(groups[at], left[at]))
        each = groups[at].size / groups[at].windows
        wanted = math.ceil(excess / each)
        rivals = [left[other] for other in alive if other != at and groups[other].usable]
        lead = left[at] - max(rivals, default=0) if groups[at].usable else left[at]
        gone = min(left[at], wanted, max(lead, math.ceil(wanted / len(alive))))
        left[at] -= gone
        excess -= math.floor(gone * each)
    return [group.windows - count for group, count in zip(groups, left, strict=True)]


def _turn(group: Group, left: int) -> tuple[bool, int, bool, int]:
    """Return what decides whose turn it is: the largest goes first."""
    unlabelled = group.label is None
    return (not group.usable, left, unlabelled, 0 if group.label is None else -group.label)
