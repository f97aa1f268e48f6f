"""``[normalise]`` of a starting manifest: by its author's notes, or by the numbers that a picture's tensor holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edged.model import toml
from edged.model.runtime.graph import Subgraph
from edged.model.runtime.metadata import TensorNotes
from edged.model.signal.tensor import TensorInfo

_BRIGHTEST = 255.0
_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, _BRIGHTEST))
"""What pictures are brought to before most networks see them."""
_NEAR = 0.25
"""Share of a usual range by which a tensor's own may differ: it was measured on some pictures."""


class Range(NamedTuple):
    """The lowest and highest number that a quantised tensor stands for."""

    low: float
    high: float


def range_of(tensor: TensorInfo, subgraph: Subgraph, number: int) -> Range | None:
    """Return the range of an input: its own, or that of the tensor that it is quantised into at once; None if neither.

    :param number: of the tensor in ``subgraph``.
    """
    if tensor.dtype.kind in "iu":
        return _range(tensor.dtype, tensor.scale or 1.0, tensor.zero_point)
    for operator in subgraph.operators:
        if operator.name == "QUANTIZE" and operator.inputs == (number,):
            target = subgraph.tensors[operator.outputs[0]]
            if len(target.scales) == 1 and target.dtype in {"int8", "uint8", "int16"}:
                return _range(np.dtype(target.dtype), target.scales[0], target.zero_points[0])
    return None


def _range(dtype: np.dtype[np.generic], scale: float, zero_point: int) -> Range:
    bounds = np.iinfo(dtype.name)
    return Range((float(bounds.min) - zero_point) * scale, (float(bounds.max) - zero_point) * scale)


def write_normalise(
    name: str, notes: TensorNotes | None, channels: int, held: Range | None, *, picture: bool
) -> Iterator[str]:
    """Write the table ``name``: by the notes where they fit, else, of a picture, by the range of its tensor."""
    mean, std = ((), ()) if notes is None else (notes.mean, notes.std)
    if mean or std:
        fits = all(len(one) in {1, channels} and np.isfinite(one).all() for one in (mean, std)) and all(std)
        if fits and (held is None or not picture or _lie_in(mean, std, held)):
            yield from toml.table(
                name, ['method = "zscore"', f"mean = {toml.numbers(mean)}", f"std = {toml.numbers(std)}"]
            )
            return
        why = (
            "lie outside of what its tensor can hold" if fits else f"are not one number, or one for each of {channels}"
        )
        yield ""
        yield from toml.remark(f"Its metadata say mean {list(mean)} and std {list(std)}, which {why}: not used.")
    if not picture:
        return
    if held is None:
        yield from (
            "",
            "# Colours are 0 to 255 here; for a model that was trained on 0 to 1:",
            f"# [{name}]",
            '# method = "minmax"',
            "# min = 0.0",
            "# max = 255.0",
        )
        return
    yield from _by_range(name, held)


def _by_range(name: str, held: Range) -> Iterator[str]:
    usual = next((one for one in _USUAL if _is_near(held, one)), held)
    low, high = usual
    if usual == (0.0, _BRIGHTEST):
        yield from ("", "# Its tensor holds 0 to 255, as colours are: nothing to normalise.")
        return
    table = ['method = "minmax"', "min = 0.0", "max = 255.0"]
    if usual != (0.0, 1.0):
        span = _BRIGHTEST / (high - low)
        table = ['method = "zscore"', f"mean = {round(-low * span, 4)}", f"std = {round(span, 4)}"]
    yield from (
        "",
        *toml.remark(f"A guess: colours are 0 to 255, and its tensor holds {held.low:.4g} to {held.high:.4g}."),
    )
    yield from (f"[{name}]", *table)


def _is_near(held: Range, usual: tuple[float, float]) -> bool:
    most = _NEAR * (usual[1] - usual[0])
    return all(math.isclose(one, other, abs_tol=most, rel_tol=0) for one, other in zip(held, usual, strict=True))


def _lie_in(means: tuple[float, ...], stds: tuple[float, ...], held: Range) -> bool:
    """Return True if black and white, normalised so, are about what the tensor can hold."""
    most = _NEAR * (held.high - held.low)
    ends = [(colour - mean) / std for colour in (0.0, _BRIGHTEST) for mean in means for std in stds]
    return held.low - most <= min(ends) and max(ends) <= held.high + most
