"""After a crash: the readings of the row log fill the windows that were open, under the same names as before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from edged.base.nothing import nothing
from edged.board.delivery.hold import Hold
from edged.board.delivery.path import REFUSALS, MessagePath
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.row_log import RowLog
from edged.board.pipeline import Lane, Message, Start
from edged.board.state import StoredReading


class Replay:
    """Takes what the last run left in the row log.

    :param remember: called with topic and payload of each reading: its acknowledgement may not have reached the broker.
    """

    def __init__(
        self, path: MessagePath, rows: RowLog, quarantine: Quarantine, remember: Callable[[str, bytes], None]
    ) -> None:
        self._path = path
        self._rows = rows
        self._quarantine = quarantine
        self._remember = remember

    def run(self, stored: Iterable[StoredReading], windows: Mapping[tuple[str, str], Start]) -> int:
        """Take the readings that a window needs; return their number.

        :param stored: in order.
        :param windows: the start of each stream's open window: reading, and rows before it there.
        """
        count = 0
        for one in stored:
            self._remember(one.topic, one.payload)
            lane = self._path.lanes.get(one.channel)
            message = Message(one.topic, one.payload, redelivered=True)
            first, skip = windows.get((one.channel, one.topic), (0, 0))
            is_read = lane is not None and lane.config.journal and lane.reads(one.topic)
            if lane is None or not is_read or one.number < first or not self._quarantine.admits(message, replayed=True):
                self._rows.retire(one.number)
            else:
                count += 1
                self._take(lane, message, one.number, skip if one.number == first else 0)
            self._path.note_served()
        self._quarantine.turn()
        return count

    def _take(self, lane: Lane, message: Message, number: int, skip: int) -> None:
        key = (lane.config.channel, message.topic)
        self._rows.keep(key, number)
        try:
            reading = lane.open(message)
            jobs = lane.take(reading, clock_synchronised=False, known=True, number=number, skip=skip)
            self._path.ask_about_rows(lane, jobs)
            self._path.settle(reading, Hold(nothing))
        except REFUSALS as error:
            self._path.refuse(error, message.topic)
        self._rows.window_begins(key, lane.open_from(message.topic), time.monotonic())
