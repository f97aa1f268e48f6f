"""Features of the form of the values' distribution: they have no unit, and a scale of the input changes nothing."""

from __future__ import annotations

import math

import numpy as np

from edged.formats.spec import Feature
from edged.model.signal.features.block import Block, Doubles, feature, row_products


@feature
def skewness(block: Block, parameters: Feature) -> Doubles:
    """Skewness, `m3 / m2^1.5` of the central moments, as `scipy.stats.skew`; no unit; 0 if constant.

    `bias = false` takes the unbiased G1, `sqrt(n (n - 1)) / (n - 2)` times as much, as pandas' `skew`. Needs 3 rows.
    """
    rows, second = block.rows, block.square_sum
    divisor = _or_one(second)
    third = row_products(block.centred, block.squares)
    scale = math.sqrt(rows)
    if not parameters.bias:
        scale *= math.sqrt(rows * (rows - 1)) / (rows - 2)
    skew: Doubles = scale * third / (divisor * np.sqrt(divisor))
    return skew


@feature
def kurtosis(block: Block, parameters: Feature) -> Doubles:
    """Excess kurtosis, `m4 / m2² - 3` of the central moments, as `scipy.stats.kurtosis`; no unit; 0 if constant.

    `bias = false` takes the unbiased G2, as pandas' `kurt`. Needs 4 rows.
    """
    rows, second = block.rows, block.square_sum
    ratio = row_products(block.squares, block.squares) / np.square(_or_one(second))
    if parameters.bias:
        excess = rows * ratio - 3
    else:
        scale = rows * (rows + 1) * (rows - 1) / ((rows - 2) * (rows - 3))
        excess = scale * ratio - 3 * (rows - 1) ** 2 / ((rows - 2) * (rows - 3))
    return np.where(second > 0, excess, 0.0)


@feature
def crest_factor(block: Block, _: Feature) -> Doubles:
    """Largest absolute value over the root mean square, the mean not taken off; no unit; 0 where all values are 0."""
    return np.maximum(block.highest, -block.lowest) / _or_one(block.root_mean_square)


def _or_one(divisor: Doubles) -> Doubles:
    """Return the divisor, and 1 where it is 0 (with what is divided)."""
    return np.where(divisor > 0, divisor, 1.0)
