"""The parts of a daemon, and how they are connected; the brokers that it talks to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edged.base.clock import Clock
from edged.base.errors import EdgedError, StateError, advice
from edged.base.events import Event, event_of
from edged.base.lock import Lock
from edged.base.units import parse_duration, parse_size
from edged.base.web.address import Listen
from edged.base.web.prometheus import MetricsServer
from edged.board.daemon.audit_trail import AuditTrail
from edged.board.daemon.example_writer import ExampleWriter, open_examples
from edged.board.daemon.recovery import ReplayMarks, StateRecovery
from edged.board.daemon.reports import HEALTH, INVENTORY, STATUS, Heartbeat, InventoryPublisher, Metrics
from edged.board.delivery.inbox import Inbox
from edged.board.delivery.inference import Inference
from edged.board.delivery.outgoing import Outgoing
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.installation import Board
from edged.board.state import OutboxStore, QuarantineStore, RowStore
from edged.board.status_file import StatusFile
from edged.broker import Broker, Message, run_once
from edged.formats.channel.announcer import Announcer
from edged.formats.cose.algorithms import Aead

_LOG = logging.getLogger(__name__)


class Parts:
    """The parts of one board's daemon, made once at its start.

    :raises EdgedError: why it cannot start.
    """

    def __init__(self, board: Board) -> None:
        config = board.config
        self._board = board
        self._base = f"{config.results.prefix}/{config.device.name}"
        self._signed = self._epoch = 0
        self.lock = Lock(board.directory)
        self.health = Health()
        self.recovery = StateRecovery(board.directory, self.lock, self.health)
        self._state = state = self.recovery.state
        self.keystore = board.keystore()
        board.keys.opened_record(self.keystore)  # hubs would trust no announcement under keys that they were not given
        self.engine = board.engine()
        _LOG.info("runtime %s %s: %s", self.engine.name, self.engine.version, self.engine.reason)
        self.marks = ReplayMarks(state)
        self.audit_trail = AuditTrail(board.audit(state, self.keystore), state, self.health)
        self.audit_trail.started(f"{self.engine.name} {self.engine.version}", self.recovery.crashes)
        self.links = Links(board, self.topic(STATUS))
        self.links.on_error(self._on_broker_error)
        self.announcer = self._make_announcer()
        self.outgoing = self._make_outgoing()
        self.rows = RowLog(RowStore(state))
        self.quarantine = Quarantine(QuarantineStore(state), board.hubs(), self.recovery.crashes)
        slow = parse_duration(config.runtime.slow)
        self.inference = Inference(self.outgoing, self.health, slow=slow, wake=self.links.wake)
        self.inference.on_trial = self.audit_trail.trial_ended
        self.inbox = Inbox(
            self.inference, self.outgoing, self.marks.guard, self.health, self.quarantine, self.rows, config.limits
        )
        self.example_writer = ExampleWriter(lambda: open_examples(board, self.keystore))
        self.inference.on_answered = self.example_writer.take
        self.inbox.on_delivery = self.example_writer.hear
        self.links.uplink.on_message = self.links.sensors.on_message = self.inbox.on_message
        self.inventory = InventoryPublisher(
            self.links.uplink,
            self.announcer,
            self.topic(INVENTORY),
            parse_duration(config.results.heartbeat),
            self._newest,
        )
        self.status_file = StatusFile(board.directory)
        self.heartbeat = Heartbeat(
            self.links.uplink, self.announcer, self.outgoing, self.health, self.topic(HEALTH), self.status_file
        )
        self.metrics = self._make_metrics()

    def _newest(self, name: str) -> int | None:
        try:
            installed = self._board.packages.newest(name)
        except EdgedError:  # the watch of files says so
            return None
        return None if installed is None else installed.version

    def topic(self, level: str) -> str:
        """Return the topic of this board that ends in ``level``: a channel, or one of the reserved words."""
        return f"{self._base}/{level}"

    def _make_announcer(self) -> Announcer:
        board = self._board
        results = board.config.results
        return Announcer(
            board.config.device.name,
            self.keystore.signer,
            aead=Aead.A256GCM if results.aead == "A256GCM" else Aead.CHACHA20_POLY1305,
            hubs=board.hubs(),
            sign_results=results.sign,
            max_age=parse_duration(results.rotate),
            begin_epoch=self._begin_epoch,
        )

    def _make_metrics(self) -> Metrics | None:
        table = self._board.config.metrics
        if table is None:
            return None
        return Metrics(
            MetricsServer(Listen.parse(table.listen)),
            self.health,
            self.outgoing,
            self.links.uplink,
            self.links.sensors,
            self.example_writer,
        )

    def _make_outgoing(self) -> Outgoing:
        outbox = self._board.config.results.outbox
        outgoing = Outgoing(
            self.links.uplink,
            self.announcer,
            self.health,
            OutboxStore(self._state),
            base=self._base,
            most_waiting=parse_size(outbox.size),
            longest_waiting=parse_duration(outbox.age),
            read_clock=self.clock,
        )
        self.links.uplink.on_delivered = outgoing.on_delivered
        return outgoing

    def clock(self) -> Clock:
        """Return the best known time; without a state that can be read, as far as this run has known it before."""
        try:
            self._signed = self._state.newest_created()
        except StateError as error:
            self.health.trouble(error.message, "StateError")
        return Clock.read(trusted=self._board.config.device.clock == "trusted", signed=self._signed)

    def _begin_epoch(self, kid: bytes, at_least: int) -> int:
        clock = self.clock()
        least = max(at_least, int(clock.now) if clock.synchronised else 0)
        try:
            self._epoch = self._state.begin_epoch(kid, least)
        except StateError as error:
            if not clock.synchronised and not self._epoch:
                raise  # nothing says that this number was never used
            self.health.trouble(error.message, "StateError")
            self._epoch = max(least, self._epoch + 1)
        self.audit_trail.epoch(self._epoch, kid)
        return self._epoch

    def _on_broker_error(self, error: Exception) -> None:
        kind, said = type(error).__name__, advice(error) if isinstance(error, EdgedError) else str(error)
        self.health.trouble(said, kind, event_of(error, Event.INTERNAL_ERROR), error=kind)


class Links:
    """The sensor broker and the uplink, often the same, served from one loop.

    :ivar sensors: the broker that readings come from.
    :ivar uplink: the broker that results go to.
    """

    def __init__(self, board: Board, status: str) -> None:
        config = board.config
        will = Message(status, b"offline", qos=1, retain=True)
        if config.uplink is None:
            self.sensors = self.uplink = Broker(board.broker_options(will=will))
        else:
            self.sensors = Broker(board.broker_options())
            self.uplink = Broker(board.broker_options(config.uplink, will))
        self._all = tuple(dict.fromkeys((self.sensors, self.uplink)))

    def on_error(self, callback: Callable[[Exception], None]) -> None:
        """Call ``callback`` with each error of either broker."""
        for broker in self._all:
            broker.on_error = callback

    def on_sensors_up(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the sensor broker connects, before the existing ``on_up``."""
        before = self.sensors.on_up

        def both() -> None:
            callback()
            before()

        self.sensors.on_up = both

    def connect(self) -> None:
        """Connect, and reconnect whenever a connection is lost."""
        for broker in self._all:
            broker.connect()

    def run_once(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for socket events, and process them."""
        run_once(self._all, timeout)

    def wake(self) -> None:
        """Make :meth:`run_once` return at once; from any thread, and from signal handlers."""
        self.sensors.wake()

    @property
    def tried(self) -> bool:
        """True once the first attempts to connect have succeeded or failed."""
        return all(broker.tried for broker in self._all)

    def describe(self) -> str:
        """Describe the connections in a few words."""
        if len(self._all) == 1:
            return self.sensors.describe()
        return f"{self.sensors.describe()}; uplink {self.uplink.describe()}"

    def close(self) -> None:
        """Disconnect. Blocks for about three seconds a broker at most."""
        for broker in self._all:
            broker.close()
