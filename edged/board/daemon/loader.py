"""Load the configured models beside the running ones, so that messages keep flowing meanwhile."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edged.base.errors import ConfigError, EdgedError, MissingFileError
from edged.base.events import Event
from edged.base.units import parse_size
from edged.board.installation import Board
from edged.board.pipeline import Decoders, Lane, check_chain
from edged.board.state import State
from edged.config.model import ModelConfig
from edged.formats.channel.reading import ReplayGuard
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Record
from edged.formats.package import Floor
from edged.keystore import Keystore
from edged.keystore.packages import Installed
from edged.model.live import LiveModel
from edged.model.runtime import Engine

_LOG = logging.getLogger(__name__)
RELOAD = "reload"
"""The part that is degraded while a reload stands refused."""
_RETRY_SECONDS = 10.0


@dataclass
class LoadedModels:
    """The outcome of a load: new models by channel, and the errors of models that cannot be used.

    :ivar proven: channels whose new model got through its trial before.
    :ivar lowest: the lowest version that may be served, by channel.
    :ivar unfit: channels whose running version may not go on: it was rejected, or lies below the lowest.
    """

    board: Board
    hubs: Sequence[Record]
    sensors: Mapping[str, tuple[ContentKey, ...]]
    models: dict[str, LiveModel] = field(default_factory=dict)
    errors: dict[str, EdgedError] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    lowest: dict[str, int] = field(default_factory=dict)
    unfit: set[str] = field(default_factory=set)


Running = Mapping[str, tuple[ModelConfig, str, int]]
"""The running models: table, name and version, by channel."""


def load_models(board: Board, keystore: Keystore, engine: Engine, state: State, running: Running) -> LoadedModels:
    """Load the newest package of each configured model that does not already run just so.

    Where that one cannot be used, the version that serves stays, unless it was rejected or lies below the lowest; else
    one that got through its trial takes its place.
    """
    loaded = LoadedModels(board, board.hubs(), board.sensor_keys())
    for table in board.config.model:
        now = running.get(table.channel)
        rejected = {one.version for one in state.rejected(table.name)}
        lowest = loaded.lowest[table.channel] = board.lowest(table.name, state)
        if now is not None and (now[2] in rejected or now[2] < lowest):
            loaded.unfit.add(table.channel)
        stays = now is not None and now[0] == table and table.channel not in loaded.unfit
        candidates = _candidates(board, state, table.name, stays=stays)
        if not candidates:
            loaded.errors[table.channel] = MissingFileError(
                f"no package of model {table.name!r} is installed", hint=f"edged install {table.name}-VERSION.edged"
            )
        for installed in candidates:
            if stays and (table, installed.name, installed.version) == now:
                break
            try:
                model = board.load(installed, keystore, state, engine, table.delegate)
                board.accept(model, state)
            except EdgedError as error:
                loaded.errors.setdefault(table.channel, error)
                continue
            loaded.models[table.channel] = model
            loaded.lowest[table.channel] = board.lowest(table.name, state)
            if Floor(installed.version, model.identity) in state.good(table.name):
                loaded.proven.add(table.channel)
            break
    return loaded


def _candidates(board: Board, state: State, name: str, *, stays: bool) -> list[Installed]:
    """Return the packages that may be loaded, the best first.

    :param stays: True if the running version goes on should the newest fail.
    """
    good = [] if stays else [board.packages.find(name, one.version) for one in state.good(name)]
    return [one for one in dict.fromkeys((board.packages.newest(name), *good)) if one is not None]


def next_lanes(
    loaded: LoadedModels, lanes: Mapping[str, Lane], guard: ReplayGuard, decoders: Decoders
) -> dict[str, Lane]:
    """Return the lanes after a load: unchanged ones, those with another model, and new ones.

    A lane whose new version cannot be used goes on with the old one, and the log says why. A lane that depends
    on one which cannot be used, or whose labels have changed, is left out.
    """
    following: dict[str, Lane] = {}
    limit = parse_size(loaded.board.config.limits.message)
    for table in loaded.board.config.model:
        channel = table.channel
        lane, model = lanes.get(channel), loaded.models.get(channel)
        if error := loaded.errors.get(channel):
            _log_refusal(table, error)
        if lane is not None:
            lane.use_sensors(loaded.sensors.get(channel, ()))
        if model is not None:
            try:
                if lane is not None and lane.config == table:
                    lane.swap(model, proven=channel in loaded.proven, lowest=loaded.lowest[channel])
                else:
                    lane = Lane(table, model, loaded.sensors.get(channel, ()), guard, limit, decoders)
                    lane.begin_trial(proven=channel in loaded.proven)
            except EdgedError as error:
                _refuse(loaded, table, error, model)
        if lane is None or (channel in loaded.unfit and lane is lanes.get(channel) and lane.model is not model):
            continue
        try:
            manifests = {above: standing.model.manifest for above, standing in following.items()}
            check_chain(table, lane.model.manifest, manifests)
        except ConfigError as error:
            _refuse(loaded, table, error, None if lane is lanes.get(channel) else lane.model)
        else:
            following[channel] = lane
    return following


def _refuse(loaded: LoadedModels, table: ModelConfig, error: EdgedError, model: LiveModel | None) -> None:
    loaded.errors[table.channel] = error
    _log_refusal(table, error)
    if model is not None:
        model.close()


def _log_refusal(table: ModelConfig, error: EdgedError) -> None:
    about = Event.PACKAGE_REFUSED.about(model=table.name, channel=table.channel, error=type(error).__name__)
    _LOG.error("model %s: %s", table.name, error.message, extra=about)


class PackageChanges:
    """Notices packages that were installed or removed, and those that a refused reload has not loaded yet."""

    def __init__(self) -> None:
        self._seen = self._loaded = 0
        self._faults: set[str] = set()
        self._retry_at = 0.0

    def due(self, stamp: int, faults: Collection[str] = ()) -> bool:
        """Return True if packages are to be loaded: new ones now, refused ones once more, and whenever faults change.

        :param stamp: of the installed packages.
        :param faults: the parts of the daemon that are degraded.
        """
        now, others = time.monotonic(), set(faults) - {RELOAD}
        changed = stamp != self._seen or (stamp != self._loaded and others != self._faults)
        if changed:
            self._seen, self._faults, self._retry_at = stamp, others, now + _RETRY_SECONDS
        elif stamp != self._loaded and now >= self._retry_at:
            self._retry_at = math.inf
        else:
            return False
        return True

    def loaded(self) -> None:
        """Note that a load succeeded."""
        self._loaded = self._seen


class BackgroundLoad:
    """A load in a thread of its own.

    :param wake: called from that thread when the load is done.
    """

    def __init__(self, work: Callable[[], LoadedModels], wake: Callable[[], None]) -> None:
        self._work = work
        self._wake = wake
        self._loaded: LoadedModels | None = None
        self._error: EdgedError | OSError | None = None
        self._thread = threading.Thread(target=self._run, name="edged-load")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loaded = self._work()
        except (EdgedError, OSError) as error:
            self._error = error
        finally:
            self._wake()

    @property
    def done(self) -> bool:
        """True once :meth:`result` will not wait."""
        return not self._thread.is_alive()

    def result(self) -> LoadedModels:
        """Return the outcome.

        :raises EdgedError: the configuration itself could not be used.
        :raises OSError: as a file of it.
        """
        self._thread.join()
        if self._loaded is None:
            raise self._error or EdgedError("loading ended without a result")
        return self._loaded
