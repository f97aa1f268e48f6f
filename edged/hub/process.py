"""The hub's process: start, main loop, stop."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType

from edged import __version__
from edged.base import notify
from edged.base.events import Event
from edged.base.log import set_up_logging
from edged.base.memory import harden
from edged.base.timer import Timer, Timers
from edged.base.web.address import Listen
from edged.base.web.prometheus import MetricsServer
from edged.broker import run_once
from edged.config.hub import HubConfig, PageTable
from edged.config.secret import read_secret
from edged.hub.assembly import Hub
from edged.hub.page.server import Page
from edged.hub.status import Snapshot, show_metrics

_LOG = logging.getLogger(__name__)
_TICK, _STATUS_EVERY, _SWEEP_EVERY = 1.0, 5.0, 10.0
_GOODBYE = 3.0


class HubProcess:
    """One hub process.

    :param instance: names this process where several share one state.
    :param page: serve the page also where the configuration has no ``[page]``.
    :raises EdgedError: why it cannot start.
    """

    def __init__(self, config: HubConfig, instance: str = "", *, page: bool = False) -> None:
        set_up_logging(config.log.level)
        _LOG.info("edged hub %s starts", __version__, extra=Event.STARTED.about())
        for line in harden().describe():
            _LOG.info("%s", line, extra=Event.PROTECTION.about())
        self._hub = Hub(config, instance)
        self._snapshot = Snapshot(self._hub)
        self._page: Page | None = None
        if page or config.page is not None:
            self._page = self._serve_page(config.page or PageTable())
        self._metrics = None if config.metrics is None else MetricsServer(Listen.parse(config.metrics.listen))
        self._stopping = self._ready = False

    def _serve_page(self, table: PageTable) -> Page:
        token = None if table.token is None else read_secret(table.token).decode()
        self._snapshot.refresh()
        page = Page(table.address, token, self._snapshot.page, self._hub.history, table.proxy)
        _LOG.info("page: %s", page.url)
        return page

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises EdgedError: why it cannot go on.
        """
        hub = self._hub
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the folder of boards is followed without it
        try:
            hub.begin()
            timers = [
                Timer(_TICK, self._tick),
                Timer(_STATUS_EVERY, self._say_status),
                Timer(_SWEEP_EVERY, hub.sweep),
            ]
            if interval := notify.watchdog_interval():
                timers.append(Timer(interval / 3, notify.watchdog))
            due = Timers(timers)
            for broker in hub.links.values():
                broker.connect()
            now = time.monotonic()
            while not self._stopping:
                waiting = min(due.at - now, hub.intake.due_in(now), *(sink.due_in(now) for sink in hub.sinks))
                run_once(hub.links.values(), max(0.0, waiting))
                now = time.monotonic()
                due.run_due(now)
                self._after_turn(now)
                if hub.failed is not None:
                    raise hub.failed
        finally:
            self._leave()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._hub.local.wake()

    def _after_turn(self, now: float) -> None:
        hub = self._hub
        hub.intake.turn(now)
        hub.guard.turn(now)
        if hub.guard.passed and not hub.republisher.open:
            hub.open_up()
        for sink in hub.sinks:
            sink.turn(now)
        if not self._ready and all(broker.tried for broker in hub.links.values()):
            self._ready = True
            self._say_status()
            notify.ready()
            broker = hub.local.describe()
            _LOG.info("ready: %d boards, local broker %s", len(hub.views), broker, extra=Event.READY.about())

    def _tick(self) -> None:
        hub = self._hub
        hub.boards.follow()
        hub.intake.tidy(time.monotonic())
        if hub.retained is None:
            return
        if hub.config.hub.share is not None:
            hub.latest.read()
        for view in hub.views.values():
            hub.retained.check(view)
        if self._page is not None and self._snapshot.looked_at:
            self._snapshot.refresh()

    def _say_status(self) -> None:
        notify.status(self._snapshot.line())
        self._snapshot.write()
        if self._metrics is not None:
            show_metrics(self._metrics, self._hub)

    def _leave(self) -> None:
        hub = self._hub
        notify.stopping()
        if self._page is not None:
            self._page.close()
        if self._metrics is not None:
            self._metrics.close()
        if hub.retained is not None:
            hub.retained.end(time.monotonic())
        until = time.monotonic() + _GOODBYE
        while hub.local.is_up and hub.local.pending and time.monotonic() < until:
            hub.local.run_once(0.1)
        hub.close()
        _LOG.info("stopped: %s", self._snapshot.line(), extra=Event.STOPPED.about())
