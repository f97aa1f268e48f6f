"""A board, the broker in between, a hub, the broker at home, and a real Home Assistant, each of which can be killed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edged.formats.channel.reading import ReadingSealer
from edged.keystore.records import read_sensor_key
from support.broker import DURABLE, PlainBroker, listening, spin
from support.homeassistant import HomeAssistant
from support.process import DaemonProcess
from support.site import Site

BOARD = "press-07"
_MODELS = Path(__file__).resolve().parents[1] / "models"
_PATIENCE = 30.0

VIBRATION = """\
[input]
channels = ["a1", "a2", "a3", "a4"]
[window]
size = 300
[features]
use = ["sum_abs", { name = "std", ddof = 1 }, "max", { name = "kurtosis", bias = false }]"""
"""What the models of the gearbox make of its four accelerometers."""

States = dict[str, dict[str, Any]]
"""What Home Assistant shows, by entity id."""

GEARBOX = f"""
name = "gearbox"
version = 3
{VIBRATION}
[output]
kind = "classifier"
labels = ["healthy", "broken"]
[publish]
when = "window"
[home_assistant]
name = "Gearbox of the press"
binary = {{ broken = "problem" }}
"""
NOVELTY = f"""
name = "novelty"
version = 1
{VIBRATION}
[normalise]
method = "minmax"
min = -0.61986393
max = 3158.1043774
[output]
kind = "anomaly"
error = "mae"
labels = ["known", "unknown"]
[decide]
enter = 0.01071137
[publish]
when = "window"
"""
HYDRAULICS = """
name = "hydraulics"
version = 1
[model]
output = "total"
feedback = { state = "doubled" }
reset = "message"
[input]
channels = ["sensor"]
[output]
kind = "regressor"
unit = "Pa"
[publish]
when = "change"
by = 0.5
at_least_every = "10 min"
[home_assistant]
name = "Oil"
device_class = "pressure"
"""
_HUB = """
[hub]
name = "home"
state = "hub"
boards = "boards"

[upstream.between]
url = "{upstream}"

[local]
url = "{local}"
"""

# unique id -> entity id, name, device class, unit
ENTITIES = {
    "c1_label": ("sensor.press_07_gearbox_of_the_press", "Gearbox of the press", "enum", None),
    "c1_score": ("sensor.press_07_gearbox_of_the_press_score", "Gearbox of the press score", None, "%"),
    "c1_is_broken": (
        "binary_sensor.press_07_gearbox_of_the_press_broken",
        "Gearbox of the press broken",
        "problem",
        None,
    ),
    "c1_update": ("update.press_07_gearbox_of_the_press_model", "Gearbox of the press model", None, None),
    "c2_of_left_value": ("sensor.press_07_oil_left_pump", "Oil Left pump", "pressure", "Pa"),
    "c2_of_right_value": ("sensor.press_07_oil_right", "Oil right", "pressure", "Pa"),
    "c2_update": ("update.press_07_oil_model", "Oil model", None, None),
    "c3_label": ("sensor.press_07_novelty", "novelty", "enum", None),
    "c3_score": ("sensor.press_07_novelty_error", "novelty error", None, None),
    "c3_is_unknown": ("binary_sensor.press_07_novelty_unknown", "novelty unknown", "problem", None),
    "c3_update": ("update.press_07_novelty_model", "novelty model", None, None),
    "rate": ("sensor.press_07_readings", "Readings", None, "1/s"),
    "temperature": ("sensor.press_07_temperature", "Temperature", "temperature", "°C"),
    "waiting": ("sensor.press_07_results_waiting", "Results waiting", None, None),
    "degraded": ("binary_sensor.press_07_degraded", "Degraded", "problem", None),
}
LABEL, BROKEN, OIL, OTHER_OIL, NOVELTY_LABEL = (
    ENTITIES[key][0] for key in ("c1_label", "c1_is_broken", "c2_of_left_value", "c2_of_right_value", "c3_label")
)
_APART = 250
"""Pascals between the pumps."""


class House:
    """Everything between a sensor and Home Assistant, started but for the hub.

    :param stack: ends what was started.

    :ivar versions: of each model that is installed.
    :ivar upstream: the broker in between; ``local``: the one at home.
    :ivar tap: hears all that the broker in between carries; it is the sensor, too. ``home``: hears all at home.
    """

    def __init__(self, path: Path, models: Path, stack: ExitStack) -> None:
        for folder in ("upstream", "local", "boards"):
            (path / folder).mkdir()
        self.path = path
        self.versions: dict[str, int] = {}
        self.upstream = stack.enter_context(PlainBroker(path / "upstream", options=DURABLE))
        self.local = stack.enter_context(PlainBroker(path / "local"))
        self.site = Site(path, models, self.upstream.url, name=BOARD)
        (path / "hub.toml").write_text(_HUB.format(upstream=self.upstream.url, local=self.local.url))
        self.site.edged("hub", "-c", "hub.toml", "init")
        self._serve()
        self.record = path / "boards" / "press.enrol"
        self.put_record()
        self._hub: subprocess.Popen[bytes] | None = None
        self.daemon = DaemonProcess(path)
        stack.callback(self._stop_daemon)
        stack.callback(self.kill_hub)
        self.tap, self.home = (
            stack.enter_context(listening(broker.url, name))
            for broker, name in ((self.upstream, "tap"), (self.local, "home-tap"))
        )
        with np.load(models / "gearbox" / "golden.npz") as golden:
            windows, right = golden["raw_windows"], golden["raw_y"]
        self._windows = {label: windows[right == number] for number, label in enumerate(("healthy", "broken"))}
        key = read_sensor_key(path / "sensor.key")
        topics = (self.site.topic, f"{self.site.topic}/left/oil", f"{self.site.topic}/right/oil")
        self._sealers = {topic: ReadingSealer(key, topic) for topic in topics}
        self.readings: list[bytes] = []
        self.label, self.oil, self._sent = "healthy", 90_000, 0.0
        self.daemon.wait_ready()
        self.assistant = stack.enter_context(HomeAssistant(path / "assistant", self.local.port))

    def _serve(self) -> None:
        """Install three models on the board: two on the sensor's windows, one on single values of two pumps."""
        site = self.site
        sealed = 'format = "f32le"\neach = "window"\nsensor = "sensor.key"\n'
        lane = f'[[model]]\nname = "{{}}"\nchannel = "{{}}"\ntopic = "{{}}"\n{sealed}'
        pumps = '[model.sources]\nleft = "Left pump"\n'
        more = lane.format("hydraulics", "c2", f"{site.topic}/+/oil") + pumps + lane.format("novelty", "c3", site.topic)
        config = site.configure(sealed, more=more)
        config.write_text(config.read_text().replace('"home.pub"', '"hub/hub.pub"'))
        site.init()
        for manifest, weights in ((GEARBOX, "gearbox/dnn.tflite"), (NOVELTY, "gearbox/autoencoder.tflite")):
            self.pack(manifest, weights)
        self.pack(HYDRAULICS, "feedback.tflite")

    def pack(self, manifest: str, weights: str) -> str:
        """Pack a model and install it, in place of the version before if there is one; return its version.

        :param manifest: with the first version.
        """
        name, first = re.findall(r'^name = "(.*)"\nversion = (\d+)$', manifest, re.MULTILINE)[0]
        self.versions[name] = version = self.versions.get(name, int(first) - 1) + 1
        manifest = manifest.replace(f"version = {first}", f"version = {version}")
        with np.load(self.site.models / "gearbox" / "golden.npz") as golden:
            samples = golden["raw_windows"][::10]
        if weights == "feedback.tflite":
            weights, samples = str(_MODELS / weights), np.ones((4, 1), np.float32)
        for old in self.path.glob("*-1.edged"):
            old.unlink()
        self.site.install(self.site.pack_example(manifest, weights, {"x": samples}))
        return str(version)

    def _stop_daemon(self) -> None:
        self.daemon.stop()

    def restart_daemon(self) -> None:
        """Start the daemon again, after it has ended if it runs."""
        self.daemon.stop()
        self.daemon = DaemonProcess(self.path)
        self.daemon.wait_ready()

    @contextmanager
    def without_novelty(self) -> Iterator[None]:
        """Take a model off the board; its daemon still runs with it at the start of the block."""
        config = self.path / "edged.toml"
        text = config.read_text()
        config.write_text(text[: text.rindex("[[model]]")])
        try:
            yield
        finally:
            config.write_text(text)
            self.restart_daemon()
            self.wait(self.is_right_at_last)

    @contextmanager
    def without_record(self) -> Iterator[None]:
        """Take the board's record away from the hub."""
        self.record.unlink()
        try:
            yield
        finally:
            self.put_record()
            self.wait(self.is_right_at_last)

    def wait_for_configuration(self, holds: Callable[[bytes], bool]) -> None:
        """Wait until the hub has announced the board to Home Assistant in other words than before."""
        heard = len(self.home.deliveries)
        spin(
            self.tap,
            self.home,
            until=lambda: any(
                one.topic.endswith("/config") and holds(one.payload) for one in self.home.deliveries[heard:]
            ),
            timeout=_PATIENCE,
        )

    def wait_for_birth(self) -> None:
        """Wait until Home Assistant has said that it is there: it complains of a broker that is killed before."""

        def is_there() -> bool:
            said = [one.payload for one in self.home.deliveries if one.topic == "homeassistant/status"]
            return said[-1:] == [b"online"]

        spin(self.tap, self.home, until=is_there, timeout=_PATIENCE)

    def put_record(self) -> None:
        """Let the hub believe the board."""
        self.record.write_bytes((self.path / "board.enrol").read_bytes())

    def start_hub(self) -> None:
        """Start the hub; it is not up yet then."""
        with (self.path / "hub.log").open("ab") as log:
            command = [sys.executable, "-m", "edged", "hub", "-c", "hub.toml"]
            self._hub = subprocess.Popen(command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_hub(self) -> None:
        """End the hub as a power cut would."""
        if self._hub is not None:
            self._hub.kill()
            self._hub.wait()

    def send(self) -> None:
        """Let the sensor tell of the other state than before, and of another pressure."""
        self.label = "healthy" if self.label == "broken" else "broken"
        self.oil += 1237
        self._sent = time.monotonic()
        window = self._windows[self.label][self.oil % len(self._windows[self.label])]
        pressures = np.array([self.oil]), np.array([self.oil + _APART])
        for topic, reading in zip(self._sealers, (window, *pressures), strict=True):
            plain = reading.astype("<f4").tobytes()
            self.readings.append(plain)
            self.tap.publish(topic, self._sealers[topic].seal(plain), qos=1)

    def wait(self, holds: Callable[[States], bool], timeout: float = _PATIENCE) -> float:
        """Wait until Home Assistant shows something; return the seconds that it took."""
        began = time.monotonic()
        asked, found = 0.0, False

        def look() -> bool:
            nonlocal asked, found
            if not found and time.monotonic() - asked > 0.1:
                found = holds(self.assistant.states())
                asked = time.monotonic()
            return found

        try:
            spin(self.tap, self.home, until=look, timeout=timeout)
        except AssertionError:
            shown = {key: state["state"] for key, state in self.assistant.states().items() if "press_07" in key}
            raise AssertionError(f"{shown}\n{(self.path / 'hub.log').read_text()[-2000:]}") from None
        return time.monotonic() - began

    def is_right(self, states: States) -> bool:
        """Tell whether all that the sensor told last is shown."""
        label, broken, novelty, *pressures = (
            states.get(entity, {}).get("state", "unknown") for entity in (LABEL, BROKEN, NOVELTY_LABEL, OIL, OTHER_OIL)
        )
        if {"unknown", "unavailable"} & {*pressures}:
            return False
        right = self.label, "on" if self.label == "broken" else "off", [self.oil, self.oil + _APART]
        return (label, broken, [*map(float, pressures)]) == right and novelty in ("known", "label unknown")

    def is_right_at_last(self, states: States) -> bool:
        """Let the sensor tell something each second until it is shown: a hub that has not yet subscribed misses it."""
        if not self.is_right(states) and time.monotonic() - self._sent > 1:
            self.send()
        return self.is_right(states)


def is_gone(states: States) -> bool:
    """Tell whether all that the board has in Home Assistant is unavailable."""
    ours = [state["state"] for entity, state in states.items() if "press_07" in entity]
    return bool(ours) and set(ours) == {"unavailable"}


def is_unknown(states: States) -> bool:
    """Tell whether Home Assistant has nothing of the board."""
    return not any("press_07" in entity for entity in states)


def knows_novelty(states: States) -> bool:
    """Tell whether Home Assistant knows entities of that model, be they unavailable."""
    return any("novelty" in entity for entity in states)
