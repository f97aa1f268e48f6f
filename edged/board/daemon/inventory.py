"""What this board serves, said to its hubs whenever it changes: retained, sealed, and never older than the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edged import __version__
from edged.base.units import parse_duration
from edged.board.pipeline import Lane
from edged.broker import Broker
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.inventory import MOST_LABELS, Inventory, ServedModel
from edged.formats.spec import Chain

INVENTORY = "inventory"


class Shelf:
    """Says what is served.

    :param topic: where the sealed inventory stands.
    :param heartbeat: seconds between two reports.
    :param newest: the newest installed version of a model's name; None for none.
    """

    def __init__(
        self,
        uplink: Broker,
        announcer: Announcer,
        topic: str,
        heartbeat: float,
        newest: Callable[[str], int | None],
    ) -> None:
        self._uplink = uplink
        self._announcer = announcer
        self._topic = topic
        self._heartbeat = heartbeat
        self._newest = newest
        self._told: tuple[int, tuple[ServedModel, ...]] | None = None

    def tell(self, lanes: Mapping[str, Lane], *, again: bool = False) -> bool:
        """Publish the inventory where it, or the epoch, has changed; tell whether that was so.

        :param again: publish it all the same: the broker may have lost what it retained.
        """
        if not self._uplink.is_up:
            return False
        models = tuple(self._served(lane) for lane in lanes.values() if lane.config.publish)
        if not again and self._told == (self._announcer.epoch, models):
            return False
        sealed = self._announcer.seal_inventory(Inventory(__version__, self._heartbeat, models).encode())
        self._told = self._announcer.epoch, models
        self._uplink.publish(self._topic, sealed, qos=1, retain=True)
        return True

    def _served(self, lane: Lane) -> ServedModel:
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
            name="" if shown is None else shown.name,
            device_class=(shown and shown.device_class) or "",
            state_class="measurement" if shown is None else shown.state_class,
            binary=_binary(manifest),
            longest=_longest(manifest),
        )


def _binary(chain: Chain) -> dict[str, str]:
    """Return the labels that are shown by themselves, the watched one first, each with its device class."""
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
