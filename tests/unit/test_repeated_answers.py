"""Boards that die and answer again, outboxes sent before or after, machines that stand still: none lost, none twice.

Readings of the same bytes cannot be told apart. Only where the broker handed one of them out again may one be taken for
another.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.formats.channel.ledger import RamLedger
from edged.hub.state import HubState


class Given(NamedTuple):
    """A result that reaches the hub, sooner or later."""

    reading: int
    what: bytes
    epoch: int
    redelivered: bool


@dataclass
class World:
    """A board in the lives that it has, one epoch each, and all results that outlive them.

    :ivar in_hand: readings that the broker has not heard an acknowledgement of.
    """

    readings: list[bytes] = field(default_factory=list)
    in_hand: list[int] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    epoch: int = 1

    def measure(self, what: bytes) -> int:
        """Hand the board a new reading; return its number."""
        self.readings.append(what)
        self.in_hand.append(len(self.readings) - 1)
        return self.in_hand[-1]

    def answer(self, reading: int, *, again: bool) -> None:
        """Answer a reading: the result is at the broker, or in the outbox."""
        self.given.append(Given(reading, self.readings[reading], self.epoch, again))

    def acknowledge(self, reading: int) -> None:
        """Tell the broker that a reading is dealt with."""
        self.in_hand.remove(reading)


FATES = st.sampled_from(["answered and acknowledged", "answered", "in hand"])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return what a board says in one to five lives of readings that are often equal."""
    world = World()

    def meet(reading: int, *, again: bool) -> None:
        fate = draw(FATES)
        if "answered" in fate:
            world.answer(reading, again=again)
        if "acknowledged" in fate:
            world.acknowledge(reading)

    for _ in range(draw(st.integers(1, 5))):
        for reading in list(world.in_hand):
            meet(reading, again=True)
        for what in draw(st.lists(st.sampled_from([b"still", b"still", b"moves", b"once"]), max_size=8)):
            meet(world.measure(what), again=False)
        world.epoch += 1
    return world


def accepted(ledger: RamLedger | HubState, given: list[Given]) -> Counter[bytes]:
    """Return how many results to each bytes a hub accepts."""
    return Counter(
        one.what for one in given if ledger.answer("press", one.what, one.epoch, redelivered=one.redelivered)
    )


@settings(max_examples=400)
@given(worlds().flatmap(lambda world: st.tuples(st.just(world), st.permutations(world.given))))
def test_none_is_lost_and_none_accepted_twice_in_whatever_order_they_arrive(case: tuple[World, list[Given]]) -> None:
    world, order = case
    found = accepted(RamLedger(), order)
    for what in set(world.readings):
        of = [one for one in world.given if one.what == what]
        answered = len({one.reading for one in of})
        only_again = answered - len({one.reading for one in of if not one.redelivered})
        assert answered - only_again <= found[what] <= answered
        if world.readings.count(what) == 1 or not any(one.redelivered for one in of):
            assert found[what] == answered, "nothing is ambiguous"


@settings(max_examples=40)
@given(worlds().flatmap(lambda world: st.permutations(world.given)))
def test_the_state_on_disk_remembers_as_the_one_in_ram(order: list[Given]) -> None:
    with TemporaryDirectory() as directory, closing(HubState(Path(directory))) as state, state.batch():
        assert accepted(state, order) == accepted(RamLedger(), order)


@pytest.mark.parametrize("outbox", ["before", "after"])
def test_a_thousand_equal_windows_of_an_outage_and_the_last_of_them_answered_again(outbox: str) -> None:
    """They were refused as repeated, all of them, where one was."""
    stored = [Given(number, b"still", 1, redelivered=False) for number in range(1000)]
    since = [Given(999, b"still", 2, redelivered=True)]
    since += [Given(number, b"still", 2, redelivered=False) for number in range(1000, 1100)]
    order = stored + since if outbox == "before" else since + stored
    assert accepted(RamLedger(), order)[b"still"] == 1100


def test_a_reading_that_three_processes_answered_is_accepted_once_in_any_order() -> None:
    """Sealed readings are counted: no two are equal, so nothing is ambiguous."""
    first, *others = [Given(0, b"7-9", epoch, epoch > 1) for epoch in (1, 2, 3)]
    for order in ([first, *others], [*others, first], [others[1], first, others[0]], [others[0], first, others[1]]):
        assert accepted(RamLedger(), order)[b"7-9"] == 1
