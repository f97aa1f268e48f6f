"""One hub: results that it opens and republishes a second, and a thousand boards that announce themselves at once."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from broker import HOST, mosquitto
from process import ProcessError, cpu_seconds, daemon, memory
from report import Row

from edged.broker import Broker, BrokerOptions, Delivery, run_once
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.result import Answer, Sealed
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from edged.keystore.records import read_record

_BOARDS, _FEW = 20, 20
_PENDING = 500
_TIMEOUT = 120.0


class _Board:
    """A board as its messages make it."""

    def __init__(self, number: int, hub: Record) -> None:
        self.name = f"board-{number:04}"
        sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
        record = Record(Role.DEVICE, self.name, sign.public, ecdh.public, Aead.A256GCM, int(time.time()))
        self.record = record.encode(sign)
        numbers = itertools.count(int(time.time()))
        self.announcer = Announcer(
            self.name,
            sign,
            aead=Aead.A256GCM,
            hubs=[hub],
            sign_results=False,
            max_age=86_400,
            begin_epoch=lambda _kid, _least: next(numbers),
        )
        labels = ("healthy", "broken")
        self._encoder = ResultEncoder("gearbox", 3, bytes(32), labels=labels, scores=2, tune={})
        self._model = ServedModel("c1", "gearbox", 3, 3, "classifier", labels=labels, binary={"broken": "problem"})
        self._count = 0

    def retained(self) -> Iterator[tuple[str, bytes]]:
        """Yield what stands retained of it at the broker."""
        yield f"edged/{self.name}/announce", self.announcer.announcement(time.time())
        inventory = Inventory("0.1.0", 30.0, (self._model,))
        yield f"edged/{self.name}/inventory", self.announcer.seal_inventory(inventory.encode())
        yield f"edged/{self.name}/status", b"online"

    def result(self) -> tuple[str, bytes]:
        """Return the next result."""
        self._count += 1
        answer = Answer("broken", 0.75, None, (0.25, 0.75))
        of = Sealed(bytes(8), self._count, self._count)
        return f"edged/{self.name}/c1", self.announcer.seal("c1", self._encoder, answer, of)[2]


class _Home:
    """A hub's directory, its two brokers, and boards."""

    def __init__(self, directory: Path, boards: int, stack: ExitStack) -> None:
        for name in ("hub", "boards", "upstream", "local"):
            (directory / name).mkdir(parents=True)
        self.directory = directory / "hub"
        self.log = self.directory / "daemon.log"
        self.upstream = stack.enter_context(mosquitto(directory / "upstream"))
        self.local = stack.enter_context(mosquitto(directory / "local"))
        (self.directory / "hub.toml").write_text(
            f'[hub]\nname = "home"\nstate = "state"\nboards = "../boards"\n'
            f'[upstream.main]\nurl = "mqtt://{HOST}:{self.upstream}"\n[local]\nurl = "mqtt://{HOST}:{self.local}"\n'
        )
        subprocess.run(
            [sys.executable, "-m", "edged", "hub", "-c", "hub.toml", "init"],
            cwd=self.directory,
            check=True,
            capture_output=True,
        )
        record = read_record(self.directory / "state" / "hub.pub", Role.HUB)
        self.boards = [_Board(number, record) for number in range(boards)]
        for board in self.boards:
            (directory / "boards" / f"{board.name}.enrol").write_bytes(board.record)

    @contextmanager
    def client(self, port: int) -> Iterator[Broker]:
        """Connect to one of the brokers."""
        broker = Broker(BrokerOptions(url=f"mqtt://{HOST}:{port}"))
        broker.connect()
        _spin([broker], lambda: broker.is_up)
        try:
            yield broker
        finally:
            broker.close()

    def announce(self) -> None:
        """Have what stands of each board retained."""
        with self.client(self.upstream) as sender:
            for board in self.boards:
                for topic, payload in board.retained():
                    sender.publish(topic, payload, qos=1, retain=True)
            _spin([sender], lambda: not sender.pending)

    def known(self) -> int:
        """Return how many boards the hub has believed."""
        return self.log.read_text().count(" announces epoch ")

    @contextmanager
    def hub(self) -> Iterator[int]:
        """Run the hub; the block gets its pid."""
        with daemon(self.directory, arguments=("hub", "-c", "hub.toml")) as (pid, _):
            yield pid


def _spin(brokers: list[Broker], until: object) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not until():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise ProcessError("the hub, or a broker, does not keep up")
        run_once(brokers, 0.01)


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Send results as fast as the hub takes them; then start a hub that finds many boards."""
    rounds, count, many = (1, 1000, 50) if quick else (5, 10_000, 1000)
    rates, cpus = _republish(directory / "results", rounds, count)
    seconds, each = _many(directory / "many", many)
    return [
        Row("results that one hub opens and republishes", statistics.median(rates), "/s"),
        Row("  its CPU per result", statistics.median(cpus) * 1e6, "us"),
        Row(f"{many} boards announce at once: until all are believed", seconds, "s"),
        Row("  the hub's memory per board", each / 1e3, "kB"),
    ]


def _republish(directory: Path, rounds: int, count: int) -> tuple[list[float], list[float]]:
    rates, cpus = [], []
    with ExitStack() as stack:
        home = _Home(directory, _BOARDS, stack)
        home.announce()
        pid = stack.enter_context(home.hub())
        sender, receiver = (stack.enter_context(home.client(port)) for port in (home.upstream, home.local))
        got = 0

        def take(delivery: Delivery) -> None:
            nonlocal got
            got += delivery.topic.endswith("/c1") and not delivery.retain
            delivery.ack()

        receiver.on_message = take
        receiver.subscribe("edged-hub/+/c1", 1)
        _spin([sender, receiver], lambda: home.known() == _BOARDS)
        time.sleep(6.0)  # what follows a configuration is published a second time after a moment
        for _ in range(rounds):
            sealed = [home.boards[number % _BOARDS].result() for number in range(count)]
            got, sent, before, started = 0, 0, cpu_seconds(pid), time.perf_counter()
            while got < count:
                while sent < count and sent < got + _PENDING:
                    sender.publish(*sealed[sent], qos=1)
                    sent += 1
                run_once([sender, receiver], 0.01)
                if time.perf_counter() - started > _TIMEOUT:
                    raise ProcessError(f"{got} of {count} results were republished")
            rates.append(count / (time.perf_counter() - started))
            time.sleep(1.0)
            cpus.append((cpu_seconds(pid) - before) / count)
    return rates, cpus


def _many(directory: Path, many: int) -> tuple[float, float]:
    resident = []
    for number in (_FEW, many):
        with ExitStack() as stack:
            home = _Home(directory / str(number), number, stack)
            home.announce()
            started = time.perf_counter()
            pid = stack.enter_context(home.hub())
            while home.known() < number:
                if time.perf_counter() - started > _TIMEOUT:
                    raise ProcessError(f"{home.known()} of {number} boards are known")
                time.sleep(0.01)
            seconds = time.perf_counter() - started
            time.sleep(10.0)  # all is published, and once more
            resident.append(memory(pid, "VmRSS"))
    return seconds, (resident[1] - resident[0]) / (many - _FEW)
