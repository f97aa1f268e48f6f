"""The boards of a hub: the folder of enrolment records that names them, and a view of each at this moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edged.base.errors import EdgedError, StateError
from edged.base.events import Event
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.receiver import Receiver
from edged.formats.channel.report import Report
from edged.formats.identity import Record, Role
from edged.hub.counters import HubCounters
from edged.hub.state import HubState
from edged.hub.topics import MOST_SOURCES, Place
from edged.hub.upstream import Subscriptions
from edged.keystore.records import read_record

_LOG = logging.getLogger(__name__)

_HEARTBEAT = 30.0
"""Seconds between two reports of a board whose inventory is not known yet."""
_PATIENCE = 3.5
"""Heartbeats without a message after which a board counts as silent."""

State = Literal["online", "offline", "silent", "unknown"]


@dataclass
class BoardView:
    """One board.

    :ivar status: True if its status topic, which anybody can write, says that it is connected; None until it says.
    :ivar report: its last report.
    :ivar heard: time of its last sealed message, monotonic seconds; at first the start of this hub.
    :ivar inventory: its last inventory.
    :ivar last: the newest result of each place; of one channel the place that was silent for longest comes first.
    :ivar last_seen: time of its last sealed message, Unix seconds.
    """

    record: Record
    status: bool | None = None
    report: Report | None = None
    heard: float = field(default_factory=time.monotonic)
    inventory: Inventory | None = None
    last: dict[Place, Mapping[str, Any]] = field(default_factory=dict)
    last_seen: float | None = None

    @property
    def heartbeat(self) -> float:
        """Seconds from one report to the next."""
        return _HEARTBEAT if self.inventory is None else self.inventory.heartbeat

    def state(self, now: float) -> State:
        """Return the state of the board: connected by its status, and alive by its sealed messages.

        :param now: monotonic seconds.
        """
        if self.status is None:
            return "unknown"
        if not self.status:
            return "offline"
        return "online" if now - self.heard <= _PATIENCE * self.heartbeat else "silent"

    def note_report(self, report: Report) -> None:
        """Note a report."""
        self.report = report
        self.note_life()

    def note_life(self) -> None:
        """Note that a fresh message of the board has opened."""
        self.heard = time.monotonic()
        self.last_seen = time.time()

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The models that the board serves."""
        return () if self.inventory is None else self.inventory.models

    @property
    def places(self) -> list[Place]:
        """The places of results: each source that the site has named, or that a result has come from."""
        return [place for model in self.models for place in self._places(model)]

    def _places(self, model: ServedModel) -> list[Place]:
        if model.sources is None:
            return [Place(model.channel)]
        heard = {place.source for place in self.last if place.channel == model.channel} - {""}
        return [Place(model.channel, source) for source in sorted({*heard, *model.sources})]

    def show(self, place: Place, result: Mapping[str, Any]) -> None:
        """Keep the newest result of a place; beyond :data:`MOST_SOURCES` the place that was silent for longest goes."""
        self.last.pop(place, None)
        self.last[place] = result
        same = [one for one in self.last if one.channel == place.channel]
        if len(same) > MOST_SOURCES:
            del self.last[same[0]]

    def to_json(self, now: float) -> dict[str, Any]:
        """Return the view as JSON for people and scripts; counts are added elsewhere."""
        return {
            "device": self.record.id,
            "fingerprint": self.record.fingerprint,
            "state": self.state(now),
            "last_seen": self.last_seen,
            "edged": None if self.inventory is None else self.inventory.edged,
            "report": None if self.report is None else asdict(self.report),
            "models": [self._model(model) for model in self.models],
        }

    def _model(self, model: ServedModel) -> dict[str, Any]:
        keys = ("channel", "model", "version", "kind", "unit", "installed", "trial")
        shown = {key: getattr(model, key) for key in keys}
        results = [self._result(place) for place in self._places(model)]
        return {**shown, "labels": list(model.labels), "name": self._title(Place(model.channel)), "results": results}

    def _result(self, place: Place) -> dict[str, Any]:
        last = self.last.get(place)
        return {"place": place.levels, "source": place.source, "name": self._title(place), "last": last}

    def _title(self, place: Place) -> str:
        return "" if self.inventory is None else self.inventory.title(*place)


class EnrolmentFolder:
    """The folder of enrolment records: the boards to believe.

    :param directory: holds their records, ``*.enrol``.
    :ivar records: by the boards' names.
    :ivar problems: problems by file.
    """

    def __init__(self, directory: Path) -> None:
        self.records: dict[str, Record] = {}
        self.problems: dict[str, str] = {}
        self._directory = directory
        self._stamp: object = None

    def read(self) -> bool:
        """Read the folder if it has changed; return True if it had.

        A file that cannot be used is passed over and named in :attr:`problems`: the board of that name stays as it
        was believed.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before, self.records, self.problems = self.records, {}, {}
        if stamp is None:  # a disk that is not mounted takes no board away
            self.records = before
            self.problems[str(self._directory)] = "it is absent, or cannot be read"
        for path in sorted(self._directory.glob("*.enrol")):
            try:
                self._take(read_record(path, Role.DEVICE), path, before)
            except EdgedError as error:
                self.problems[path.name] = error.message
                if path.stem in before:
                    self.records.setdefault(path.stem, before[path.stem])
        for name, problem in self.problems.items():
            _LOG.error("enrolment record %s: %s", name, problem, extra=Event.RECORD_REFUSED.about())
        return True

    def _take(self, record: Record, path: Path, before: dict[str, Record]) -> None:
        if record.id in self.records:
            self.problems[path.name] = f"another record of {record.id} stands in the folder"
            return
        if (older := before.get(record.id)) is not None:
            try:
                record.check_replaces(older)
            except EdgedError as error:
                self.problems[path.name] = f"{error.message}; to believe it all the same, take the old record out first"
                record = older
        self.records[record.id] = record

    def _look(self) -> object:
        try:
            found = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in self._directory.iterdir()]
        except OSError:
            return None
        return sorted(one for one in found if one[0].endswith(".enrol"))


class Boards:
    """The boards that this hub believes.

    :param on_removed: called with the name of each board that is no longer enrolled.
    :ivar views: of the boards, by name.
    """

    def __init__(
        self,
        folder: EnrolmentFolder,
        receiver: Receiver,
        state: HubState,
        counters: HubCounters,
        subscriptions: Sequence[Subscriptions],
        on_removed: Callable[[str], None],
    ) -> None:
        self.views: dict[str, BoardView] = {}
        self._folder = folder
        self._receiver = receiver
        self._state = state
        self._counters = counters
        self._subscriptions = subscriptions
        self._on_removed = on_removed

    @property
    def problems(self) -> dict[str, str]:
        """Problems with enrolment records, by file."""
        return self._folder.problems

    def begin(self) -> None:
        """Read the folder of records, and the inventories of an earlier run."""
        self.follow()
        known = self._state.inventories()
        with suppress(StateError), self._state.batch():
            for device in {*known, *(device for device, _, _ in self._state.shown())} - set(self.views):
                self._state.forget(device)  # it was removed while no hub ran
        for device, content in known.items():
            if device in self.views:
                with suppress(EdgedError):
                    self.views[device].inventory = Inventory.parse(content)
                self.follow_channels(device)

    def follow(self) -> None:
        """Read the folder of records if it has changed, and take in or remove boards."""
        if not self._folder.read():
            return
        records = self._folder.records
        for device in [device for device in self.views if device not in records]:
            _LOG.info("%s is believed no more", device, extra=Event.BOARD_REMOVED.about(device=device))
            self._remove(device)
        for device, record in records.items():
            self._receiver.enrol(record)
            if device in self.views:
                self.views[device].record = record
                continue
            _LOG.info("%s is believed", device, extra=Event.BOARD_ENROLLED.about(device=device))
            self.views[device] = BoardView(record)
            self._counters.strangers.pop(device, None)
            for subscriptions in self._subscriptions:
                subscriptions.add(device)

    def _remove(self, device: str) -> None:
        del self.views[device]
        self._receiver.forget(device)
        for subscriptions in self._subscriptions:
            subscriptions.remove(device)
        with suppress(StateError), self._state.batch():
            self._state.forget(device)
        self._on_removed(device)

    def follow_channels(self, device: str) -> None:
        """Subscribe to the channels that a board serves now."""
        channels = [model.channel for model in self.views[device].models]
        for subscriptions in self._subscriptions:
            subscriptions.set_channels(device, channels)
