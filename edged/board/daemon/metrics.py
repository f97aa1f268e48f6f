"""The daemon's numbers, by the names that Prometheus knows them under."""

from __future__ import annotations

from collections.abc import Mapping

from edged.base.web.prometheus import PROCESS, Family, MetricsServer, Values, one, process_values, render
from edged.board.daemon.collection import Collection
from edged.board.daemon.health import Health
from edged.board.daemon.links import Links
from edged.board.daemon.outgoing import Outgoing
from edged.board.daemon.vitals import temperature
from edged.board.pipeline import Lane

MESSAGES = Family("edged_messages_total", "counter", "Messages that were taken.")
RESULTS = Family("edged_results_total", "counter", "Results that were sealed.")
REFUSED = Family("edged_refused_total", "counter", "Messages that could not be used.", ("reason",))
REPEATED = Family("edged_repeated_total", "counter", "Messages that were handed out again and had been dealt with.")
DROPPED = Family("edged_dropped_total", "counter", "Results that nobody will get.")
LAST = Family("edged_last_result_timestamp_seconds", "gauge", "When the newest result was seen, Unix seconds.")
LOST = Family("edged_lost_windows", "gauge", "Windows of rows that the last crash took.")
ASIDE = Family("edged_set_aside", "gauge", "Messages that were set aside.")
IN_FLIGHT = Family("edged_results_in_flight", "gauge", "Results that the broker has not acknowledged yet.")
OUTBOX = Family("edged_outbox_results", "gauge", "Results that wait in the outbox.")
OUTBOX_BYTES = Family("edged_outbox_bytes", "gauge", "Bytes of those.")
MODEL = Family("edged_model_info", "gauge", "1, with the version that serves.", ("model", "version", "channel"))
TRIAL = Family("edged_model_on_trial", "gauge", "Whether that version is on trial.", ("model", "channel"))
WINDOW = Family("edged_model_window_seconds", "gauge", "What its self-test took a window.", ("model", "channel"))
EXAMPLES = Family(
    "edged_examples_total", "counter", "Windows to train with, by what became of them.", ("channel", "outcome")
)
EXAMPLE_BYTES = Family("edged_examples_bytes", "gauge", "Sealed bytes of those that are stored.", ("model",))
BROKER = Family("edged_broker_up", "gauge", "Whether the connection to a broker stands.", ("link",))
DEGRADED = Family("edged_degraded", "gauge", "1 for what does not work as it should.", ("what",))
TEMPERATURE = Family("edged_temperature_celsius", "gauge", "Temperature of the board.")

FAMILIES = (
    MESSAGES, RESULTS, REFUSED, REPEATED, DROPPED, LAST, LOST, ASIDE, IN_FLIGHT, OUTBOX, OUTBOX_BYTES, MODEL,
    TRIAL, WINDOW, EXAMPLES, EXAMPLE_BYTES, BROKER, DEGRADED, TEMPERATURE, *PROCESS,
)  # fmt: skip


class Metrics:
    """Takes the numbers from where they stand, from time to time: nothing is counted for them alone."""

    def __init__(
        self, server: MetricsServer, health: Health, outgoing: Outgoing, links: Links, collection: Collection
    ) -> None:
        self._server = server
        self._health = health
        self._outgoing = outgoing
        self._links = links
        self._collection = collection
        self.close = server.close

    def show(self, lanes: Mapping[str, Lane]) -> None:
        """Serve the numbers as they are now."""
        self._server.show(render({**self._counts(), **self._models(lanes), **self._board()}))

    def _counts(self) -> dict[Family, Values]:
        health, outgoing = self._health, self._outgoing
        return {
            MESSAGES: one(health.messages),
            RESULTS: one(health.results),
            REFUSED: {(reason,): count for reason, count in health.refused.items()},
            REPEATED: one(health.repeated),
            DROPPED: one(health.dropped),
            LAST: {} if health.last_result is None else one(health.last_result),
            LOST: one(health.lost),
            ASIDE: one(health.set_aside),
            IN_FLIGHT: one(outgoing.waiting),
            OUTBOX: one(outgoing.outbox.waiting),
            OUTBOX_BYTES: one(outgoing.outbox.bytes),
            EXAMPLES: {(at, outcome): count for (at, outcome), count in self._collection.counts.copy().items()},
            EXAMPLE_BYTES: {(model,): size for model, size in self._collection.sizes.items()},
        }

    @staticmethod
    def _models(lanes: Mapping[str, Lane]) -> dict[Family, Values]:
        names = {(lane.model.manifest.name, channel): lane for channel, lane in lanes.items()}
        return {
            MODEL: {(name, str(lane.model.manifest.version), at): 1 for (name, at), lane in names.items()},
            TRIAL: {name: lane.probation is not None for name, lane in names.items()},
            WINDOW: {name: lane.model.seconds for name, lane in names.items()},
        }

    def _board(self) -> dict[Family, Values]:
        degrees = temperature()
        links = self._links
        return {
            BROKER: {("sensors",): links.sensors.is_up, ("uplink",): links.uplink.is_up},
            DEGRADED: {(what,): 1 for what in self._health.faults},
            TEMPERATURE: {} if degrees is None else one(degrees),
            **process_values("board"),
        }
