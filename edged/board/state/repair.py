"""The way back from a state that cannot be used, without a hand: a board in the field has none."""

from __future__ import annotations

from pathlib import Path

from edged.base.database import put_aside
from edged.base.errors import StateDamagedError, StateError, StateLayoutError
from edged.board.state.store import NAME, State


def open_state(directory: Path) -> tuple[State, str]:
    """Open a board's state whatever has happened to it; say what is wrong with it, or nothing.

    A damaged file is put aside and a new one begun. Where the disk cannot be written, a copy in RAM serves until it
    can be: nothing is durable then.

    :raises StateLayoutError: a newer release wrote it.
    """
    try:
        return _opened(directory), ""
    except StateDamagedError as error:
        why = error.message
    except StateLayoutError:
        raise
    except StateError as error:
        return State(directory, in_memory=True), f"nothing is durable: {error.message}"
    put_aside(directory, NAME)
    try:
        return State(directory), f"a damaged state.db was put aside and a new one begun: {why}"
    except StateError as error:
        return State(directory, in_memory=True), f"nothing is durable: {error.message}"


def _opened(directory: Path) -> State:
    state = State(directory)
    try:
        state.check()
    except StateError:
        state.close()
        raise
    return state
