"""Hand one target so many generated messages, and say what they cost.

    python fuzz_cases.py TARGET CASES SEED

Says in JSON how many there were and how many opened, the seconds of CPU of the dearest one, and by how many bytes of RAM
the process grew at most. Whatever comes out of a target and is no EdgedError, or takes a second of CPU for each of its functions, ends it with the
message in hex. The same seed gives the same messages.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fuzz import Source
from support.targets import targets

SECOND = 1.0


def peak() -> int:
    """Return the most bytes of RAM that this process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return 1024 * kilobytes


def main() -> None:
    """Run the cases."""
    name, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    target, source = targets()[name], Source(seed)
    for valid in target.seeds:
        target(valid)
    assert target.opened, "no valid message opens"
    warm, target.opened, target.longest = peak(), 0, 0.0

    def hang(*_: object) -> None:
        raise TimeoutError("a second of CPU")

    signal.signal(signal.SIGPROF, hang)
    for _ in range(cases):
        message = source.hostile(source.random.choice(target.seeds))
        signal.setitimer(signal.ITIMER_PROF, SECOND * len(target.functions))
        try:
            target(message)
        except BaseException:  # noqa: BLE001  whatever it is, with what it came of
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.exit(f"{traceback.format_exc()}\n{name}: {message.hex()}")
        signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps({"cases": cases, "opened": target.opened, "longest": target.longest, "grown": peak() - warm}))


main()
