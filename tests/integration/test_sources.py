"""Where readings come from: a topic for each value, and other models' answers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edged.broker import Broker
from support.house import VIBRATION
from support.site import Site

MODELS = Path(__file__).resolve().parents[1] / "models"
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"

MIXED = """
name = "mixed"
version = 1
[input]
channels = ["count", "level"]
[window]
size = 10
[tensors.int_input]
channels = ["count"]
[tensors.float_input]
channels = ["level"]
[output]
kind = "regressor"
"""
DNN = f"""
name = "gearbox"
version = 1
{VIBRATION}
[output]
kind = "classifier"
labels = ["healthy", "broken"]
"""
SUM = """
name = "sum"
version = 1
[model]
output = "total"
feedback = { state = "doubled" }
reset = "gap"
[input]
channels = ["broken"]
[output]
kind = "regressor"
"""


def test_plain_scalars_on_a_topic_each_are_joined_for_each_device(site: Site) -> None:
    """As ESPHome and Tasmota send them; what + stands for tells which belong together."""
    base = f"home/{site.name}"
    site.configure(
        f'format = "text"\n[model.topics]\ncount = "{base}/+/count/state"\nlevel = "{base}/+/level/state"', name="mixed"
    )
    site.init()
    rows = np.stack((np.arange(10), np.full(10, 0.5)), axis=1).astype(np.float32)
    site.install(site.pack_example(MIXED, "odd/mixed_input_model.tflite", {"x": rows[np.newaxis]}))
    with site.daemon() as daemon, site.listener(2) as listener:
        listener.wait_connected()
        broker = Broker(site.options())
        left: set[int] = set()
        broker.on_delivered = lambda token, _taken: left.discard(token)
        broker.connect()
        for count in range(10):
            for device, level in (("kitchen", "0.5"), ("cellar", "2.25")):
                left.add(broker.publish(f"{base}/{device}/level/state", level.encode(), qos=1))
                left.add(broker.publish(f"{base}/{device}/count/state", str(count).encode(), qos=1))
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            broker.run_once(0.1)
        broker.close()
        results = listener.results()
        assert daemon.stop() == 0

    assert [result["scores"] for result in results] == [
        pytest.approx(2 * (np.arange(10) + 0.5)),
        pytest.approx(2 * (np.arange(10) + 2.25)),
    ]


def test_one_models_decision_gates_another_that_reads_the_same_messages(site: Site) -> None:
    """The anomaly score is worked out of windows that the classifier calls broken, and of no others."""
    with np.load(site.models / "gearbox" / "golden.npz") as golden:
        windows, right = golden["raw_windows"], golden["raw_y"]
    anomaly = (EXAMPLES / "anomaly.toml").read_text()
    site.configure(
        'format = "cbor"\neach = "window"\npublish = false',
        more=f"""
[[model]]
name = "gearbox-anomaly"
channel = "c2"
topic = "{site.topic}"
format = "cbor"
each = "window"
when = {{ channel = "c1", label = "broken" }}
""",
    )
    site.init()
    site.install(site.pack_example(DNN, "gearbox/dnn.tflite", {"x": windows}))
    site.install(site.pack_example(anomaly, "gearbox/autoencoder.tflite", {"x": windows}))
    broken = int(right.sum())
    with site.daemon() as daemon, site.listener(broken) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        send = ("send", source, "--array", "raw_windows", "--each", "window", "--format", "cbor", "-t", site.topic)
        site.edged(*send, *site.connection())
        results = listener.results()
        daemon.wait_for(f"100 messages, {broken} results")
        assert daemon.stop() == 0

    assert {result["model"] for result in results} == {"gearbox-anomaly"}
    assert site.edged("check", "edged.toml").returncode == 0


def test_one_models_scores_are_anothers_rows(site: Site) -> None:
    with np.load(site.models / "gearbox" / "golden.npz") as golden:
        windows, right = golden["raw_windows"][:6], golden["raw_y"][:6]
    np.savez(site.path / "some.npz", windows=windows)
    more = '[[model]]\nname = "sum"\nchannel = "c2"\nfrom = "c1"\n'
    site.configure('format = "f32le"\neach = "window"\npublish = false', more=more)
    site.init()
    site.install(site.pack_example(DNN, "gearbox/dnn.tflite", {"x": windows}))
    site.install(site.pack_example(SUM, str(MODELS / "feedback.tflite"), {"x": np.ones((4, 1), "f")}))
    with site.daemon() as daemon, site.listener(6) as listener:
        listener.wait_connected()
        site.edged("send", "some.npz", "--each", "window", "--format", "f32le", "-t", site.topic, *site.connection())
        results = listener.results()
        assert daemon.stop() == 0

    expected, state = [], 0.0
    for broken in right:
        expected.append(broken + state)
        state = 2 * expected[-1]
    assert [result["value"] for result in results] == pytest.approx(expected, abs=0.05 * 2**6)
    assert all("first" not in result["input"] for result in results)


def test_a_slow_model_has_a_thread_and_holds_nobody_up(site: Site) -> None:
    """Two models on one topic; the limit is set so low that the second one's self-test is above it."""
    with np.load(site.models / "gearbox" / "golden.npz") as golden:
        windows, right = golden["raw_windows"], golden["raw_y"]
    more = f'[[model]]\nname = "gearbox-anomaly"\nchannel = "c2"\ntopic = "{site.topic}"\nformat = "f32le"\neach = "window"\n'
    site.configure('format = "f32le"\neach = "window"', more=more)
    config = site.path / "edged.toml"
    config.write_text(config.read_text().replace("[runtime]", '[runtime]\nslow = "1 us"'))
    site.init()
    site.install(site.pack_example(DNN, "gearbox/dnn.tflite", {"x": windows}))
    anomaly = (EXAMPLES / "anomaly.toml").read_text()
    site.install(site.pack_example(anomaly, "gearbox/autoencoder.tflite", {"x": windows}))
    with site.daemon() as daemon, site.listener(200) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        send = ("send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "--rate", "50")
        site.edged(*send, "-t", site.topic, *site.connection())
        results = listener.results()
        assert daemon.stop() == 0

    assert daemon.log.count("in a thread of its own (over runtime.slow, 1 us)") == 2
    by_model = {name: [one for one in results if one["model"] == name] for name in ("gearbox", "gearbox-anomaly")}
    assert [one["label"] for one in by_model["gearbox"]] == [("healthy", "broken")[y] for y in right]
    assert len(by_model["gearbox-anomaly"]) == 100
