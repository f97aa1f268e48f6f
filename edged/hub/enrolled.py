"""The folder of enrolment records: which boards are believed, read again when it changes."""

from __future__ import annotations

import logging
from pathlib import Path

from edged.base.errors import EdgedError
from edged.base.events import Event
from edged.formats.identity import Record, Role
from edged.keystore.records import read_record

_LOG = logging.getLogger(__name__)


class Enrolled:
    """The boards to believe.

    :param directory: holds their records, ``*.enrol``.
    :ivar records: by the boards' names.
    :ivar problems: what is wrong with which file.
    """

    def __init__(self, directory: Path) -> None:
        self.records: dict[str, Record] = {}
        self.problems: dict[str, str] = {}
        self._directory = directory
        self._stamp: object = None

    def read(self) -> bool:
        """Read the folder if it has changed; tell whether it had.

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
