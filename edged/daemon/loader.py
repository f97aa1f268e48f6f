"""Load what the configuration wants, beside what already runs, so that messages keep flowing meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edged.board import Board, accept
from edged.channel.reading import ReplayGuard
from edged.config.board import ModelConfig
from edged.config.units import parse_size
from edged.cose.keys import ContentKey
from edged.errors import EdgedError, MissingFileError
from edged.keystore import Keystore
from edged.model import LiveModel
from edged.pipeline import Lane
from edged.runtime import Engine
from edged.state import State

_LOG = logging.getLogger(__name__)


@dataclass
class Loaded:
    """What a load found: models that are new, by channel, and why others cannot be used."""

    board: Board
    sensors: Mapping[str, ContentKey]
    models: dict[str, LiveModel] = field(default_factory=dict)
    errors: dict[str, EdgedError] = field(default_factory=dict)


Running = Mapping[str, tuple[ModelConfig, str, int]]
"""What runs already: table, name and version, by channel."""


def load_models(board: Board, keystore: Keystore, engine: Engine, running: Running) -> Loaded:
    """Load the newest package of each configured model that does not already run just so."""
    loaded = Loaded(board, board.sensor_keys())
    state = State(board.directory)
    try:
        for table in board.config.model:
            try:
                model = _load_one(board, keystore, engine, state, table, running.get(table.channel))
            except EdgedError as error:
                loaded.errors[table.channel] = error
                continue
            if model is not None:
                loaded.models[table.channel] = model
    finally:
        state.close()
    return loaded


def _load_one(
    board: Board,
    keystore: Keystore,
    engine: Engine,
    state: State,
    table: ModelConfig,
    running: tuple[ModelConfig, str, int] | None,
) -> LiveModel | None:
    installed = board.packages.newest(table.name)
    if installed is None:
        raise MissingFileError(
            f"no package of model {table.name!r} is installed", hint=f"edged install {table.name}-VERSION.edged"
        )
    if (table, installed.name, installed.version) == running:
        return None
    model = board.load(installed, keystore, state, engine)
    accept(model, state)
    return model


def next_lanes(loaded: Loaded, lanes: Mapping[str, Lane], guard: ReplayGuard) -> dict[str, Lane]:
    """Return the lanes that follow from a load: those that stay, those that swap their model, and new ones.

    A lane whose new version cannot be used goes on with the old one, and the log says why.
    """
    following: dict[str, Lane] = {}
    limit = parse_size(loaded.board.config.limits.message)
    for table in loaded.board.config.model:
        lane, model = lanes.get(table.channel), loaded.models.get(table.channel)
        if table.channel in loaded.errors:
            _LOG.error("model %s: %s", table.name, loaded.errors[table.channel].message)
        try:
            if lane is not None and lane.config == table:
                if model is not None:
                    lane.swap(model)
                following[table.channel] = lane
            elif model is not None:
                following[table.channel] = Lane(table, model, loaded.sensors.get(table.channel), guard, limit)
        except EdgedError as error:
            loaded.errors[table.channel] = error
            _LOG.error("model %s: %s", table.name, error.message)
            if lane is not None:
                following[table.channel] = lane
    return following


class BackgroundLoad:
    """One load in a thread of its own.

    :param wake: called from that thread when the load is done.
    """

    def __init__(self, work: Callable[[], Loaded], wake: Callable[[], None]) -> None:
        self._work = work
        self._wake = wake
        self._loaded: Loaded | None = None
        self._error: EdgedError | None = None
        self._thread = threading.Thread(target=self._run, name="edged-load")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loaded = self._work()
        except EdgedError as error:
            self._error = error
        finally:
            self._wake()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` will not wait."""
        return not self._thread.is_alive()

    def result(self) -> Loaded:
        """Return what was loaded.

        :raises EdgedError: the configuration itself could not be used.
        """
        self._thread.join()
        if self._loaded is None:
            raise self._error or EdgedError("loading ended without a result")
        return self._loaded
