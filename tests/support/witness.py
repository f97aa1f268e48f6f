"""Runs edged, and writes down which results the broker has acknowledged, and when: what a broker may have lost is known.

Its first argument is the file to write to, a line for each: monotonic seconds, key id, count, and what was answered.
"""

from __future__ import annotations

import os
import sys
import time

from edged.board.delivery.results import Results
from edged.broker import Outcome
from edged.cli import main
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.result import Answer, Input
from edged.formats.channel.result_encoder import ResultEncoder

_FILE = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

seal, on_delivered = Announcer.seal, Results.on_delivered


def _sealed(
    self: Announcer, channel: str, encoder: ResultEncoder, answer: Answer, of: Input, **flags: bool
) -> tuple[bytes, int, bytes]:
    kid, count, message = seal(self, channel, encoder, answer, of, **flags)
    name = " ".join(part.hex() if isinstance(part, bytes) else str(part) for part in of)
    os.write(_FILE, f"sealed {kid.hex()} {count} {name}\n".encode())
    return kid, count, message


def _delivered(self: Results, token: int, outcome: Outcome) -> None:
    sent = self._flying.get(token)
    if outcome is Outcome.TAKEN and sent is not None:
        os.write(_FILE, f"taken {time.monotonic()} {sent.kid.hex()} {sent.count}\n".encode())
    on_delivered(self, token, outcome)


Announcer.seal = _sealed  # type: ignore[method-assign]
Results.on_delivered = _delivered  # type: ignore[method-assign]
main()
