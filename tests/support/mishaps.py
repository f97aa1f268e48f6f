"""Everything that may befall a board and its brokers, one mishap after another, drawn from a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from support.broker import PlainBroker
from support.faults import Board, World
from support.link import Link
from support.process import DaemonProcess
from support.waiting import PATIENCE

_LONGEST = 6.0
"""Seconds that something lasts on top of what the board takes to notice: less than a watchdog waits."""


class Side(NamedTuple):
    """A broker, and the link to it."""

    name: str
    broker: PlainBroker
    link: Link


class Mishaps:
    """The mishaps of one world. While each lasts the board has to say what is true, and afterwards that all is well.

    :param sides: of readings, and of results.
    :param runtime: the daemon's directory in RAM, with its status.
    :param disk: a small file system that holds the board's state; None for none.
    :param spares_near: the broker of readings is left alone: sensors would repeat what they did not hear of.
    :param tell: gets a line about each mishap.
    :ivar kills: brokers were killed.
    :ivar before: bytes of the daemon's own memory (RssAnon), soon after its last start.
    """

    def __init__(
        self,
        world: World,
        board: Board,
        sides: tuple[Side, Side],
        *,
        runtime: Path,
        disk: Path | None,
        spares_near: bool,
        seed: str,
        tell: Callable[[str], None],
    ) -> None:
        self.kills = False
        self.before = 0
        self._world = world
        self._board = board
        self._near, self._far = near, far = sides
        self._status = runtime / "status.json"
        self._disk = disk
        self._random = random.Random(seed)
        self._tell = tell
        self._version = 1
        self._pid = 0
        self._began = time.monotonic()
        every_side = [self._cut, self._half_open, self._slow, self._drop_acks]
        self._long = [partial(mishap, side) for mishap in every_side for side in (near, far)]
        for side in (far,) if spares_near else (near, far):
            self._long += [partial(mishap, side) for mishap in (self._kill, self._restart, self._stop)]
        if disk is not None:
            self._long += [self._fill_disk] * 2
        self._short = [self._kill_board, self._stop_board, self._reload, self._swap]

    def happen(self) -> None:
        """Let something happen, and wait until the board says that all is well."""
        self._random.choice([*self._long, *self._short])()
        self.wait_well()

    def wait_well(self) -> None:
        """Wait until the board is connected, and not degraded, but for what a killed broker has lost."""
        self._wait(lambda: self._links().count("connected to") == 2 and not any(self._faults()))
        pid = self._daemon.pid
        if pid != self._pid:
            self._world.wait_answered(5)
            self._pid, self.before = pid, anonymous(pid)

    # --- what happens to a broker, and to the link to it

    def _kill(self, side: Side) -> None:
        self._say(f"the {side.name} broker is killed")
        self.kills = True
        side.broker.kill()
        self._last(lambda: self._is_noticed(side))
        side.broker.start()

    def _restart(self, side: Side) -> None:
        self._say(f"the {side.name} broker is restarted")
        side.broker.stop()
        self._last(lambda: self._is_noticed(side))
        side.broker.start()

    def _stop(self, side: Side) -> None:
        self._say(f"the {side.name} broker stands still")
        assert side.broker._process is not None
        pid = side.broker._process.pid
        os.kill(pid, signal.SIGSTOP)
        self._last()
        os.kill(pid, signal.SIGCONT)

    def _cut(self, side: Side) -> None:
        self._say(f"the {side.name} link is cut")
        side.link.cut(refuse=True)
        self._last(lambda: self._is_noticed(side))
        side.link.restore()

    def _half_open(self, side: Side) -> None:
        up, down = self._random.choice([(True, True), (True, False), (False, True)])
        self._say(
            f"the {side.name} link is half open: {'nothing goes up' if up else ''} {'nothing down' if down else ''}"
        )
        side.link.hold(up=up, down=down)
        if side is self._far:
            self._last(lambda: self._is_noticed(side) or self._facts().get("degraded"))
        else:
            self._last()
        side.link.restore()

    def _slow(self, side: Side) -> None:
        side.link.delay, side.link.rate = self._random.uniform(0, 2), self._random.uniform(3e4, 1e6)
        self._say(f"the {side.name} link is slow: {side.link.delay:.1f} s, {side.link.rate / 1000:.0f} kB/s")
        self._last()
        side.link.restore()

    def _drop_acks(self, side: Side) -> None:
        self._say(f"no acknowledgement reaches the board from the {side.name} broker, and then its link is cut")
        side.link.drops_acks = True
        self._last()
        side.link.cut()
        side.link.restore()

    # --- what happens to the board

    def _fill_disk(self) -> None:
        """Also cut the far link: results are to be stored, and cannot be."""
        assert self._disk is not None
        self._say("the disk is full, and the far link is cut")
        filler = self._disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert shutil.disk_usage(self._disk).free == 0
        self._far.link.cut(refuse=True)
        self._wait(lambda: self._facts().get("degraded"))
        filler.unlink()
        self._far.link.restore()

    def _kill_board(self) -> None:
        self._say("the board is killed")
        self._board.kill()
        self._board.start()

    def _stop_board(self) -> None:
        self._say("the board stands still")
        os.kill(self._daemon.pid, signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, _LONGEST))  # the time is the attack, here and below
        os.kill(self._daemon.pid, signal.SIGCONT)

    def _reload(self) -> None:
        self._say("reload")
        before = self._daemon.said.count("reload: ")
        self._daemon.process.send_signal(signal.SIGHUP)
        self._wait(lambda: self._daemon.said.count("reload: ") > before)

    def _swap(self) -> None:
        self._version += 1
        self._say(f"version {self._version} is installed")
        site = self._world.site
        site.install(site.pack(version=self._version))

    # --- how it goes

    def _last(self, noticed: Callable[[], object] = lambda: True) -> None:
        """Let it last until the board has noticed, and a while longer, in which something else may happen."""
        self._wait(noticed)
        if self._random.random() < 0.4:
            self._random.choice(self._short)()
        time.sleep(self._random.uniform(0, _LONGEST))

    def _say(self, what: str) -> None:
        self._tell(f"  {time.monotonic() - self._began:6.1f} s  {what}")

    def _wait(self, holds: Callable[[], object]) -> None:
        def running() -> object:
            assert self._daemon.process.poll() is None, self._daemon.said[-3000:]
            return holds()

        self._world.wait(running, 2 * PATIENCE, every=0.2, told=lambda: f"{self._facts()}\n{self._daemon.said[-3000:]}")

    def _is_noticed(self, side: Side) -> bool:
        """Return True if the board says that it is not connected to that side."""
        near, _, far = self._links().partition("; uplink ")
        return (near if side is self._near else far).startswith("not connected")

    def _faults(self) -> Iterator[str]:
        """Yield the degraded parts; a broker that was killed may have lost the session, and the board goes on saying so."""
        for fault in self._facts().get("degraded", ()):
            if not (self.kills and " session: " in fault):
                yield fault

    def _links(self) -> str:
        return str(self._facts().get("links", ""))

    def _facts(self) -> dict[str, Any]:
        """Return what the daemon said last of itself."""
        with suppress(FileNotFoundError):
            facts: dict[str, Any] = json.loads(self._status.read_text())
            return facts
        return {}

    @property
    def _daemon(self) -> DaemonProcess:
        assert self._board.daemon is not None
        return self._board.daemon


def anonymous(pid: int) -> int:
    """Return the bytes of a process's own memory: RssAnon of proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
