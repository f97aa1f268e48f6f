"""The hub's numbers, by the names that Prometheus knows them under."""

from __future__ import annotations

import time

from edged.base.web.prometheus import PROCESS, Family, MetricsServer, one, process_values, render
from edged.hub.hub import Hub

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


def show(server: MetricsServer, hub: Hub) -> None:
    """Serve a hub's numbers as they are now."""
    tally, now = hub.tally, time.monotonic()
    links, queued = {**hub.upstreams, "local": hub.local}, hub.queued()
    server.show(
        render(
            {
                OPENED: {(device,): counts.opened for device, counts in tally.boards.items()},
                REPEATED: one(tally.all.repeated),
                REFUSED: {(reason,): count for reason, count in tally.all.refused.items()},
                PUBLISHED: one(tally.published),
                DROPPED: one(tally.dropped),
                HELD: one(hub.intake.held),
                QUEUED: {} if queued is None else one(queued),
                BOARD: {(device,): view.state(now) == "online" for device, view in hub.views.items()},
                BROKER: {(name,): broker.is_up for name, broker in links.items()},
                **process_values("hub"),
            }
        )
    )
