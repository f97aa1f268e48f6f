"""A process that dies at any system call which touches the disk leaves the old version or the new one, never none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from support.process import DaemonProcess
from support.site import Site

TOUCHING = "pwrite64,write,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,fchmod"
EVERY = int(os.environ.get("EDGED_CUT_EVERY", "3"))
"""Each how manyeth call is tried: all of them take minutes."""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, of Debian's package of that name")

INSTALL = """
import sys
from pathlib import Path
from edged.base.files import open_regular
from edged.board.installation import Board
from edged.config.load import load_board
from edged.board.state import State
board = Board(load_board(Path("edged.toml")))
state = State(board.directory)
print("begins", flush=True)
board.install(open_regular(Path(sys.argv[1])), Path(sys.argv[1]), state)
state.close()
"""


def strace(site: Site, *options: str, package: Path) -> subprocess.CompletedProcess[str]:
    """Install a package under strace, which sees the calls that touch the disk."""
    command = ["strace", "-f", "-q", "-e", f"trace={TOUCHING}", *options, sys.executable, "-c", INSTALL, str(package)]
    return subprocess.run(command, cwd=site.path, capture_output=True, text=True, timeout=60, check=False)


def numbered(trace: str) -> list[tuple[str, int]]:
    """Return the calls of a trace, each with how often its thread has made it: that is how strace counts."""
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for thread, name in re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE):
        counts[thread, name] += 1
        calls.append((name, counts[thread, name]))
    return calls


def versions(site: Site) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = json.loads(site.edged("models", "--json", "-c", "edged.toml").stdout)
    return shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_install_that_dies_anywhere_leaves_a_version_that_serves(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack(version=1))
    package = site.pack(version=2)
    saved = site.path / "saved"
    shutil.copytree(site.state, saved, symlinks=True)

    whole = strace(site, "-o", "calls.txt", package=package)
    assert whole.returncode == 0, whole.stderr
    calls = numbered((site.path / "calls.txt").read_text())
    assert len(calls) > 20

    seen = set()
    for number in range(0, len(calls), EVERY):
        name, count = calls[number]
        shutil.rmtree(site.state)
        shutil.copytree(saved, site.state, symlinks=True)
        cut = strace(site, "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={count}", package=package)
        assert cut.returncode != 0, f"{name} {count} was not reached"

        found = versions(site)
        assert found, f"no version is left after {name} {count}"
        assert all(one["state"] in {"in use", "kept"} for one in found), (number, found)
        newest = max(int(str(one["version"])) for one in found)
        seen.add(newest)
        site.edged("audit", "--verify", "-c", "edged.toml")
        again = strace(site, "-o", "/dev/null", package=package)  # and the way on needs no hand
        assert again.returncode == 0, (number, again.stderr)
        assert max(int(str(one["version"])) for one in versions(site)) == 2
    assert seen == {1, 2}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_daemon_that_dies_in_a_swap_serves_again(site: Site) -> None:
    """From its start over the first windows of a new version to the end of its trial: then it has written everything."""
    table = 'format = "f32le"\neach = "window"\ntrial = { windows = 10 }'
    site.configure(table)
    site.init()
    site.install(site.pack(version=1))
    source = site.models / "gearbox" / "golden.npz"
    send = (
        "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic,
        *site.connection(),
    )  # fmt: skip
    with site.daemon(), site.listener(100) as listener:
        listener.wait_connected()
        site.edged(*send)
        assert len(listener.results()) == 100
    site.install(site.pack(version=2))
    saved = site.path / "saved"
    shutil.copytree(site.state, saved, symlinks=True)

    died = 0
    for name, count in [(name, count) for name in ("pwrite64", "fdatasync") for count in range(1, 20, 2 * EVERY)]:
        shutil.rmtree(site.state)
        shutil.copytree(saved, site.state, symlinks=True)
        prefix = [
            "strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={count}",
        ]  # fmt: skip
        cut = DaemonProcess(site.path, prefix=prefix)
        with suppress(AssertionError):  # it may die before it is ready
            cut.wait_ready()
            site.edged(*send)
        died += cut.stop() == -signal.SIGKILL
        site.edged("audit", "--verify", "-c", "edged.toml")
        with site.daemon() as daemon, site.listener(100) as listener:
            listener.wait_connected()
            site.edged(*send)
            assert {result["version"] for result in listener.results()} == {2}, (name, count)
            assert daemon.stop() == 0
    assert died > 2
