"""Features of how large the values are."""

from __future__ import annotations

from edged.formats.spec import Feature
from edged.model.signal.features.block import Block, Doubles, feature, row_sums


@feature
def sum_abs(block: Block, _: Feature) -> Doubles:
    """Sum of the absolute values; unit of the input."""
    return row_sums(block.absolute)


@feature
def mean(block: Block, _: Feature) -> Doubles:
    """Arithmetic mean; unit of the input."""
    return block.mean


@feature
def rms(block: Block, _: Feature) -> Doubles:
    """Root of the mean square, the mean not taken off; unit of the input."""
    return block.root_mean_square


@feature
def min(block: Block, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Smallest value; unit of the input."""
    return block.lowest


@feature
def max(block: Block, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Largest value; unit of the input."""
    return block.highest
