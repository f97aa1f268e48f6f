"""Reports of the daemon: health to hubs, systemd and `edged status`, models to hubs, numbers to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from edged import __version__
from edged.base import notify
from edged.base.units import parse_duration
from edged.base.web.prometheus import PROCESS, Family, MetricsServer, Values, one, process_values, render
from edged.board.daemon.example_writer import ExampleWriter
from edged.board.daemon.links import Links
from edged.board.delivery.path import MessagePath
from edged.board.delivery.results import Results
from edged.board.health import Health, temperature
from edged.board.pipeline import Lane
from edged.board.status_file import StatusFile
from edged.broker import Broker
from edged.config.model import ModelConfig
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.inventory import MOST_LABELS, Inventory, ServedModel
from edged.formats.channel.report import Report
from edged.formats.spec import Chain

HEALTH, STATUS = "health", "status"
_AROUND = 512
"""Bytes of a PUBLISH packet and a signed seal around a report or an inventory, at most, the topic among them."""
_TOO_LARGE = "it is larger than what the broker takes (Maximum Packet Size), and is not sent"


def entries(health: Health, path: MessagePath, results: Results) -> dict[str, int | dict[str, int]]:
    """Return the entries of the books at this moment."""
    return health.books.entries(waiting=path.waiting, stored=results.stored, in_flight=results.in_flight)


class Heartbeat:
    """Reports the health of the board.

    :param topic: the topic of the sealed report.
    :param file: says the same on this machine.
    """

    def __init__(
        self, uplink: Broker, health: Health, path: MessagePath, results: Results, topic: str, file: StatusFile
    ) -> None:
        self._uplink = uplink
        self._health = health
        self._path = path
        self._results = results
        self._topic = topic
        self._file = file

    def _report(self, lanes: Mapping[str, Lane]) -> Report:
        models = {channel: (lane.model.manifest.name, lane.model.manifest.version) for channel, lane in lanes.items()}
        books = entries(self._health, self._path, self._results)
        return self._health.report(time.time(), models, books, self._results.outbox.size)

    def beat(self, lanes: Mapping[str, Lane]) -> None:
        """Publish a report. Without a connection it is dropped: the next one says more."""
        if self._uplink.is_up:
            announcing = self._results.announcing
            most = self._uplink.most_bytes - _AROUND
            message = announcing.announcer.seal_health(self._report(lanes).encode(most))
            announcing.announce_if_due()
            self._health.note_state("report", _TOO_LARGE if len(message) > most else "")
            if len(message) <= most:
                self._uplink.publish(self._topic, message)

    def say(self, lanes: Mapping[str, Lane], links: str) -> None:
        """Report to systemd, and to `edged status` on this board.

        :raises OutputError: the status file cannot be written.
        """
        self._health.measure()
        notify.status(f"{links}; {self._health.line()}")
        self._file.write(self._facts(lanes, links))

    def close(self) -> None:
        """Take back what `edged status` would show."""
        self._file.close()

    def _facts(self, lanes: Mapping[str, Lane], links: str) -> dict[str, object]:
        serving = {
            channel: {"version": lane.model.manifest.version, "on_trial": lane.probation is not None}
            for channel, lane in lanes.items()
        }
        report = asdict(self._report(lanes))
        return {
            "version": __version__,
            "links": links,
            **report,
            "last_result": self._health.last_result,
            "serving": serving,
        }


def expired(lanes: Mapping[str, Lane], now: float) -> dict[str, str]:
    """Return what to say of each model that serves past the date that its publisher signed, by channel.

    :param now: Unix seconds.
    """
    manifests = {channel: lane.model.manifest for channel, lane in lanes.items()}
    return {
        channel: f"{one.name} {one.version} expired on {datetime.fromtimestamp(one.expires, UTC):%Y-%m-%d}"
        for channel, one in manifests.items()
        if one.expires is not None and now > one.expires
    }


INVENTORY = "inventory"


class InventoryPublisher:
    """Publishes the models that are served.

    :param topic: the topic of the sealed inventory, which is retained.
    :param heartbeat: seconds between two reports.
    :param newest: the newest installed version of a model's name; None for none.
    """

    def __init__(
        self,
        uplink: Broker,
        announcer: Announcer,
        health: Health,
        topic: str,
        heartbeat: float,
        newest: Callable[[str], int | None],
    ) -> None:
        self._uplink = uplink
        self._announcer = announcer
        self._health = health
        self._topic = topic
        self._heartbeat = heartbeat
        self._newest = newest
        self._told: tuple[int, tuple[ServedModel, ...]] | None = None

    def publish(self, lanes: Mapping[str, Lane], *, repeat: bool = False) -> bool:
        """Publish the inventory if the models or the epoch have changed; return True if it was published.

        :param repeat: publish it in any case: the broker may have lost its retained messages.
        """
        if not self._uplink.is_up:
            return False
        models = tuple(self._served(lane, _origin(lane, lanes)) for lane in lanes.values() if lane.config.publish)
        if not repeat and self._told == (self._announcer.epoch, models):
            return False
        most = self._uplink.most_bytes - _AROUND
        sealed = self._announcer.seal_inventory(Inventory(__version__, self._heartbeat, models).encode(most))
        self._told = self._announcer.epoch, models
        self._health.note_state("inventory", _TOO_LARGE if len(sealed) > most else "")
        if len(sealed) <= most:
            self._uplink.publish(self._topic, sealed, qos=1, retain=True)
        return True

    def _served(self, lane: Lane, origin: ModelConfig) -> ServedModel:
        manifest = lane.model.manifest
        shown = manifest.home_assistant
        return ServedModel(
            channel=lane.config.channel,
            model=manifest.name,
            version=manifest.version,
            installed=self._newest(manifest.name) or manifest.version,
            kind=manifest.output.kind,
            trial=lane.probation is not None,
            labels=manifest.all_labels if len(manifest.all_labels) <= MOST_LABELS else (),
            unit=manifest.output.unit,
            name=lane.config.title or ("" if shown is None else shown.name),
            device_class=(shown and shown.device_class) or "",
            state_class="measurement" if shown is None else shown.state_class,
            binary=_binary(manifest),
            longest=_longest(manifest),
            sources=origin.sources if origin.has_sources else None,
        )


def _origin(lane: Lane, lanes: Mapping[str, Lane]) -> ModelConfig:
    """Return the table of the model that takes the readings: a chain hands on the source of what it was given."""
    while (above := lanes.get(lane.config.from_ or "")) is not None:
        lane = above
    return lane.config


def _binary(chain: Chain) -> dict[str, str]:
    """Return the labels with an entity of their own, the watched one first, each with its device class."""
    shown = chain.home_assistant
    binary: dict[str, str] = {}
    if chain.watched is not None:
        binary[chain.watched] = (shown and shown.device_class) or "problem"
    return binary if shown is None else {**binary, **shown.binary}


def _longest(chain: Chain) -> float | None:
    """Return the seconds from one result to the next, where the manifest bounds them."""
    if chain.publish.when == "change":
        every = chain.publish.at_least_every
        return None if every is None else parse_duration(every)
    return chain.window.step if chain.window.in_time else None


MESSAGES = Family("edged_messages_total", "counter", "Messages that were taken.")
RESULTS = Family("edged_results_total", "counter", "Results that were sealed.")
BOOKS = Family("edged_books", "gauge", "Each reading, window and result since the start, in one entry.", ("entry",))
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
SESSIONS_LOST = Family(
    "edged_broker_sessions_lost_total", "counter", "Connections whose session the broker had lost.", ("link",)
)
DEGRADED = Family("edged_degraded", "gauge", "1 for what does not work as it should.", ("what",))
TEMPERATURE = Family("edged_temperature_celsius", "gauge", "Temperature of the board.")

FAMILIES = (
    MESSAGES, RESULTS, BOOKS, REFUSED, REPEATED, DROPPED, LAST, LOST, ASIDE, IN_FLIGHT, OUTBOX, OUTBOX_BYTES, MODEL,
    TRIAL, WINDOW, EXAMPLES, EXAMPLE_BYTES, BROKER, SESSIONS_LOST, DEGRADED, TEMPERATURE, *PROCESS,
)  # fmt: skip


class Metrics:
    """Collects the numbers of all parts from time to time: nothing is counted for metrics alone."""

    def __init__(
        self,
        server: MetricsServer,
        health: Health,
        path: MessagePath,
        results: Results,
        links: Links,
        example_writer: ExampleWriter,
    ) -> None:
        self._server = server
        self._health = health
        self._path = path
        self._results = results
        self._links = links
        self._example_writer = example_writer
        self.close = server.close

    def show(self, lanes: Mapping[str, Lane]) -> None:
        """Serve the current numbers."""
        self._server.show(render({**self._counts(), **self._models(lanes), **self._board()}))

    def _counts(self) -> dict[Family, Values]:
        health, results, books = self._health, self._results, self._health.books
        shown = entries(health, self._path, results)
        return {
            MESSAGES: one(health.messages),
            RESULTS: one(books.results),
            BOOKS: {(name,): sum(one.values()) if isinstance(one, dict) else one for name, one in shown.items()},
            REFUSED: {(reason,): count for reason, count in health.refused.items()},
            REPEATED: one(books.repeated),
            DROPPED: one(books.dropped.total()),
            LAST: {} if health.last_result is None else one(health.last_result),
            LOST: one(health.lost),
            ASIDE: one(health.set_aside),
            IN_FLIGHT: one(results.in_flight),
            OUTBOX: one(results.stored),
            OUTBOX_BYTES: one(results.outbox.size),
            EXAMPLES: {(at, outcome): count for (at, outcome), count in self._example_writer.counts.copy().items()},
            EXAMPLE_BYTES: {(model,): size for model, size in self._example_writer.sizes.items()},
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
        links = {"sensors": self._links.sensors, "uplink": self._links.uplink}
        return {
            BROKER: {(name,): broker.is_up for name, broker in links.items()},
            SESSIONS_LOST: {(name,): broker.stats.sessions_lost for name, broker in links.items()},
            DEGRADED: {(what,): 1 for what in self._health.faults},
            TEMPERATURE: {} if degrees is None else one(degrees),
            **process_values("board"),
        }
