"""Models to measure with: each with its manifest, and the readings that a sensor would send it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cbor2
import models
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
ROWS, CHANNELS, LABELS = 128, 6, 4
SMALL = (ROWS * CHANNELS, 16, LABELS)
FIVE_FEATURES = ("mean", "std", "max", "rms", "kurtosis")

_VIBRATION = """
[input]
channels = ["a1", "a2", "a3", "a4", "a5", "a6"]

[window]
size = {rows}
{features}
[output]
kind = "classifier"
labels = ["healthy", "worn", "cracked", "broken"]
"""

_KEYWORDS = """
[input]
channels = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"]

[window]
size = 49

[output]
kind = "classifier"
labels = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"]
"""

_PICTURES = """
[input]
channels = ["r", "g", "b"]
image = { width = 32, height = 32 }

[output]
kind = "classifier"
labels = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
"""

Encode = Callable[[Floats], bytes]


@dataclass(frozen=True)
class Subject:
    """One model, and what is sent to it.

    :ivar write: writes the model's file.
    :ivar manifest: TOML without the name, the version and the self-test.
    :ivar layout: what its ``[[model]]`` table says of its readings, which are whole windows.
    :ivar windows: float32 [n, rows, channels].
    :ivar encode: what a sensor makes of a window before it is sealed.
    """

    name: str
    write: Callable[[Path], object]
    manifest: str
    layout: str
    windows: Floats
    encode: Encode


def windows(count: int, rows: int = ROWS) -> Floats:
    """Return ``count`` random windows, float32 [count, rows, channels], the same ones at each call."""
    return np.random.default_rng(2).standard_normal((count, rows, CHANNELS), dtype=np.float32)


def cbor(window: Floats) -> bytes:
    """Return the whole window as one typed array (RFC 8746, tag 85): rows one after the other."""
    return cbor2.dumps(cbor2.CBORTag(85, window.tobytes()))


def vibration(
    name: str = "bench",
    format_: str = "cbor",
    layers: Sequence[int] = SMALL,
    *,
    int8: bool = False,
    features: Sequence[str] = (),
) -> Subject:
    """Return a dense model on windows of 128x6.

    :param format_: how windows are written inside their seal; readings of another than ``cbor`` are the caller's.
    :param layers: its sizes; with features the first is theirs.
    """
    table = f"[features]\nuse = {list(features)}\n" if features else ""
    return Subject(
        name,
        partial(models.dense, sizes=layers, int8=int8),
        _VIBRATION.format(rows=ROWS, features=table),
        f'format = "{format_}"',
        windows(8),
        cbor,
    )


def heavy(name: str, rows: int, layers: Sequence[int]) -> Subject:
    """Return a dense model that answers each row of a window on its own, in all layers but the last."""
    return Subject(
        name,
        partial(models.dense, sizes=layers, rows=rows),
        _VIBRATION.format(rows=rows, features=""),
        'format = "cbor"',
        windows(2, rows),
        cbor,
    )


def real_models() -> Path | None:
    """Return the folder of real models: beside the project, or where EDGED_MODELS says; None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "models"
    folder = Path(os.environ.get("EDGED_MODELS", beside))
    return folder if folder.is_dir() else None


def keywords(folder: Path) -> Subject:
    """Return keyword spotting, int8, on 49x10 audio coefficients."""
    spread = np.float32(20)  # about what the model's input tensor spans
    return Subject(
        "keywords",
        partial(shutil.copy, folder / "kws" / "kws_ref_model.tflite"),
        _KEYWORDS,
        'format = "cbor"',
        np.random.default_rng(2).standard_normal((8, 49, 10), dtype=np.float32) * spread,
        cbor,
    )


def pictures(folder: Path) -> Subject:
    """Return an image classifier, int8, on raw pictures of 32x32x3."""
    return Subject(
        "pictures",
        partial(shutil.copy, folder / "ic_resnet" / "pretrainedResnet_quant.tflite"),
        _PICTURES,
        'format = "raw"\nimage = { width = 32, height = 32 }',
        np.random.default_rng(2).integers(0, 256, (8, 32 * 32, 3)).astype(np.float32),
        lambda picture: picture.astype(np.uint8).tobytes(),
    )
