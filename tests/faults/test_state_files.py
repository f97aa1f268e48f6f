"""`state.db` is removed, replaced or moved while the daemon runs: it is written anew at once, and nothing of it is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edged.board.state import State
from support.living import Living, living
from support.waiting import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

FILES = ("state.db", "state.db-wal", "state.db-shm")


def removed(*names: str) -> Callable[[Path], None]:
    def remove(state: Path) -> None:
        for name in names:
            (state / name).unlink()

    return remove


def with_older_copy(state: Path) -> None:
    shutil.move(state.parent / "older.db", state / "state.db")


def with_junk(state: Path) -> None:
    (state / "junk").write_bytes(b"not a database" * 1000)
    (state / "junk").replace(state / "state.db")


def with_directory(state: Path) -> None:
    (state / "state.db").unlink()
    (state / "state.db").mkdir()
    (state / "state.db" / "file").touch()


def with_link(state: Path) -> None:
    (state / "state.db").rename(state.parent / "elsewhere.db")
    (state / "state.db").symlink_to(state.parent / "elsewhere.db")


def with_loop(state: Path) -> None:
    (state / "state.db").unlink()
    (state / "state.db").symlink_to(state / "state.db")


def with_copied_folder(state: Path) -> None:
    shutil.copytree(state, state.parent / "copied")
    state.rename(state.parent / "former")
    (state.parent / "copied").rename(state)
    shutil.rmtree(state.parent / "former")


REPLACED = {
    "state.db removed": removed("state.db"),
    "all of it removed": removed(*FILES),
    "log removed": removed("state.db-wal"),
    "index of the log removed": removed("state.db-shm"),
    "older copy": with_older_copy,
    "junk": with_junk,
    "directory": with_directory,
    "link": with_link,
    "loop of links": with_loop,
    "copy of the folder": with_copied_folder,
}


@pytest.fixture(scope="module")
def board(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One daemon for all of it: none may do it harm."""
    with living(tmp_path_factory.mktemp("state"), models) as found:
        yield found


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_state_that_is_replaced_is_written_anew_with_all_that_was_in_it(
    board: Living, replace: Callable[[Path], None]
) -> None:
    state = board.bench.state
    with closing(State(state)) as before:
        before.note("told", board.asked)
        epoch, audit = epoch_of(before), before.audit()[0]
    board.forget_log()
    (state.parent / "older.db").unlink(missing_ok=True)
    _copy_of_an_empty_state(state)
    replace(state)
    assert "edged init" not in (said := board.status()).stdout + said.stderr
    board.wait_logged("degraded: state: ", str(state / "state.db"), "removed or replaced")
    board.wait_logged("state works again")
    board.ask()
    with closing(State(state)) as after:
        floor = after.floor("gearbox")
        assert floor is not None
        assert (floor.version, after.fact("told"), epoch_of(after)) == (2, board.asked - 1, epoch)
        assert after.audit()[0][: len(audit)] == audit
        # a mark is written some time after its message, and the copy that a restart reads has one between the two
        wait_until(lambda: max(after.marks().values(), default=0) == board.last)
    board.bench.edged("audit", "--verify", "-c", "edged.toml")
    assert board.bench.install(board.bench.path / "first.edged", check=False).returncode == 77
    board.wait_whole()
    assert board.told()["running"]


def epoch_of(state: State) -> int:
    (number,) = state.db.execute("SELECT max(number) FROM epoch").fetchone()
    return int(number)


def _copy_of_an_empty_state(state: Path) -> None:
    with closing(State(state.parent / "empty")):
        pass
    shutil.copy(state.parent / "empty" / "state.db", state.parent / "older.db")


def test_state_folder_that_is_moved_away_is_waited_for(board: Living) -> None:
    """Nothing is made in its place: what is put back there would come to lie beside or below that."""
    state, away = board.bench.state, board.bench.state.with_name("away")
    board.forget_log()
    state.rename(away)
    board.wait_logged("degraded: ", f"{state} ", "put it back")
    board.ask()
    said = board.status()
    assert (said.returncode, "edged init" in said.stdout + said.stderr) == (0, False), said
    assert "runs" in said.stdout
    assert not state.exists()
    away.rename(state)
    board.wait_logged("state works again")
    board.ask()
    board.wait_whole()
    with closing(State(state)) as after:
        wait_until(lambda: max(after.marks().values(), default=0) == board.last)


def test_second_daemon_does_not_start_where_the_lock_was_removed(board: Living) -> None:
    board.forget_log()
    (board.bench.state / "lock").unlink()
    wait_until((board.bench.state / "lock").exists)
    assert board.bench.run("run", "-c", "edged.toml", check=False).returncode == 75
    assert board.told()["running"]
