"""A listener that opens sealed results as they arrive: for `edged listen` and the demo."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from edged.base.events import Event, event_of
from edged.base.log import RateLimited
from edged.base.nothing import nothing
from edged.broker import Broker, Delivery
from edged.formats.channel.hub import Hub
from edged.formats.channel.receiver import Opened
from edged.formats.channel.report import Report

_LOG = logging.getLogger(__name__)


class Listener:
    """Subscribes to a hub's boards and passes on the results that open.

    :param on_result: called with each result that was accepted.
    :param on_report: called with a board's name and each report of its own.
    :ivar refused: numbers of refused messages, by error; ``epochs``: of the newest announced epoch, by board.
    """

    def __init__(
        self,
        broker: Broker,
        hub: Hub,
        on_result: Callable[[Opened], None],
        on_report: Callable[[str, Report], None] = nothing,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.epochs: dict[str, int] = {}
        self._broker = broker
        self._hub = hub
        self._on_result = on_result
        self._on_report = on_report
        self._limited = RateLimited(_LOG)
        broker.on_message = self.on_message

    def subscribe(self) -> None:
        """Subscribe to every enrolled board."""
        for topic in self._hub.topics:
            self._broker.subscribe(topic, 1)

    def on_message(self, delivery: Delivery) -> None:
        """Handle one message. No content of a message raises."""
        taken = self._hub.take(delivery.topic, delivery.payload, retained=delivery.retain)
        for device, epoch in taken.announced:
            self.epochs[device] = epoch
            _LOG.info("%s announces epoch %d", device, epoch, extra=Event.EPOCH_ANNOUNCED.about(device=device))
        for opened in taken.opened:
            self._on_result(opened)
        for device, report in taken.reports:
            self._on_report(device, report)
        for topic, error in taken.refused:
            kind = type(error).__name__
            self.refused[kind] += 1
            message, event = f"{topic}: {kind}: {error.message}", event_of(error, Event.RESULT_REFUSED)
            self._limited.warning(kind, message, event, topic=topic, error=kind)
        for question in taken.questions:
            self._broker.publish(*question, qos=1)
        delivery.ack()
