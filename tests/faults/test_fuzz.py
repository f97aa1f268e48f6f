"""Generated messages, by the ten thousand: none crashes the board, none holds it up, and every one is accounted for.

EDGED_FUZZ says how many go to a daemon, EDGED_CASES how many to the parsers: a few thousand unless they are set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edged.base import errors
from edged.formats.readings import Format
from support.bench import live_bench
from support.broker import PrivateBroker, spin
from support.fuzz import HEAVY, LIMIT, Source
from support.hub import Hub
from support.process import DaemonProcess
from support.storm import FENCE, Judge, Storm, prepare, topic_of
from support.targets import Target, decoder, targets
from support.yardstick import second

COUNT = int(os.environ.get("EDGED_FUZZ", "3000"))
BATCH = 10

GROWTH = 5_000_000


@dataclass
class Board:
    """The daemon, the hub that it answers, and what is sent.

    :ivar good: readings that were sent beside, one behind each batch.
    :ivar dearest: seconds of CPU that a batch cost; none of its messages cost more.
    """

    daemon: DaemonProcess
    hub: Hub
    judge: Judge
    storm: Storm
    sent: int = 0
    good: int = 0
    dearest: float = 0.0

    def take(self, batch: list[tuple[str, bytes]]) -> None:
        """Send a batch and a good reading, and wait for that one's answer."""
        good = topic_of(self.storm.bench, FENCE), self.storm.source.reading("f32le", "window")
        for topic, payload in (*batch, good):
            self.judge.take(topic, payload)
        before, heard = self.cpu(), len(self.hub.results)
        for topic, payload in (*batch, good):
            self.hub.send(payload, topic=topic)
        spin(self.hub.client, until=lambda: any(one.channel == FENCE for one in self.hub.results[heard:]), timeout=60)
        self.dearest = max(self.dearest, self.cpu() - before)
        self.sent += len(batch)
        self.good += 1

    def cpu(self) -> float:
        """Return the seconds of CPU that the daemon has used: how long it was kept waiting is the machine's business."""
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Return the bytes of the daemon's own that are in RAM."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return 1024 * int(re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[0])

    def descriptors(self) -> int:
        """Return how many files and sockets the daemon has open."""
        return len(list(Path(f"/proc/{self.daemon.pid}/fd").iterdir()))


@pytest.fixture
def board(models: Path, tmp_path: Path, tls_broker: PrivateBroker) -> Iterator[Board]:
    bench = live_bench(tmp_path / "bench", models, tls_broker, "press-storm")
    prepare(bench)
    judge = Judge(bench)
    try:
        with bench.daemon() as daemon, Hub(bench) as hub:
            yield Board(daemon, hub, judge, Storm(bench, Source(COUNT)))
    finally:
        judge.close()


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(120 + COUNT // 50)
def test_every_generated_message_is_answered_taken_or_refused_within_a_second(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the board counts is what the same lanes make of the same messages here, to the last one.

    What costs the most comes first, so that memory has seen its worst when its growth begins to count.
    """
    for message in board.storm.heaviest():
        board.take([message])
    while board.sent < COUNT // 10:
        board.take(board.storm.batch(BATCH))
    warm, descriptors = board.resident(), board.descriptors()
    while board.sent < COUNT:
        board.take(board.storm.batch(BATCH))
    growth = board.resident() - warm
    assert board.descriptors() == descriptors
    assert board.daemon.stop() == 0
    log, judge = board.daemon.log, board.judge
    with capsys.disabled():
        sys.stdout.write(
            f"\n{board.sent} messages: {judge.results - board.good} results, {judge.refused.total()} refused"
            f" {dict(judge.refused)}; {growth / 1e6:.2f} MB more; a batch cost {board.dearest:.2f} s of CPU at most\n"
        )
    assert f"stops: {board.sent + board.good} messages, {judge.results} results, " in log
    assert f", {judge.refused.total()} refused; last error: " in log
    assert (len(board.hub.results), board.hub.refused) == (judge.results, [])
    assert "Traceback" not in log
    assert all(hasattr(errors, kind) for kind in re.findall(r"WARNING factory/\S+: (\w+): ", log))
    assert board.dearest < second()
    assert growth < GROWTH


# --- decoders by themselves ------------------------------------------------------------------

TARGETS = targets()
EACH = max(100, -(-COUNT // len(TARGETS)))
CASES = -(-int(os.environ.get("EDGED_CASES", "5000")) // len(TARGETS))
"""Generated messages for each target."""
GROWN = 150_000_000
"""Bytes of RAM that a process may take more for them at its worst moment, messages of a megabyte among them."""


@pytest.mark.timeout(120 + CASES // 20)
@pytest.mark.parametrize("name", TARGETS)
def test_bytes_open_or_are_refused_within_a_second_and_a_bound_of_memory(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Valid messages of each kind, changed as bytes, as items of CBOR, and as values, in a process of its own."""
    command = [sys.executable, Path(__file__).with_name("fuzz_cases.py"), name, str(CASES), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-20_000:]
    spent = json.loads(done.stdout)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{name}: {spent['cases']} messages, {spent['opened']} opened; the dearest cost {spent['longest']:.3f} s"
            f" of CPU; {spent['grown'] / 1e6:.1f} MB more at most\n"
        )
    assert spent["cases"] == CASES
    assert spent["longest"] < second()
    assert spent["grown"] < GROWN


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["json", "text", "csv", "cbor"])
def test_no_message_at_the_limit_takes_a_hundred_times_its_size_to_decode(format_: Format) -> None:
    take = Target(format_, [decoder(format_, "window")], [])
    for make in HEAVY:
        message = make(LIMIT)
        tracemalloc.start()
        take(message)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100 * LIMIT


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing_that_a_target_does_not_stand(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("atheris", reason="the extra `fuzz`: Python 3.11 on x86-64 only")
    options = [f"-runs={EACH}", "-max_total_time=300", "-timeout=1", "-rss_limit_mb=512", "-max_len=8192", "-seed=1"]
    command = [sys.executable, Path(__file__).with_name("fuzz_targets.py"), name, tmp_path, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    found = [path for path in tmp_path.iterdir() if path.is_file()]
    assert not found, {path.name: path.read_bytes().hex() for path in found}
    assert done.returncode == 0, done.stderr[-2000:]
    (ran,) = re.findall(r"^Done (\d+) runs in", done.stderr, re.MULTILINE)
    assert int(ran) >= EACH
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {ran} runs of atheris, {re.findall(r'cov: [0-9]+', done.stderr)[-1]}\n")
