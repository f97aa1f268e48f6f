"""A database whose files are removed or replaced under it, and the lock that says so to other processes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edged.base.database import put_aside
from edged.base.errors import PermissionsError, StateError, StateLockedError
from edged.base.lock import Lock
from edged.board.state import State
from edged.formats.package import Floor

FLOOR = Floor(3, bytes(32))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def test_what_was_removed_is_written_anew_with_all_that_was_in_it(directory: Path) -> None:
    with closing(State(directory)) as state:
        state.accept("m", FLOOR, 0)
        assert not state.is_replaced()
        for path in list(directory.iterdir()):
            path.unlink()
        assert state.is_replaced()
        state.note("since", 1)
        state.start_over()
        assert not state.is_replaced()
        state.note("later", 2)
        with closing(State(directory)) as found:
            assert (found.floor("m"), found.fact("since"), found.fact("later")) == (FLOOR, 1, 2)
    assert not (directory / "state.db.damaged").exists()


def test_what_stood_in_its_place_is_kept_beside_it(directory: Path) -> None:
    with closing(State(directory)) as state:
        for content in (b"one", b"two"):
            (directory / "other").write_bytes(content)
            (directory / "other").replace(directory / "state.db")
            state.start_over()
            assert (directory / "state.db.damaged").read_bytes() == content
        (directory / "state.db").unlink()
        (directory / "state.db").mkdir()
        state.start_over()
        assert (directory / "state.db.damaged").is_dir()
        (directory / "state.db").unlink()
        (directory / "state.db").symlink_to(directory / "state.db")
        state.start_over()
        assert (directory / "state.db.damaged").is_symlink()
        assert not state.is_replaced()


def test_damaged_content_is_not_copied(directory: Path) -> None:
    with closing(State(directory)) as state:
        state.accept("m", FLOOR, 0)
        state.damaged = True
        state.start_over()
        assert (state.floor("m"), state.damaged) == (None, False)
    with closing(sqlite3.connect(directory / "state.db.damaged")) as damaged:
        damaged.execute("SELECT 1")


def test_a_directory_that_is_gone_is_waited_for(directory: Path) -> None:
    with closing(State(directory)) as state:
        directory.rename(directory.with_name("away"))
        with pytest.raises(StateError, match="cannot be read") as refused:
            state.is_replaced()
        assert refused.value.hint == "put it back"
        assert not directory.exists()
        directory.with_name("away").rename(directory)
        assert not state.is_replaced()


def test_nothing_is_written_where_others_may_read_it(directory: Path) -> None:
    with closing(State(directory)) as state:
        state.accept("m", FLOOR, 0)
        (directory / "state.db").unlink()
        directory.chmod(0o755)
        with pytest.raises(PermissionsError):
            state.start_over()
        assert state.floor("m") == FLOOR
        assert not (directory / "state.db").exists()


def test_a_new_file_takes_no_log_of_another_database(directory: Path) -> None:
    with closing(State(directory)) as state:
        state.accept("m", FLOOR, 0)
        (directory / "state.db").unlink()
        with closing(State(directory)) as found:
            assert found.floor("m") is None
    put_aside(directory, "state.db")


def test_other_processes_refuse_files_that_are_not_the_holders(directory: Path) -> None:
    """They would write the log of one database into the other."""
    with closing(Lock(directory)) as lock, closing(State(directory)) as state:
        lock.note(state.files)
        State(directory).close()
        (directory / "state.db").unlink()
        with pytest.raises(StateError, match="was removed or replaced while the daemon runs"):
            State(directory)
        assert not (directory / "state.db").exists()
        state.start_over()
        lock.note(state.files)
        State(directory).close()
    put_aside(directory, "state.db")
    State(directory).close()  # nobody holds the lock: what its file says is of the past


def test_a_lock_that_was_removed_is_taken_again(directory: Path) -> None:
    with closing(Lock(directory)) as lock:
        (directory / "lock").unlink()
        assert Lock.is_held(directory) is None
        lock.renew()
        assert Lock.is_held(directory)
        (directory / "lock").unlink()
        with closing(Lock(directory)), pytest.raises(StateLockedError):
            lock.renew()
        lock.renew()
    assert Lock.is_held(directory) is False
