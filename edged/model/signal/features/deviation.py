"""Features of how far the values lie apart."""

from __future__ import annotations

import numpy as np

from edged.formats.spec import Feature
from edged.model.signal.features.block import Block, Doubles, feature


@feature
def std(block: Block, parameters: Feature) -> Doubles:
    """Root of `sum((x - mean(x))²) / (n - ddof)`, the standard deviation, as `numpy.std`; unit of the input.

    pandas' `std` has `ddof = 1`. Needs 1 + ddof rows.
    """
    deviation: Doubles = np.sqrt(block.square_sum / (block.rows - parameters.ddof))
    return deviation


@feature
def peak_to_peak(block: Block, _: Feature) -> Doubles:
    """Largest value less the smallest; unit of the input."""
    return block.highest - block.lowest


@feature
def mad(block: Block, _: Feature) -> Doubles:
    """Median of `|x - median(x)|`, as `scipy.stats.median_abs_deviation`, without a scale; unit of the input.

    The median of an even number of values is the mean of the middle two.
    """
    return _median(np.abs(block.values - _median(block.values)[:, np.newaxis]))


def _median(values: Doubles) -> Doubles:
    """Return the median of each channel, as `numpy.median`, which takes several times as long."""
    low, high = (values.shape[1] - 1) // 2, values.shape[1] // 2
    parted = np.partition(values, (low, high), axis=1)
    return (parted[:, low] + parted[:, high]) / 2
