"""Whatever becomes of files while the daemon runs: it answers on, says which file and what to do, and needs no restart."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support.bench import GOOD
from support.disk import fill
from support.living import Living, living

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT = os.geteuid() == 0
AS_OTHERS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if ROOT else ()
"""Root reads and writes what it may not, but for a root without these capabilities."""
STRANGER = 65_534

GROUPS: Sequence[dict[str, str]] = (
    {
        "site/state/keystore/keys/sign.key": "own keys",
        "site/home.pub": "hub records",
        "site/sensor.key": "sensor keys",
        "site/password.txt": "broker files",
        "site/edged.toml": "configuration file",
    },
    {
        "site/state/keystore/device.enrol": "own keys",
        "site/state/keystore/packages/gearbox-2.edged": "installed packages",
    },
    {
        "site/state/keystore/packages/gearbox-2.grant": "installed packages",
        "site/edged.toml.d/10-site.toml": "configuration file",
    },
    {
        "site/state/keystore/keys": "own keys",
        "site/acme.pub": "publisher records",
        "site/edged.toml.d": "configuration file",
        "run": "status file",
    },
    {"site/state/keystore/packages": "installed packages"},
    {"site/state/keystore": "own keys"},
    {"site/state": "state directory"},
)
"""Files, or folders, that are broken together; and the part that is degraded for each."""
PRIVATE = {
    "site/state/keystore/keys/sign.key",
    "site/sensor.key",
    "site/password.txt",
    "site/state/keystore/keys",
    "site/state/keystore/packages",
    "site/state",
}
"""What edged itself refuses if others may open it, or if it is somebody else's."""


class Broken(NamedTuple):
    """Something that is broken, and the way back."""

    path: Path
    mend: Callable[[], object]


def away(path: Path) -> Path:
    return path.with_name(f".{path.name}.away")


def put_back(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    away(path).rename(path)


def is_missing(path: Path) -> Broken:
    path.rename(away(path))
    return Broken(path, lambda: put_back(path))


def is_of_another_kind(path: Path) -> Broken:
    """A directory where a file stood, and a file where a directory did."""
    was_directory = path.is_dir()
    broken = is_missing(path)
    path.touch() if was_directory else path.mkdir()
    return broken


def is_a_loop(path: Path) -> Broken:
    broken = is_missing(path)
    path.symlink_to(path)
    return broken


def is_a_pipe(path: Path) -> Broken:
    broken = is_missing(path)
    os.mkfifo(path)
    return broken


def is_cut_short(path: Path) -> Broken:
    content = path.read_bytes()
    os.truncate(path, len(content) // 2)
    return Broken(path, lambda: path.write_bytes(content))


def is_closed(path: Path) -> Broken:
    mode = path.stat().st_mode
    path.chmod(0)
    return Broken(path, lambda: path.chmod(mode))


def is_open_to_others(path: Path) -> Broken:
    mode = path.stat().st_mode
    path.chmod(mode | 0o055)
    return Broken(path, lambda: path.chmod(mode))


def is_anothers(path: Path) -> Broken:
    os.chown(path, STRANGER, STRANGER)
    return Broken(path, lambda: os.chown(path, 0, 0))


def is_immutable(path: Path) -> Broken:
    subprocess.run(["chattr", "+i", path], check=True)
    return Broken(path, lambda: subprocess.run(["chattr", "-i", path], check=True))


ANY = (is_missing, is_of_another_kind, is_a_loop, is_closed)
OWN = (is_open_to_others, is_anothers)


@pytest.fixture(scope="module")
def board(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One daemon for all of it: none may do it harm."""
    with living(tmp_path_factory.mktemp("files"), models, prefix=AS_OTHERS) as found:
        yield found


def breaks(board: Living, fate: Callable[[Path], Broken], things: dict[str, str]) -> None:
    """Break files, one answer and one repair later all must be well."""
    board.forget_log()
    broken = []
    try:
        broken.extend(fate(board.bench.path.parent / name) for name in things)
        for one, part in zip(broken, things.values(), strict=True):
            board.wait_logged(f"degraded: {part}: ", str(one.path), "(")
        board.ask()
        said = board.status()
        assert "edged init" not in said.stdout + said.stderr
    finally:
        for one in reversed(broken):
            one.mend()
    for part in things.values():
        board.wait_logged(f"{part} works again")
    board.wait_whole()
    board.ask()


@pytest.mark.parametrize("things", GROUPS, ids=lambda things: next(iter(things)).rpartition("/")[2])
@pytest.mark.parametrize("fate", ANY)
def test_file_that_is_broken_under_the_daemon_is_named_and_stops_nothing(
    board: Living, fate: Callable[[Path], Broken], things: dict[str, str]
) -> None:
    breaks(board, fate, things)


def test_file_that_is_cut_short_under_the_daemon_is_named_and_stops_nothing(board: Living) -> None:
    breaks(board, is_cut_short, {name: part for name, part in GROUPS[0].items() if part != "broker files"})


def test_pipe_in_the_place_of_a_file_is_not_waited_for(board: Living) -> None:
    breaks(board, is_a_pipe, {"site/home.pub": "hub records", "site/acme.pub": "publisher records"})


@pytest.mark.parametrize("name", ["gearbox-2.edged", "gearbox-2.grant"])
def test_package_that_is_cut_short_is_named_and_stops_nothing(board: Living, name: str) -> None:
    breaks(board, is_cut_short, {f"site/state/keystore/packages/{name}": "installed packages"})


@pytest.mark.root
@pytest.mark.parametrize("fate", OWN)
@pytest.mark.parametrize("things", GROUPS, ids=lambda things: next(iter(things)).rpartition("/")[2])
def test_private_file_that_others_get_is_named_and_stops_nothing(
    board: Living, fate: Callable[[Path], Broken], things: dict[str, str]
) -> None:
    if private := {name: part for name, part in things.items() if name in PRIVATE}:
        breaks(board, fate, private)


@pytest.mark.root
@pytest.mark.parametrize("name", ["site/state", "site/state/state.db"])
def test_state_that_is_immutable_is_named_and_stops_nothing(board: Living, name: str) -> None:
    breaks(board, is_immutable, {name: "state directory"})


@pytest.mark.root
def test_full_disk_is_named_and_what_the_audit_log_lacks_is_written_later(
    tmp_path: Path, models: Path, small_disk: Path
) -> None:
    """The board begins an epoch meanwhile, though nothing says what time it is: its numbers go on from the last one."""
    state = small_disk / "state"
    state.mkdir(mode=0o700)
    with living(tmp_path, models, state=state) as board:
        board.bench.edged("keygen", "hub", "--id", "other", "--no-passphrase")
        filler = fill(small_disk)
        board.wait_logged("degraded: state directory: ", str(board.bench.state), "the disk is full (make room)")
        board.drop_in.write_text(board.drop_in.read_text().replace('["home.pub"]', '["home.pub", "other.pub"]'))
        board.daemon.reload()
        board.wait_logged("degraded: audit log: ", "full")
        board.ask()
        filler.unlink()
        board.wait_logged("audit log works again")
        board.wait_logged("state directory works again")
        board.wait_whole()
        board.ask()
        entries = json.loads(board.bench.edged("audit", "--json", "-n", 100, "-c", "edged.toml").stdout)
        board.bench.edged("audit", "--verify", "-c", "edged.toml")
    kinds = [entry["kind"] for entry in entries]
    assert kinds[kinds.index("start") :].count("hubs") == 2
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))


def test_package_brings_no_configuration_into_use_that_lacks_a_file(tmp_path: Path, models: Path) -> None:
    """The file that is gone says that readings are sealed: without it the new version would take plain ones."""
    with living(tmp_path, models) as board:
        third = board.bench.path / "third.edged"
        third.write_bytes(board.bench.pack_fast(version=3))
        board.drop_in.rename(away(board.drop_in))
        board.bench.install(third)
        board.wait_logged("reload refused", str(board.drop_in))
        board.hub.send(GOOD.tobytes())
        board.ask()  # and nothing else is answered
        away(board.drop_in).rename(board.drop_in)
        board.wait_logged("model gearbox 3 on ")
        board.hub.send(GOOD.tobytes())
        board.ask()
        board.wait_whole()


def test_refused_reload_is_logged_each_time_and_shown_until_one_is_accepted(board: Living) -> None:
    config = board.bench.path / "edged.toml"
    text = config.read_text()
    try:
        for table in ("[nonsense]", "[rubbish]", "[rubbish]"):
            board.forget_log()
            config.write_text(f"{text}\n{table}\n")
            board.daemon.reload()
            board.wait_logged("reload refused", table.strip("[]"))
            board.ask()
            said = board.status()
            assert table.strip("[]") in said.stderr, said
            config.write_text(text)
            assert any(one.startswith("reload: refused") for one in board.told()["degraded"])
            assert "reload: refused" in board.status().stdout
    finally:
        config.write_text(text)
        board.daemon.reload()
    board.wait_logged("reload works again")
    board.wait_whole()
