"""The tables of a starting manifest: from the shapes of what a model takes, and of what it gives and where from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edged.formats.channel.result import MOST_SCORES
from edged.formats.spec.output import LONGEST_LABEL, MOST_LABELS
from edged.model import toml
from edged.model.draft_normalise import Range, write_normalise
from edged.model.runtime.graph import Subgraph
from edged.model.runtime.metadata import TensorNotes
from edged.model.signal.tensor import TensorInfo

_LEAST_SIDE = 8
"""Pixels that a side of a picture has more of."""

_MOST_CHANNELS = 64
"""A longer row is rather a window of one channel, such as sound."""

_COLOURS = {1: ("grey",), 3: ("r", "g", "b")}
_HEIGHT_WIDTH_COLOURS = 3


class InputGuess(NamedTuple):
    """An input, and how rows of channels may fill it.

    :ivar tensor: as the runtime has it.
    :ivar notes: notes of the model's author, if any.
    :ivar rows: pixels, of a picture.
    :ivar channels: values of a row.
    :ivar size: width and height of a picture.
    :ivar held: the numbers that its quantised tensor stands for.
    :ivar first: the channels come before the rows; None: the shape does not say.
    """

    tensor: TensorInfo
    notes: TensorNotes | None
    rows: int
    channels: int
    size: tuple[int, int] | None = None
    first: bool | None = False
    held: Range | None = None


def guess_input(tensor: TensorInfo, notes: TensorNotes | None, *, recurrent: bool = False) -> InputGuess:
    """Guess the kind of an input: a picture [H, W, 1 or 3], a window [T, C], or a row [C]; the batch is left out.

    Channels may come first: [1 or 3, H, W], [C, T].

    :param recurrent: the model goes through the rows one by one, so that they come first.
    """
    sizes = list(tensor.shape)
    if len(sizes) > 1 and sizes[0] == 1:
        del sizes[0]
    for colours_first, (height, width, colours) in _as_pictures(sizes):
        if _is_picture(height, width, colours, notes):
            first = colours_first and colours > 1
            return InputGuess(tensor, notes, height * width, colours, (width, height), first)
    while len(sizes) > 2 and 1 in sizes:  # noqa: PLR2004  a window has two sizes
        del sizes[len(sizes) - 1 - sizes[::-1].index(1)]
    values = math.prod(sizes)
    if len(sizes) < 2:  # noqa: PLR2004  as above
        channels = values if values <= _MOST_CHANNELS else 1
        return InputGuess(tensor, notes, values // channels, channels)
    guess = False if recurrent else _are_channels_first(sizes)
    channels = sizes[0] if guess else sizes[-1]
    return InputGuess(tensor, notes, values // channels, channels, first=guess)


def _as_pictures(sizes: Sequence[int]) -> Iterator[tuple[bool, Sequence[int]]]:
    """Yield height, width and colours as the shape may have them: with the colours last, and with them first."""
    if len(sizes) == _HEIGHT_WIDTH_COLOURS:
        yield False, sizes
        yield True, (*sizes[1:], sizes[0])


def _is_picture(height: int, width: int, colours: int, notes: TensorNotes | None) -> bool:
    if colours not in _COLOURS:
        return False
    if notes is not None and notes.picture is not None:
        return True
    return min(height, width) > _LEAST_SIDE and (colours > 1 or height == width)  # a grey oblong is a spectrogram


_MORE = 4
"""Times that a window is longer than it has channels, if a shape shall say which is which."""


def _are_channels_first(sizes: Sequence[int]) -> bool | None:
    """Guess by the shape; None where it does not say: windows have more rows than channels, mostly."""
    channels, *rows = sizes
    if len(rows) > 1:
        return rows[0] == rows[1] != channels  # of planes such as those of a radar
    if channels > _MOST_CHANNELS or channels * _MORE > rows[0]:
        return None if channels <= rows[0] else False
    return channels > 1


def write_inputs(parts: Sequence[InputGuess]) -> Iterator[str]:
    """Write the tables of the inputs. A picture beside others becomes rows of pixels: readings are pictures or rows."""
    pictures = [part for part in parts if part.size is not None]
    if pictures and len(parts) > 1:
        yield ""
        yield from toml.remark(
            f"{pictures[0].tensor.name!r} takes a picture, and another input something else: readings hold rows of"
            " pixels here, with the other values beside them."
        )
        parts = [part._replace(size=None) for part in parts]
        pictures = []
    channels = _channels(parts)
    yield ""
    for part in parts:
        yield from toml.remark(describe("It takes", part.tensor, part.notes))
    yield from ["[input]", *_input(parts, [one for names in channels.values() for one in names])]
    if pictures:
        yield from _normalise("normalise", parts[0])
        return
    window = max(part.rows for part in parts)
    hop = [f"# hop = {window}  # rows from one window to the next"] if window > 1 else []
    yield from toml.table("window", [f"size = {window}", *hop])
    if len(parts) == 1:
        yield from _feature_hint(parts[0])
        yield from _normalise("normalise", parts[0])
        return
    for part in parts:
        name = f"tensors.{toml.key(part.tensor.name)}"
        yield from toml.table(name, toml.assign("channels", list(map(toml.text, channels[part.tensor.name]))))
        if part.rows == window:
            yield from _layout([part])
        if part.rows != window:
            yield 'features = { use = ["mean"] }  # a guess: it takes one value a channel, out of the whole window'
        yield from _normalise(f"{name}.normalise", part)


def _input(parts: Sequence[InputGuess], channels: Sequence[str]) -> Iterator[str]:
    size = parts[0].size
    yield from toml.assign("channels", list(map(toml.text, channels)), "" if size else "name them, in this order")
    if size:
        yield f"image = {{ width = {size[0]}, height = {size[1]} }}"
        yield from _layout(parts)
        return
    yield from _layout(parts)
    yield '# unit = "m/s²"'
    yield '# rate = "100 Hz"'


def _layout(parts: Sequence[InputGuess]) -> Iterator[str]:
    """Write the layout of the only input, where it is not the usual one."""
    if len(parts) == 1 and parts[0].first:
        rows = ["height", "width"] if parts[0].size else ["rows"]
        yield f'layout = "channels_first"  # a guess by its shape: [{", ".join(("channels", *rows))}]'
    elif len(parts) == 1 and parts[0].first is None:
        yield '# layout = "channels_first"  # where the model takes them before the rows: swap channels and window.size'


def _channels(parts: Sequence[InputGuess]) -> Mapping[str, Sequence[str]]:
    """Return names of the channels that each input takes."""
    if len(parts) == 1 and parts[0].size is not None:
        return {parts[0].tensor.name: _COLOURS[parts[0].channels]}
    stems = {part.tensor.name: "channel" if len(parts) == 1 else part.tensor.name for part in parts}
    wanted = {part.tensor.name: part.channels for part in parts}
    window = max(part.rows for part in parts)
    wanted |= {part.tensor.name: part.rows * part.channels for part in parts if part.rows != window}
    return {name: [f"{stems[name]}_{number}" for number in range(1, n + 1)] for name, n in wanted.items()}


def describe(verb: str, tensor: TensorInfo, notes: TensorNotes | None) -> str:
    """Return a sentence about a tensor."""
    shape = ", ".join("?" if size < 0 else str(size) for size in tensor.extents or tensor.shape)
    said = f"{verb} {tensor.name!r}: {tensor.dtype} [{shape}]"
    if tensor.scale and tensor.dtype.kind in "iu":
        bounds = np.iinfo(tensor.dtype.name)
        low, high = ((bound - tensor.zero_point) * tensor.scale for bound in (bounds.min, bounds.max))
        said += f", which stands for {low:.6g} to {high:.6g} in steps of {tensor.scale:.6g}; edged converts"
    if notes is not None and notes.description:
        said += f". {notes.description}"
    return said


def _feature_hint(part: InputGuess) -> Iterator[str]:
    if part.rows == 1:
        yield from (
            "",
            "# If these values are features of a window, name what they are computed from as the channels, and:",
            "# [features]",
            '# use = ["mean", "std", "rms"]',
        )


def _normalise(name: str, part: InputGuess) -> Iterator[str]:
    return write_normalise(name, part.notes, part.channels, part.held, picture=part.size is not None)


_PASSED_ON = {"DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST"}
_PROBABILITIES = {"SOFTMAX", "LOGISTIC"}


def last_operator(subgraph: Subgraph, tensor: int) -> str:
    """Return the operator that a tensor's values come out of, behind those that only convert or reshape them."""
    name = ""
    for _ in subgraph.operators:
        maker = subgraph.maker(tensor)
        if maker is None:
            break
        name = maker.name
        if name not in _PASSED_ON or not maker.inputs:
            break
        tensor = maker.inputs[0]
    return name


def write_output(
    parts: Sequence[InputGuess], tensor: TensorInfo, notes: TensorNotes | None, operator: str
) -> Iterator[str]:
    """Write the tables of the output ``tensor``.

    :param operator: :func:`last_operator` of it.
    """
    size = math.prod(tensor.shape)
    yield ""
    yield from toml.remark(describe(f"Out of {operator or 'it'} comes", tensor, notes))
    if notes is not None and (why := why_not(size, notes)):
        yield from toml.remark(f"Not used: its labels from {notes.label_file}: {why}.")
    yield "[output]"
    if size > 1 and operator != "SOFTMAX" and [part.tensor.shape for part in parts] == [tensor.shape]:
        yield from _anomaly()
    elif size == 1 and operator == "LOGISTIC":
        yield from _detector(notes)
    elif size == 1 or size != max(tensor.shape) or size > MOST_LABELS:
        yield from ('kind = "regressor"', '# unit = "°C"', "# scale = 1.0", "# offset = 0.0")
        if size > MOST_SCORES:
            yield f'tell = "score"  # results hold {MOST_SCORES} scores at most'
    else:
        yield from _classifier(size, notes, operator)


def _anomaly() -> Iterator[str]:
    yield 'kind = "anomaly"  # a guess: it gives as much as it takes, so it may be an autoencoder'
    yield 'error = "mae"'
    yield 'labels = ["normal", "anomaly"]  # below decide.enter; from there on'
    yield from toml.table("decide", ["enter = 0.5  # measure it: the error from which on it is an anomaly"])


def _detector(notes: TensorNotes | None) -> Iterator[str]:
    labels = _labels(1, notes) or ["class_1"]
    yield 'kind = "classifier"'
    yield from toml.assign("labels", [toml.text(labels[0])], "what its one probability is of")
    yield from toml.table(
        "decide", [f"thresholds = {{ {toml.key(labels[0])} = 0.5 }}", 'otherwise = "none"  # what holds below']
    )


def _classifier(size: int, notes: TensorNotes | None, operator: str) -> Iterator[str]:
    yield 'kind = "classifier"'
    if operator in _PROBABILITIES:
        yield 'activation = "none"'
    else:
        yield 'activation = "softmax"  # a guess: the model has none itself; "sigmoid" where several labels may hold'
    labels = _labels(size, notes)
    names = labels or [f"class_{number}" for number in range(size)]
    yield from toml.assign("labels", list(map(toml.text, names)), "" if labels else "name them, in this order")


def _labels(size: int, notes: TensorNotes | None) -> Sequence[str]:
    """Return the labels that the model brings along, if a manifest may have them."""
    return notes.labels if notes is not None and notes.labels and not why_not(size, notes) else ()


def why_not(size: int, notes: TensorNotes) -> str:
    """Return why an output of ``size`` values cannot have the labels of its notes; empty if it can, or has none."""
    if notes.by_value:
        return "they name the values that it gives, and not its outputs"
    if len(notes.labels) != size:
        return f"{len(notes.labels)} labels for {size} outputs" if notes.label_file else ""
    if twice := [label for label, count in Counter(notes.labels).items() if count > 1]:
        return f"{twice[0]!r} stands there more than once"
    if long := [label for label in notes.labels if len(label.encode()) > LONGEST_LABEL]:
        return f"{long[0]!r} is longer than {LONGEST_LABEL} bytes"
    if size > MOST_LABELS:
        return f"a manifest has {MOST_LABELS} labels at most"
    return ""
