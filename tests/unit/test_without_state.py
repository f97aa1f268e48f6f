"""The numbers of epochs, which go on while the state can neither be read nor written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import StateError
from edged.board.audit import AuditLog
from edged.board.daemon.audit_trail import AuditTrail
from edged.board.daemon.without_state import BoardTime, Epochs
from edged.board.health import Health
from edged.formats.cose.keys import PrivateKey
from support.serving import RamState


@pytest.fixture(autouse=True, scope="module")
def unsynchronised_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edged.base.clock.is_synchronised", lambda: False)
        yield


KEY = PrivateKey.generate()


class FailingState(RamState):
    """A state on a disk that is full now and then."""

    full = False

    @contextmanager
    def wrapped(self) -> Iterator[None]:
        if self.full:
            raise StateError("the disk is full")
        with super().wrapped():
            yield


def epochs(state: FailingState) -> Epochs:
    health = Health()
    trail = AuditTrail(AuditLog(state, "press-07", KEY), state, health)
    return Epochs(state, BoardTime(state, health, trusted=False), trail, health)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_numbers_of_epochs_rise_whether_the_disk_is_full_or_not(full: list[bool]) -> None:
    state = FailingState()
    made = epochs(state)
    numbers = [made.begin(b"first", 0)]
    for number, state.full in enumerate(full):
        numbers.append(made.begin(f"{number}".encode(), 0))
    assert numbers == sorted(set(numbers))


def test_number_that_is_written_once_more_stays_the_same() -> None:
    state = FailingState()
    made = epochs(state)
    assert made.begin(b"key", 7) == 7
    state.db.execute("DELETE FROM epoch")  # a damaged state was put aside
    assert made.begin(b"key", 7) == 7


def test_first_number_of_a_board_without_a_clock_is_never_guessed() -> None:
    state = FailingState()
    made = epochs(state)
    state.full = True
    with pytest.raises(StateError):
        made.begin(b"key", 0)
