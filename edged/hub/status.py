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
from edged.hub.counters import Counts

STATUS_FILE = "status.json"
_LOOKING = 15.0
"""Seconds after its last request for which a page counts as open."""


HEARD = Family("edged_hub_messages_total", "counter", "Messages of boards; each ends in one of the next five.")
OPENED = Family("edged_hub_results_total", "counter", "Results that were opened.", ("device",))
REPEATED = Family("edged_hub_repeated_total", "counter", "Messages that came again.")
REFUSED = Family("edged_hub_refused_total", "counter", "Messages that are not to be believed.", ("reason",))
OTHER = Family("edged_hub_other_total", "counter", "Announcements, reports, statuses and the like.", ("kind",))
PUBLISHED = Family("edged_hub_published_total", "counter", "Messages that the local broker has taken.")
DROPPED = Family("edged_hub_dropped_total", "counter", "Messages that the local broker never gets.")
HELD = Family("edged_hub_held_messages", "gauge", "Messages that wait for an announcement, or for the state.")
AT_RISK = Family("edged_hub_held_acknowledged", "gauge", "Those of them that are lost if the hub dies now.")
QUEUED = Family("edged_hub_queued_messages", "gauge", "Messages that wait for the local broker.")
BOARD = Family("edged_hub_board_up", "gauge", "Whether an enrolled board is online.", ("device",))
DEGRADED = Family("edged_hub_degraded", "gauge", "1 for what does not work as it should.", ("what",))
BROKER = Family("edged_hub_broker_up", "gauge", "Whether the connection to a broker stands.", ("link",))
SESSIONS_LOST = Family(
    "edged_hub_broker_sessions_lost_total", "counter", "Connections whose session the broker had lost.", ("link",)
)

BOOKS = (HEARD, OPENED, REPEATED, REFUSED, OTHER, HELD)
FAMILIES = (*BOOKS, AT_RISK, PUBLISHED, DROPPED, QUEUED, DEGRADED, BOARD, BROKER, SESSIONS_LOST, *PROCESS)


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
                **counters.all.to_json(),
                "held": hub.intake.held.total(),
                "held_acknowledged": hub.intake.held_acknowledged,
                "published": counters.published,
                "dropped": counters.dropped,
            },
            "refused_lately": [one._asdict() for one in list(counters.lately)],
            "strangers": dict(counters.strangers),
            "problems": hub.problems,
            "boards": [self._board(device, now) for device in sorted(hub.views)],
        }

    def _board(self, device: str, now: float) -> dict[str, Any]:
        hub = self._hub
        return {
            **hub.views[device].to_json(now),
            "epoch": hub.epoch(device),
            **hub.counters.boards.get(device, Counts()).to_json(),
            "held": hub.intake.held[device],
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
    counts = counters.all
    queued = hub.queued()
    server.show(
        render(
            {
                HEARD: one(counts.heard),
                OPENED: {(device,): own.opened for device, own in counters.boards.items()},
                REPEATED: one(counts.repeated),
                REFUSED: {(reason,): count for reason, count in counts.refused.items()},
                OTHER: {(kind,): count for kind, count in counts.other.items()},
                PUBLISHED: one(counters.published),
                DROPPED: one(counters.dropped),
                HELD: one(hub.intake.held.total()),
                AT_RISK: one(hub.intake.held_acknowledged),
                QUEUED: {} if queued is None else one(queued),
                BOARD: {(device,): view.state(now) == "online" for device, view in hub.views.items()},
                DEGRADED: {(what,): 1 for what in hub.problems},
                BROKER: {(name,): broker.is_up for name, broker in hub.links.items()},
                SESSIONS_LOST: {(name,): broker.stats.sessions_lost for name, broker in hub.links.items()},
                **process_values("hub"),
            }
        )
    )
