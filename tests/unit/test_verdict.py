"""`edged try` shows what one must know: clipped inputs, scores in full, errors and thresholds, confusions, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import EdgedError, ReadingFormatError, ReadingShapeError, UsageError
from edged.cli.author import try_command
from edged.model.signal.tensor import TensorInfo, clipped, quantise
from edged.model.verdict import _best_threshold
from support.tiny import dense, identity, means

CLASSIFIER = '[output]\nkind = "classifier"\nlabels = ["x", "y", "z"]\n'
REGRESSOR = '[output]\nkind = "regressor"\n'


class Tried(NamedTuple):
    lines: list[dict[str, Any]]
    said: str


def try_(folder: Path, model: bytes, manifest: str, source: Path, *options: object) -> Tried:
    (folder / "m.tflite").write_bytes(model)
    (folder / "m.toml").write_text(f'name = "m"\nversion = 1\n{manifest}')
    arguments = [folder / "m.tflite", "-m", folder / "m.toml", "-i", source, *options]
    done = CliRunner().invoke(try_command, list(map(str, arguments)))
    if isinstance(done.exception, EdgedError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return Tried([json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "in.npz", **arrays)
    return folder / "in.npz"


def channels(count: int) -> str:
    return f"[input]\nchannels = {[f'c{number}' for number in range(count)]}\n"


# --- clipped inputs --------------------------------------------------------------------------


def test_the_share_of_clipped_inputs_is_told(tmp_path: Path) -> None:
    model = identity((1, 4), (1, 4), "int8", scale=1 / 255, zero_point=-128)
    source = saved(tmp_path, x=np.array([[0, 0.5, 1, 2], [0, 1, 1, 1]], np.float32))

    tried = try_(tmp_path, model, channels(4) + REGRESSOR, source)

    assert [line.get("clipped") for line in tried.lines] == [0.25, None]
    assert "12.50% of the values lie outside of what the model's input holds, and were clipped" in tried.said


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1),
    st.sampled_from(["int8", "uint8", "int16"]),
    st.integers(-128, 127),
)
def test_what_is_clipped_is_what_its_integer_does_not_stand_for(
    values: list[float], dtype: str, zero_point: int
) -> None:
    tensor = TensorInfo("x", (len(values),), np.dtype(dtype), 0.5, zero_point)
    given_ = np.array(values, np.float32)

    back = (quantise(given_, tensor).astype(np.float64) - zero_point) * 0.5

    far = np.abs(back - given_.astype(np.float64)) > 0.26
    assert clipped(given_, tensor) == int(far.sum())


def test_floats_clip_nothing(tmp_path: Path) -> None:
    tried = try_(
        tmp_path, identity((1, 2)), channels(2) + REGRESSOR, saved(tmp_path, x=np.array([[1e30, -1e30]], np.float32))
    )

    assert "clipped" not in tried.lines[0]
    assert "clipped" not in tried.said


# --- scores in full ---------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_a_score_that_is_shown_is_the_score(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    folder = tmp_path_factory.getbasetemp()

    tried = try_(folder, identity((1, 1)), channels(1) + REGRESSOR, saved(folder, x=np.array([[value]], np.float32)))

    assert np.float32(tried.lines[0]["scores"][0]) == np.float32(value)
    assert tried.lines[0]["value"] == tried.lines[0]["scores"][0]


# --- labels ----------------------------------------------------------------------------------


def test_confusions_and_foreign_labels_are_shown(tmp_path: Path) -> None:
    rows = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]]
    source = saved(tmp_path, x=rows, y=np.array(["x", "y", "y", "worn", "worn"]))

    said = try_(tmp_path, identity((1, 3)), channels(3) + CLASSIFIER, source, "--array", "x", "--labels", "y").said

    assert "5 windows: 2 of 5 right (40.00%)" in said
    assert "labels of the file that the model does not have, counted as wrong: 'worn' (2)" in said
    assert [line.split() for line in said.splitlines() if line.split()[0] in {"right", "x", "y", "worn"}] == [
        ["right", "x", "y", "z"], ["x", "1", "0", "0"], ["y", "1", "1", "0"], ["worn", "0", "0", "2"],
    ]  # fmt: skip


def test_of_many_labels_the_commonest_confusions_are_shown(tmp_path: Path) -> None:
    names = [f"l{number}" for number in range(20)]
    manifest = channels(20) + f'[output]\nkind = "classifier"\nlabels = {names}\n'
    source = saved(tmp_path, x=np.eye(20, dtype=np.float32), y=np.array(["l0", "l0", *names[2:]]))

    said = try_(tmp_path, identity((1, 20)), manifest, source, "--array", "x", "--labels", "y").said

    assert "  l0 taken for l1: 1" in said


# --- anomaly detectors -----------------------------------------------------------------------

DETECTOR = channels(2) + '[output]\nkind = "anomaly"\nlabels = ["normal", "fault"]\n[decide]\nenter = 0.5\n'
HALF = dense(np.diag([1.0, 0.5]).astype(np.float32))  # its error is a quarter of the second channel


def detector_rows(*errors: float) -> npt.NDArray[np.float32]:
    return np.array([[1, 4 * error] for error in errors], np.float32)


def test_a_threshold_that_parts_the_labels_is_proposed(tmp_path: Path) -> None:
    rows = detector_rows(1e-6, 2e-6, 3e-6, 1e-3, 2e-3)
    source = saved(tmp_path, x=rows, y=np.array([0, 0, 0, 1, 1]))

    said = try_(tmp_path, HALF, DETECTOR, source, "--array", "x", "--labels", "y").said

    assert "errors of normal: 1e-06 to 3e-06, median 2e-06" in said
    assert "errors of fault: 0.001 to 0.002" in said
    assert (
        "decide.enter = 0.0005015 takes 100.00% of each label for what it is, on average; the manifest has 0.5" in said
    )


def test_without_labels_a_threshold_stands_above_what_is_usual(tmp_path: Path) -> None:
    said = try_(tmp_path, HALF, DETECTOR, saved(tmp_path, x=detector_rows(*np.linspace(0, 1e-3, 101)))).said

    assert "errors: 0 to 0.001, median 0.0005, 99 % up to 0.00099" in said
    assert "decide.enter = 0.00099 lies above 99 % of these windows, if they are all normal" in said


def test_labels_that_are_swapped_are_noticed(tmp_path: Path) -> None:
    source = saved(tmp_path, x=detector_rows(1e-3, 1e-6), y=np.array([0, 1]))

    said = try_(tmp_path, HALF, DETECTOR, source, "--array", "x", "--labels", "y").said

    assert "normal has larger errors than fault: output.labels names first what holds below decide.enter" in said
    assert "decide.enter =" not in said


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_no_threshold_parts_labels_better_than_the_proposed_one(below: list[float], above: list[float]) -> None:
    low, high = np.array(below), np.array(above)

    threshold, share = _best_threshold(low, high)

    def right(at: float) -> float:
        return float(((low < at).mean() + (high >= at).mean()) / 2)

    assert share == pytest.approx(right(threshold))
    middles = (np.unique([*below, *above])[1:] + np.unique([*below, *above])[:-1]) / 2
    assert all(right(one) <= share + 1e-9 for one in middles)


# --- pictures --------------------------------------------------------------------------------

PICTURE = '[input]\nchannels = ["r", "g", "b"]\nimage = { width = 4, height = 4 }\n'
MEANS = means((1, 4, 4, 3), [1, 2])


def paint(path: Path, *colour: int) -> None:
    path.parent.mkdir(exist_ok=True)
    PIL.Image.new("RGB", (8, 8), colour).save(path, quality=95)


def test_a_picture_is_tried_as_a_board_takes_it(tmp_path: Path) -> None:
    paint(tmp_path / "one.PNG", 200, 100, 50)

    tried = try_(tmp_path, MEANS, PICTURE + REGRESSOR, tmp_path / "one.PNG")

    assert [line["scores"] for line in tried.lines] == [[200, 100, 50]]


def test_a_folder_of_folders_is_a_folder_for_each_label(tmp_path: Path) -> None:
    for label, colour in (("x", (200, 0, 0)), ("y", (0, 200, 0)), ("z", (0, 0, 200))):
        paint(tmp_path / "pictures" / "a.jpg", 0, 0, 0)
        (tmp_path / "pictures" / "a.jpg").unlink()
        paint(tmp_path / "pictures" / label / "a.jpg", *colour)
        paint(tmp_path / "pictures" / label / "b.png", *colour)
        (tmp_path / "pictures" / label / "notes.txt").write_text("no picture")

    tried = try_(tmp_path, MEANS, PICTURE + CLASSIFIER, tmp_path / "pictures")

    assert [line["right"] for line in tried.lines] == ["x", "x", "y", "y", "z", "z"]
    assert "6 windows: 6 of 6 right (100.00%)" in tried.said


def test_a_folder_of_pictures_has_no_labels(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "pictures" / f"{number}.png", number, 0, 0)

    tried = try_(tmp_path, MEANS, PICTURE + REGRESSOR, tmp_path / "pictures")

    assert [line["value"] for line in tried.lines] == [0, 1, 2]


def test_pictures_that_cannot_be_taken_are_refused_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ReadingFormatError, match=r"bad\.png: a reading is no whole PNG picture"):
        try_(tmp_path, MEANS, PICTURE + REGRESSOR, tmp_path / "bad.png")
    with pytest.raises(UsageError, match="the model takes rows of numbers"):
        try_(tmp_path, identity((1, 2)), channels(2) + REGRESSOR, tmp_path / "bad.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no \.png, \.jpg, \.jpeg"):
        try_(tmp_path, MEANS, PICTURE + REGRESSOR, tmp_path / "empty")


# --- layouts ---------------------------------------------------------------------------------


def test_windows_of_a_file_may_have_their_channels_first(tmp_path: Path) -> None:
    windows = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    manifest = channels(3) + "[window]\nsize = 5\n" + REGRESSOR

    last = try_(tmp_path, means((1, 5, 3), [1]), manifest, saved(tmp_path, x=windows)).lines
    first = try_(tmp_path, means((1, 5, 3), [1]), manifest, saved(tmp_path, x=windows.transpose(0, 2, 1).copy())).lines

    assert last == first
    other = channels(2) + "[window]\nsize = 6\n" + REGRESSOR
    with pytest.raises(ReadingShapeError, match=r"samples of shape \(2, 3, 4\) are neither"):
        try_(tmp_path, means((1, 6, 2), [1]), other, saved(tmp_path, x=np.zeros((2, 3, 4), np.float32)))


def test_a_shape_that_does_not_say_its_layout_is_told(tmp_path: Path) -> None:
    manifest = channels(3) + "[window]\nsize = 3\n" + REGRESSOR
    source = saved(tmp_path, x=np.zeros((1, 3, 3), np.float32))

    said = try_(tmp_path, means((1, 3, 3), [1]), manifest, source).said

    assert "the shape of the model's input does not say its layout: input.layout = 'channels_last' is taken" in said
    stated = manifest.replace("[window]", 'layout = "channels_last"\n[window]')
    assert "layout" not in try_(tmp_path, means((1, 3, 3), [1]), stated, source).said
