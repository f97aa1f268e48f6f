"""The hub at this moment: for `edged hub status` and the page as JSON, for Prometheus as numbers."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edged import __version__
from edged.base.notify import runtime_directory
from edged.base.web.prometheus import PROCESS, Family, MetricsServer, one, process_values, render
from edged.hub.assembly import Hub

STATUS_FILE = "status.json"
_LOOKING = 15.0
"""Seconds after its last request for which a page counts as open."""


OPENED = Family("edged_hub_results_total", "counter", "Results that were opened.", ("device",))
REPEATED = Family("edged_hub_repeated_total", "counter", "Results that came again.")
REFUSED = Family("edged_hub_refused_total", "counter", "Messages that are not to be believed.", ("reason",))
PUBLISHED = Family("edged_hub_published_total", "counter", "Messages that the local broker has taken.")
DROPPED = Family("edged_hub_dropped_total", "counter", "Messages that the local broker never gets.")
HELD = Family("edged_hub_held_results", "gauge", "Results that wait for the announcement of their key.")
QUEUED = Family("edged_hub_queued_messages", "gauge", "Messages that wait for the local broker.")
BOARD = Family("edged_hub_board_up", "gauge", "Whether an enrolled board is online.", ("device",))
BROKER = Family("edged_hub_broker_up", "gauge", "Whether the connection to a broker stands.", ("link",))

FAMILIES = (OPENED, REPEATED, REFUSED, PUBLISHED, DROPPED, HELD, QUEUED, BOARD, BROKER, *PROCESS)


def status_path(state: Path) -> Path:
    """Return the path of a hub's status: in the service's directory in RAM if there is one, else in the hub's state."""
    return (runtime_directory() or state) / STATUS_FILE


class Snapshot:
    """Describes a hub as JSON."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._started = time.time()
        self._wanted = -_LOOKING
        self._shown = b"{}"
        name = f"status-{hub.instance}.json" if hub.instance else STATUS_FILE
        self._path = status_path(Path(hub.config.hub.state)).with_name(name)

    def line(self) -> str:
        """Return the status line."""
        counts = self._hub.counters.all
        online = sum(view.state(time.monotonic()) == "online" for view in self._hub.views.values())
        refused = f", {counts.refused.total()} refused" if counts.refused else ""
        return f"{online} of {len(self._hub.views)} boards online; {counts.opened} results{refused}"

    def take(self) -> dict[str, Any]:
        """Return the description."""
        hub, now = self._hub, time.monotonic()
        counters = hub.counters
        return {
            "version": __version__,
            "time": time.time(),
            "started": self._started,
            "hub": hub.config.hub.name,
            "upstreams": [
                {
                    "name": name,
                    "url": hub.config.upstream[name].url,
                    "state": broker.describe(),
                    "up": broker.is_up,
                }
                for name, broker in hub.upstreams.items()
            ],
            "local": {
                "url": hub.config.local.url,
                "state": hub.local.describe(),
                "up": hub.local.is_up,
                "queued": hub.queued(),
            },
            "counts": {
                "opened": counters.all.opened,
                "published": counters.published,
                "repeated": counters.all.repeated,
                "dropped": counters.dropped,
                "held": hub.intake.held,
                "refused": dict(counters.all.refused),
            },
            "refused_lately": [one._asdict() for one in list(counters.lately)],
            "strangers": dict(counters.strangers),
            "problems": hub.problems,
            "boards": [self._board(device, now) for device in sorted(hub.views)],
        }

    def _board(self, device: str, now: float) -> dict[str, Any]:
        hub = self._hub
        counts = hub.counters.boards.get(device)
        return {
            **hub.views[device].to_json(now),
            "epoch": hub.epoch(device),
            "opened": counts.opened if counts else 0,
            "repeated": counts.repeated if counts else 0,
            "refused": dict(counts.refused) if counts else {},
        }

    def page(self) -> bytes:
        """Return the last description for the page, a second or two old. Any thread may call it."""
        self._wanted = time.monotonic()
        return self._shown

    def refresh(self) -> None:
        """Make a new description for the page."""
        self._shown = msgspec.json.encode(self.take())

    @property
    def looked_at(self) -> bool:
        """True if somebody looks at the page."""
        return time.monotonic() - self._wanted < _LOOKING

    def write(self) -> None:
        """Write the description to the file that commands read."""
        new = self._path.with_suffix(".new")
        with suppress(OSError):
            new.write_bytes(msgspec.json.encode(self.take()))
            new.replace(self._path)


def show_metrics(server: MetricsServer, hub: Hub) -> None:
    """Serve a hub's numbers as they are now."""
    counters, now = hub.counters, time.monotonic()
    links, queued = {**hub.upstreams, "local": hub.local}, hub.queued()
    server.show(
        render(
            {
                OPENED: {(device,): counts.opened for device, counts in counters.boards.items()},
                REPEATED: one(counters.all.repeated),
                REFUSED: {(reason,): count for reason, count in counters.all.refused.items()},
                PUBLISHED: one(counters.published),
                DROPPED: one(counters.dropped),
                HELD: one(hub.intake.held),
                QUEUED: {} if queued is None else one(queued),
                BOARD: {(device,): view.state(now) == "online" for device, view in hub.views.items()},
                BROKER: {(name,): broker.is_up for name, broker in links.items()},
                **process_values("hub"),
            }
        )
    )
