"""Real models through the daemon over MQTT: features, an anomaly score, rows of three axes, pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from support.site import Site

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
EVERY_WINDOW = '[publish]\nwhen = "window"\n'


def example(name: str) -> str:
    """Return a manifest of the documentation that publishes each window, so that a test can count them."""
    tables = (EXAMPLES / f"{name}.toml").read_text().split("\n[")
    kept = [table for table in tables if not table.startswith(("publish]", "tunable]"))]
    return "\n[".join(kept) + f"\n{EVERY_WINDOW}"


def golden(site: Site, folder: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(site.models / folder / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


def answers(site: Site, send: list[object], count: int) -> list[dict[str, Any]]:
    with site.daemon() as daemon, site.listener(count) as listener:
        listener.wait_connected()
        site.edged("send", *send, "-t", site.topic, *site.connection())
        results = listener.results()
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
    assert len(results) == count
    return results


def test_the_gearbox_classifier_is_right_about_every_window(site: Site) -> None:
    known = golden(site, "gearbox")
    manifest = example("classifier").partition("[decide]")[0] + EVERY_WINDOW
    site.configure('format = "csv"\neach = "rows"', name="gearbox")
    site.init()
    site.install(site.pack_example(manifest, "gearbox/dnn.tflite", {"x": known["raw_windows"]}))

    source = site.models / "gearbox" / "golden.npz"
    results = answers(site, [source, "--array", "raw_windows", "--each", "window", "--format", "csv"], 100)

    assert [result["label"] for result in results] == [("healthy", "broken")[y] for y in known["raw_y"]]


def test_an_autoencoders_error_is_the_score(site: Site) -> None:
    known = golden(site, "gearbox")
    site.configure('format = "cbor"\neach = "window"', name="gearbox-anomaly")
    site.init()
    site.install(site.pack_example(example("anomaly"), "gearbox/autoencoder.tflite", {"x": known["raw_windows"]}))

    source = site.models / "gearbox" / "golden.npz"
    results = answers(site, [source, "--array", "raw_windows", "--each", "window", "--format", "cbor"], 100)

    assert all((result["label"] == "broken") == (result["score"] < 0.01071137) for result in results)
    assert all(result["scores"] == [result["score"]] for result in results)
    right = sum(result["label"] == ("healthy", "broken")[y] for result, y in zip(results, known["raw_y"], strict=True))
    assert right >= 85  # of a hundred windows; 91.87 % of the 664 that the model is known by


def test_gestures_come_row_by_row_from_three_axes(site: Site) -> None:
    known = golden(site, "magic_wand")
    rows = known["x"].reshape(-1, 3)
    np.savez(site.path / "rows.npz", rows=rows)
    site.configure('format = "json"\neach = "row"', name="magic-wand")
    site.init()
    manifest = example("gestures").replace("hop = 32", "")
    site.install(site.pack_example(manifest, "magic_wand/magic_wand_quant.tflite", {"x": known["x"]}))

    results = answers(site, ["rows.npz", "--names", "x,y,z"], 3)

    assert [result["label"] for result in results] == ["negative", "ring", "slope"]
    assert np.array([result["scores"] for result in results]) == pytest.approx(known["y_quant"], abs=1e-6)


@pytest.mark.parametrize("format_", ["png", "raw"])
def test_pictures_are_told_apart(site: Site, format_: str) -> None:
    known = golden(site, "ic_resnet")
    pixels = (known["x"].astype(np.int16) + 128).astype(np.uint8)
    (site.path / "pictures").mkdir()
    for number, picture in enumerate(pixels):
        packed = io.BytesIO()
        Image.fromarray(picture).save(packed, "PNG")
        content = picture.tobytes() if format_ == "raw" else packed.getvalue()
        (site.path / "pictures" / f"{number}.{format_}").write_bytes(content)
    layout = "image = { width = 32, height = 32 }" if format_ == "raw" else ""
    site.configure(f'format = "{format_}"\neach = "window"\n{layout}', name="objects")
    site.init()
    site.install(site.pack_example(example("pictures"), "ic_resnet/pretrainedResnet_quant.tflite", {"x": pixels}))

    results = answers(site, ["pictures", "--format", format_], 10)

    assert [result["label"] for result in results] == list(known["labels"])
    assert all(result["top"][0]["label"] == result["label"] and len(result["top"]) == 3 for result in results)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("lfs_pointer_har_int8.tflite", "is a Git LFS pointer, not the model itself"),
        ("keras_lstm_mnist_ptq_edgetpu.tflite", "is compiled for the Edge TPU and runs nowhere else"),
        ("with_custom_op.lite", "needs the custom operator 'Assign', which the runtime lacks"),
        ("model_invoking_error.tflite", "needs the custom operator 'fake-op-double', which the runtime lacks"),
    ],
)
def test_a_model_that_cannot_run_is_not_packed(site: Site, file: str, said: str) -> None:
    """A manifest that would fit it, and vectors that were never recorded from it: the model itself is looked at."""
    site.configure()
    site.init()
    channels, size = {"keras_lstm_mnist_ptq_edgetpu.tflite": (28, 28), "model_invoking_error.tflite": (3, 1)}.get(
        file, (1, 1)
    )
    np.savez(site.path / "v.npz", windows=np.zeros((1, size, channels), "f"), scores=np.zeros((1, 1), "f"))
    tensors = "[tensors.v1]\n[tensors.v2]" if "custom" in file else ""
    (site.path / "m.toml").write_text(
        f"""
name = "gearbox"
version = 1
[input]
channels = {[f"c{number}" for number in range(channels)]}
[window]
size = {size}
{tensors}
[output]
kind = "regressor"
[self_test]
file = "v.npz"
"""
    )
    model = site.models / "odd" / file

    done = site.run(
        "pack", model, "-m", "m.toml", "--sign", "acme.key", "--to", "board.enrol", "-o", "out.edged", check=False
    )

    assert (done.returncode, said in done.stderr) == (65, True), done.stderr
    assert not (site.path / "out.edged").exists()


def test_a_delegate_that_is_missing_is_found_by_check_and_not_by_the_first_reading(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack())
    extra = '[runtime.delegates.edgetpu]\nlibrary = "libedgetpu-that-is-absent.so.1"'
    config = site.configure('format = "f32le"\neach = "window"\ndelegate = "edgetpu"')
    config.write_text(config.read_text() + extra)

    done = site.run("check", "--offline", "edged.toml", check=False)

    assert done.returncode == 78
    assert "runtime.delegates.edgetpu.library: libedgetpu-that-is-absent.so.1 cannot be used" in done.stdout
    config.write_text(config.read_text().replace('delegate = "edgetpu"', 'delegate = "gpu"'))
    done = site.run("check", "--offline", "edged.toml", check=False)
    assert "[[model]] gearbox: delegate: 'gpu' is not configured" in done.stdout
