from __future__ import annotations

import os
import socket
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged.base import notify

Receive = Callable[[], str]


@pytest.fixture(params=["file", "abstract"])
def receive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receive]:
    """Listen as systemd does; edged itself, not systemd-python, does the talking."""
    monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    address = str(tmp_path / "notify") if request.param == "file" else f"@edged-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield lambda: sock.recv(4096).decode()


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (notify.ready, "READY=1"),
        (notify.stopping, "STOPPING=1"),
        (notify.watchdog, "WATCHDOG=1"),
        (lambda: notify.status("3 messages"), "STATUS=3 messages"),
    ],
)
def test_each_state_is_one_datagram(receive: Receive, say: Callable[[], None], expected: str) -> None:
    say()
    assert receive() == expected


def test_reload_carries_the_monotonic_clock(receive: Receive) -> None:
    before = time.monotonic_ns() // 1000
    notify.reloading()
    state, stamp = receive().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_line_break_in_a_status_is_no_second_state(receive: Receive) -> None:
    notify.status("topic a\nREADY=1")
    assert receive() == "STATUS=topic a READY=1"


def test_systemd_python_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    daemon = types.ModuleType("systemd.daemon")
    monkeypatch.setattr(daemon, "notify", said.append, raising=False)
    monkeypatch.setitem(sys.modules, "systemd", types.ModuleType("systemd"))
    monkeypatch.setitem(sys.modules, "systemd.daemon", daemon)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    notify.ready()
    assert said == ["READY=1"]


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all"])
def test_absent_socket_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.ready()


@pytest.mark.parametrize(
    ("microseconds", "process", "expected"),
    [
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_watchdog_interval_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, process: str | None, expected: float | None
) -> None:
    for name, value in (
        ("WATCHDOG_USEC", microseconds),
        ("WATCHDOG_PID", str(os.getpid()) if process == "own" else process),
    ):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() == expected
