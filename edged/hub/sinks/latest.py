"""The newest result of each channel, for the page, `edged hub status` and whoever subscribes later."""

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
            view.last[result.opened.channel] = result.opened.to_json()

    def read(self) -> None:
        """Read the newest results from the state: other processes of this hub write there, too."""
        with suppress(StateError):
            for device, channel, payload in self._state.shown():
                if device in self._views:
                    self._views[device].last[channel] = json.loads(payload)

    def forget_unserved(self, view: BoardView) -> None:
        """Forget the results of channels that a board no longer serves."""
        if view.inventory is None:
            return
        served = {model.channel for model in view.models}
        for channel in [channel for channel in view.last if channel not in served]:
            del view.last[channel]
            with suppress(StateError), self._state.batch():
                self._state.forget(view.record.id, channel)
