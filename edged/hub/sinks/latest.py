"""The newest result of each place, for the page, `edged hub status` and whoever subscribes later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from edged.base.errors import StateError
from edged.hub.boards import BoardView
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState


class LatestResults(ResultSink):
    """Keeps the newest results in the views of their boards.

    :param views: by the boards' names.
    """

    def __init__(self, views: Mapping[str, BoardView], state: HubState) -> None:
        self._views = views
        self._state = state

    def deliver(self, result: AcceptedResult) -> None:
        """See :class:`ResultSink`."""
        if result.newest:
            view = self._views[result.opened.device]
            view.note_life()
            view.show(result.place, result.opened.to_json())

    def read(self) -> None:
        """Read the newest results from the state: other processes of this hub write there, too."""
        with suppress(StateError):
            for device, place, payload in self._state.shown():
                if device in self._views:
                    self._views[device].show(place, json.loads(payload))

    def forget_unserved(self, view: BoardView) -> None:
        """Forget the results of places that a board no longer serves."""
        if view.inventory is None:
            return
        served = {(model.channel, model.sources is not None) for model in view.models}
        for place in [place for place in view.last if (place.channel, bool(place.source)) not in served]:
            del view.last[place]
            with suppress(StateError), self._state.batch():
                self._state.forget(view.record.id, place)
