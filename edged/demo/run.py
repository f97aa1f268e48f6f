"""`edged demo`: the whole loop on this machine, with the commands that a user would type.

A private broker with TLS, keys, a package, the daemon as a process of its own, a simulated pump that goes from healthy
to faulty, one subscriber that sees what the broker sees and one that has the hub's key. Nothing outlives it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edged.base.errors import EdgedError
from edged.broker import Broker, BrokerOptions, Delivery
from edged.demo.broker import PrivateBroker
from edged.demo.machine import Condition, simulate
from edged.demo.notified import NotifySocket
from edged.demo.search import Search, look_for_plaintext
from edged.formats.channel.hub import Hub
from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.receiver import Opened
from edged.formats.identity import Role
from edged.hub.listen import Listener
from edged.keystore.people import PersonalKeys
from edged.keystore.records import read_record, read_sensor_key
from edged.model.reading import encode_reading

MODEL = Path(__file__).parent / "model"
BOARD, PREFIX = "pump-1", "edged"
TOPIC = f"plant/{BOARD}/vibration"
_WINDOW = 0.256
"""Seconds of vibration in one message."""

_SEED = 7
_PATIENCE = 30.0


@dataclass
class Seen:
    """One window's way: what was true, what the broker carried, what the hub read."""

    truth: Condition
    sent: float
    ciphertext: bytes = b""
    label: str = ""
    score: float = 0.0
    latency: float = 0.0


@dataclass
class Summary:
    """The findings of the demo."""

    windows: list[Seen] = field(default_factory=list)
    protections: list[str] = field(default_factory=list)
    search: Search | None = None

    @property
    def answered(self) -> list[Seen]:
        """Windows that have a result."""
        return [seen for seen in self.windows if seen.label]

    @property
    def right(self) -> int:
        """Results that say what the simulated pump was."""
        return sum(seen.label == seen.truth for seen in self.windows)

    def latency(self, quantile: float) -> float:
        """Return a quantile of the time from sending a window to reading its result, in seconds."""
        return float(np.quantile([seen.latency for seen in self.answered], quantile))


_ACTS = ((0.4, Condition.HEALTHY), (0.7, Condition.IMBALANCE), (1.0, Condition.BEARING))
_FIRST_SIGN = 0.1
"""Severity with which a fault begins; it grows to 1."""


def story(windows: int) -> Iterator[tuple[Condition, float]]:
    """Return what the pump goes through: healthy for two fifths, then an imbalance, then a bearing, each growing."""
    begin = 0.0
    for end, condition in _ACTS:
        for number in range(round(begin * windows), round(end * windows)):
            grown = (number / windows - begin) / (end - begin)
            yield condition, 0.0 if condition is Condition.HEALTHY else _FIRST_SIGN + (1 - _FIRST_SIGN) * grown
        begin = end


class Demo:
    """One run.

    :param directory: an empty directory of one's own; everything is written there.
    :param say: called with a line for each step.
    :param show: called with each window that was answered.
    """

    def __init__(self, directory: Path, say: Callable[[str], None], show: Callable[[Seen], None]) -> None:
        self._path = directory
        self._say = say
        self._show = show
        self._summary = Summary()
        self._spied: list[bytes] = []
        self._shown = 0

    def run(self, windows: int, rate: float) -> Summary:
        """Play ``windows`` windows, ``rate`` a second.

        :raises EdgedError: a step failed.
        """
        self._say("a private Mosquitto with TLS on a free port")
        with PrivateBroker(self._path / "broker") as broker:
            self._set_up(broker)
            with NotifySocket(self._path / "notify") as notified:
                daemon = self._start_daemon(notified)
                notified.wait_for("READY=1", _PATIENCE)
            try:
                self._play(broker, windows, rate)
                self._say("looking for the model in plain on this machine")
                self._summary.search = look_for_plaintext(MODEL / "pump.tflite", self._path, daemon.pid)
            finally:
                daemon.terminate()
                daemon.wait(_PATIENCE)
        return self._summary

    def _edged(self, *arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        self._say("$ edged " + " ".join(words))
        done = subprocess.run(  # noqa: S603  our own commands
            [sys.executable, "-m", "edged", *words], cwd=self._path, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EdgedError(f"edged {words[0]} failed: {done.stderr.strip()}")

    def _set_up(self, broker: PrivateBroker) -> None:
        for name in ("pump.tflite", "pump.toml", "pump-selftest.npz", "README.md"):
            shutil.copy(MODEL / name, self._path)
        for role, name in (("publisher", "acme"), ("hub", "home")):
            self._edged("keygen", role, "--id", name, "--no-passphrase")
        self._edged("keygen", "sensor", "--id", "sensor")
        tls = broker.client(BOARD)
        (self._path / "edged.toml").write_text(_CONFIG.format(state=self._path / "state", url=broker.url, tls=tls))
        self._edged("init", "-c", "edged.toml", "-o", "pump-1.enrol")
        self._edged(
            "pack", "--manifest", "pump.toml", "--sign", "acme.key", "--to", "pump-1.enrol", "-o", "pump-1.edged"
        )
        self._edged("install", "pump-1.edged", "-c", "edged.toml")
        for plain in ("pump.tflite", "pump-selftest.npz"):
            (self._path / plain).unlink()  # the publisher's copy: a board never has it
        self._edged("check", "edged.toml")

    def _start_daemon(self, notified: NotifySocket) -> subprocess.Popen[bytes]:
        self._say("$ edged run -c edged.toml")
        with (self._path / "daemon.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "edged", "run", "-c", "edged.toml"],
                cwd=self._path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=notified.environment(),
            )

    def _play(self, broker: PrivateBroker, windows: int, rate: float) -> None:
        """Send windows as the sensor, and watch results as the broker's spy and as the hub."""
        spy, hub = self._connect(broker, "spy"), self._connect(broker, "hub")
        keys = PersonalKeys.read(self._path / "home.key", None)
        boards = [read_record(self._path / "pump-1.enrol", Role.DEVICE)]
        spy.on_message = lambda delivery: _keep(self._spied, delivery)
        spy.subscribe(f"{PREFIX}/{BOARD}/c1", 1)
        listener = Listener(hub, Hub(keys, boards, prefix=PREFIX), self._read)
        listener.subscribe()
        deadline = time.monotonic() + _PATIENCE
        while not listener.epochs and time.monotonic() < deadline:
            self._turn(spy, hub, until=time.monotonic())
        sealer = ReadingSealer(read_sensor_key(self._path / "sensor.key"), TOPIC)
        rng = np.random.default_rng(_SEED)
        self._say(f"a simulated pump: {windows} windows, {rate:g} a second, sealed by the sensor")
        started = time.monotonic()
        for number, (condition, severity) in enumerate(story(windows)):
            reading = encode_reading(simulate(rng, condition, severity, _WINDOW), "cbor", None)
            self._turn(spy, hub, until=started + number / rate)
            self._summary.windows.append(Seen(condition, time.monotonic()))
            spy.publish(TOPIC, sealer.seal(reading), qos=1)
        deadline = time.monotonic() + _PATIENCE
        while self._shown < windows and time.monotonic() < deadline:
            self._turn(spy, hub, until=time.monotonic() + 0.05)
        spy.close()
        hub.close()
        if listener.refused:
            raise EdgedError(f"the hub refused results: {dict(listener.refused)}")

    def _connect(self, broker: PrivateBroker, name: str) -> Broker:
        tls = broker.client(name)
        connection = Broker(
            BrokerOptions(url=broker.url, ca=tls.ca, cert=tls.cert, key=tls.key, client_id=name, session_expiry=0)
        )
        connection.connect()
        return connection

    def _turn(self, *connections: Broker, until: float) -> None:
        while True:
            for connection in connections:
                connection.run_once(0.002)
            self._show_new()
            if time.monotonic() >= until:
                return

    def _read(self, opened: Opened) -> None:
        """Take a result at the hub; results come in the order of the windows."""
        seen = self._summary.windows[len(self._summary.answered)]
        seen.latency = time.monotonic() - seen.sent
        seen.label = opened.result.label or ""
        seen.score = opened.result.score or 0.0

    def _show_new(self) -> None:
        """Show each window whose result both the hub and the spy have."""
        while self._shown < min(len(self._summary.answered), len(self._spied)):
            seen = self._summary.windows[self._shown]
            seen.ciphertext = self._spied[self._shown]
            self._shown += 1
            self._show(seen)


def _keep(messages: list[bytes], delivery: Delivery) -> None:
    messages.append(delivery.payload)
    delivery.ack()


_CONFIG = """
[device]
name = "pump-1"
state = "{state}"

[broker]
url = "{url}"
ca = "{tls.ca}"
cert = "{tls.cert}"
key = "{tls.key}"

[publishers.acme]
key = "acme.pub"
models = ["pump"]

[results]
hubs = ["home.pub"]

[[model]]
name = "pump"
channel = "c1"
topic = "plant/+/vibration"
format = "cbor"
each = "window"
sensor = "sensor.key"
"""
