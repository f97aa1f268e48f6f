"""What /proc says of processes, and processes that end with the block that they serve."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KB = 1024
_PATIENCE = 60.0


class ProcessError(Exception):
    """A process that is measured did not do what it should."""


def cpu_seconds(pid: int) -> float:
    """Return utime + stime of a process, all threads, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_seconds_here() -> float:
    """Return the CPU time of this process."""
    return time.process_time()


def memory(pid: int, *names: str) -> int:
    """Return the sum of the named fields of /proc/PID/status (``RssAnon``, ``VmHWM``), in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names) * _KB


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes.

    :raises PermissionError: another user's process, or one that is not dumpable, and this is not root.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * _KB


def reset_peak(pid: int) -> None:
    """Have VmHWM start again from what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def running(
    command: Sequence[object], *, cwd: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run Python with these arguments until the block ends; its standard error goes to ``log``."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def daemon(
    directory: Path,
    program: Sequence[object] = ("-m", "edged"),
    arguments: Sequence[object] = ("run", "-c", "edged.toml"),
) -> Iterator[tuple[int, float]]:
    """Run a board's daemon, or a hub, as systemd does; the block gets its pid and the seconds from exec to READY=1."""
    command, log = (*program, *arguments), directory / "daemon.log"
    with tempfile.TemporaryDirectory() as private, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        path = f"{private}/notify"
        notify.bind(path)
        notify.settimeout(0.1)
        started = time.perf_counter()
        with running(
            command, cwd=directory, log=log, environment={"NOTIFY_SOCKET": path, "RUNTIME_DIRECTORY": private}
        ) as process:
            _wait_ready(notify, process, log)
            seconds = time.perf_counter() - started
            with _draining(notify):
                yield process.pid, seconds


@contextmanager
def _draining(notify: socket.socket) -> Iterator[None]:
    """Read what the daemon says of itself, as systemd does: the kernel queues about ten messages, then senders wait."""
    stop = threading.Event()

    def drain() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                notify.recv(4096)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _wait_ready(notify: socket.socket, process: subprocess.Popen[str], log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096):
                return
    raise ProcessError(f"{_name(process)} did not become ready: {log.read_text()[-1000:]}")


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    """Wait until a process prints ``wanted``.

    :raises ProcessError: it says something else, or leaves.
    """
    line = process.stdout.readline().strip() if process.stdout else ""
    if line != wanted:
        raise ProcessError(f"{_name(process)} says {line!r} instead of {wanted!r}")


def _name(process: subprocess.Popen[str]) -> str:
    return shlex.join(map(str, process.args)) if isinstance(process.args, list) else str(process.args)
