"""The daemon, assembled in one place: its parts, and how they are wired."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from edged.base.errors import EdgedError, StateError
from edged.base.events import Event, event_of
from edged.base.lock import Lock
from edged.base.units import parse_duration, parse_size
from edged.base.web.address import Listen
from edged.base.web.prometheus import MetricsServer
from edged.board.daemon.audit_trail import AuditTrail
from edged.board.daemon.example_writer import ExampleWriter, open_examples
from edged.board.daemon.links import Links
from edged.board.daemon.recovery import ReplayMarks, StateRecovery
from edged.board.daemon.reports import HEALTH, INVENTORY, STATUS, Heartbeat, InventoryPublisher, Metrics
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.path import MessagePath
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.results import Results
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.installation import Board
from edged.board.state import OutboxStore, QuarantineStore, RowStore, State
from edged.formats.channel.announcer import Announcer
from edged.formats.cose.algorithms import Aead
from edged.keystore import Keystore
from edged.model.runtime import Engine

_LOG = logging.getLogger(__name__)


class Timed(Protocol):
    """A part that needs time."""

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has work to do."""

    def turn(self, now: float) -> None:
        """Do the work that is due, monotonic seconds."""


@dataclass(frozen=True)
class Parts:
    """The parts of one board's daemon."""

    lock: Lock
    health: Health
    recovery: StateRecovery
    keystore: Keystore
    engine: Engine
    marks: ReplayMarks
    audit_trail: AuditTrail
    links: Links
    announcer: Announcer
    announcing: Announcing
    results: Results
    rows: RowLog
    quarantine: Quarantine
    path: MessagePath
    examples: ExampleWriter
    inventory: InventoryPublisher
    heartbeat: Heartbeat
    metrics: Metrics | None

    @property
    def timed(self) -> tuple[Timed, ...]:
        """The parts that need time, in the order of a message's path."""
        return self.path, self.rows, self.results


def assemble(board: Board) -> Parts:
    """Make the parts of a daemon, and connect them. Nothing is dialled yet.

    :raises EdgedError: why it cannot start.
    """
    config = board.config
    lock, health = Lock(board.directory), Health()
    recovery = StateRecovery(board.directory, health)
    state, keystore = recovery.state, board.keystore()
    board.keys.opened_record(keystore)  # hubs would trust no announcement under keys that they were not given
    engine = board.engine()
    _LOG.info("runtime %s %s: %s", engine.name, engine.version, engine.reason)
    marks = ReplayMarks(state)
    audit_trail = AuditTrail(board.audit(state, keystore), state, health)
    audit_trail.started(f"{engine.name} {engine.version}", recovery.crashes)

    links = Links(board, board.topic(STATUS))
    sensors, uplink = links.sensors, links.uplink
    announcer = Announcer(
        config.device.name,
        keystore.signer,
        aead=Aead.A256GCM if config.results.aead == "A256GCM" else Aead.CHACHA20_POLY1305,
        hubs=board.hubs(),
        sign_results=config.results.sign,
        max_age=parse_duration(config.results.rotate),
        begin_epoch=lambda kid, at_least: _begin_epoch(board, state, audit_trail, health, kid, at_least),
    )
    announcing = Announcing(uplink, announcer, health, board.topic, lambda: board.clock(state))
    results = Results(
        uplink,
        announcing,
        health,
        OutboxStore(state),
        topic=board.topic,
        most=parse_size(config.results.outbox.size),
        longest=parse_duration(config.results.outbox.age),
    )
    rows = RowLog(RowStore(state))
    quarantine = Quarantine(QuarantineStore(state), board.hubs(), recovery.crashes)
    slow = parse_duration(config.runtime.slow)
    path = MessagePath(
        results, marks.guard, health, quarantine, rows, rate=config.limits.rate, slow=slow, wake=links.wake
    )
    examples = ExampleWriter(lambda: open_examples(board, keystore))
    path.on_trial, path.on_answered, path.on_delivery = audit_trail.trial_ended, examples.take, examples.hear
    links.on_error(lambda error: _note_broker_error(health, error))
    uplink.on_message = sensors.on_message = path.on_message
    sensors.on_repeated = path.on_repeated
    uplink.on_delivered, uplink.on_down = results.on_delivered, results.on_down

    inventory = InventoryPublisher(
        uplink,
        announcer,
        health,
        board.topic(INVENTORY),
        parse_duration(config.results.heartbeat),
        lambda name: None if (found := board.packages.newest(name)) is None else found.version,
    )
    heartbeat = Heartbeat(uplink, health, path, results, board.topic(HEALTH))
    metrics = None
    if config.metrics is not None:
        server = MetricsServer(Listen.parse(config.metrics.listen))
        metrics = Metrics(server, health, path, results, links, examples)
    return Parts(
        lock, health, recovery, keystore, engine, marks, audit_trail, links, announcer, announcing, results, rows,
        quarantine, path, examples, inventory, heartbeat, metrics,
    )  # fmt: skip


def _begin_epoch(board: Board, state: State, audit_trail: AuditTrail, health: Health, kid: bytes, at_least: int) -> int:
    """Make the number of a new epoch durable, and return it."""
    clock = board.clock(state)
    least = max(at_least, int(clock.now) if clock.synchronised else 0)
    try:
        number = state.begin_epoch(kid, least)
    except StateError as error:
        if not clock.synchronised:
            raise  # nothing says that this number was never used
        health.trouble(error.message, "StateError")
        number = least
    audit_trail.epoch(number, kid)
    return number


def _note_broker_error(health: Health, error: Exception) -> None:
    hint = f" ({error.hint})" if isinstance(error, EdgedError) and error.hint else ""
    kind = type(error).__name__
    health.trouble(f"{error}{hint}", kind, event_of(error, Event.INTERNAL_ERROR), error=kind)
