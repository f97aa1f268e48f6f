"""Features: each turns a window into one value a channel, or several.

To add a feature: a function here with :func:`feature` above it, whose docstring is its definition in docs/manifest.md,
and a row with its parameters and least rows in :data:`edged.formats.spec.features.FEATURES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, ReadingShapeError
from edged.formats.spec import Feature, Features

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


class Block:
    """A window, each channel in one piece, which sums faster and more exactly.

    What several features need is worked out once, when the first one asks; float64 [channels] where nothing else is
    stated.

    :ivar values: float64 [channels, rows].
    :ivar rows: number of rows, at least 1.
    :ivar rate: rows a second; NaN where the manifest states none.
    """

    def __init__(self, window: Floats, rate: float) -> None:
        self.values: Doubles = np.ascontiguousarray(window.T, np.float64)
        self.rows = len(window)
        self.rate = rate

    @cached_property
    def absolute(self) -> Doubles:
        """Absolute values [channels, rows]."""
        return np.abs(self.values)

    @cached_property
    def lowest(self) -> Doubles:
        """Smallest value."""
        lowest: Doubles = np.minimum.reduce(self.values, axis=1)
        return lowest

    @cached_property
    def highest(self) -> Doubles:
        """Largest value."""
        highest: Doubles = np.maximum.reduce(self.values, axis=1)
        return highest

    @cached_property
    def mean(self) -> Doubles:
        """Arithmetic mean; exact for a constant channel, because float32 sums without loss in float64."""
        return row_sums(self.values) / self.rows

    @cached_property
    def root_mean_square(self) -> Doubles:
        """Root of the mean square."""
        root: Doubles = np.sqrt(row_products(self.values, self.values) / self.rows)
        return root

    @cached_property
    def centred(self) -> Doubles:
        """Values without their channel's mean [channels, rows]; exactly 0 in a constant channel."""
        return self.values - self.mean[:, np.newaxis]

    @cached_property
    def squares(self) -> Doubles:
        """Squares of :attr:`centred` [channels, rows]."""
        return np.square(self.centred)

    @cached_property
    def square_sum(self) -> Doubles:
        """Sum of :attr:`squares`; exactly 0 in a constant channel."""
        return row_sums(self.squares)


def row_sums(values: Doubles) -> Doubles:
    """Return the sum of each channel, for float64 [channels, n]."""
    sums: Doubles = np.add.reduce(values, axis=1)
    return sums


def row_products(one: Doubles, other: Doubles) -> Doubles:
    """Return the scalar product of each channel of two blocks, both float64 [channels, n]."""
    products: Doubles = np.einsum("ij,ij->i", one, other)
    return products


Function = Callable[[Block, Feature], Doubles]
"""Gives float64 [channels] for a window and the manifest's parameters; or [values, channels], if several a channel."""

REGISTRY: dict[str, Function] = {}
"""Every feature, by the name that the manifest uses."""


def feature(name: str) -> Callable[[Function], Function]:
    """Make a function the feature ``name``."""

    def register(function: Function) -> Function:
        REGISTRY[name] = function
        return function

    return register


@feature("sum_abs")
def sum_abs(block: Block, _: Feature) -> Doubles:
    """Sum of the absolute values; unit of the input."""
    return row_sums(block.absolute)


@feature("mean")
def mean(block: Block, _: Feature) -> Doubles:
    """Arithmetic mean; unit of the input."""
    return block.mean


@feature("rms")
def rms(block: Block, _: Feature) -> Doubles:
    """Root of the mean square, the mean not taken off; unit of the input."""
    return block.root_mean_square


@feature("min")
def lowest(block: Block, _: Feature) -> Doubles:
    """Smallest value; unit of the input."""
    return block.lowest


@feature("max")
def highest(block: Block, _: Feature) -> Doubles:
    """Largest value; unit of the input."""
    return block.highest


@feature("std")
def std(block: Block, parameters: Feature) -> Doubles:
    """Root of `sum((x - mean(x))²) / (n - ddof)`, the standard deviation, as `numpy.std`; unit of the input.

    pandas' `std` has `ddof = 1`. Needs 1 + ddof rows.
    """
    deviation: Doubles = np.sqrt(block.square_sum / (block.rows - parameters.ddof))
    return deviation


@feature("peak_to_peak")
def peak_to_peak(block: Block, _: Feature) -> Doubles:
    """Largest value less the smallest; unit of the input."""
    return block.highest - block.lowest


@feature("mad")
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


@feature("skewness")
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


@feature("kurtosis")
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


@feature("crest_factor")
def crest_factor(block: Block, _: Feature) -> Doubles:
    """Largest absolute value over the root mean square, the mean not taken off; no unit; 0 where all values are 0."""
    return np.maximum(block.highest, -block.lowest) / _or_one(block.root_mean_square)


def _or_one(divisor: Doubles) -> Doubles:
    """Return the divisor, and 1 where it is 0 (with what is divided)."""
    return np.where(divisor > 0, divisor, 1.0)


_AT_THE_EDGE = 1e-9  # of a bin: rounding must not put a frequency on the wrong side of a band's bound
_KEPT = 4  # windows by time hold now more rows, now fewer


@feature("zero_crossings")
def zero_crossings(block: Block, parameters: Feature) -> Doubles:
    """How many values have another sign than the one before, 0 (also -0.0) counting as positive; no unit.

    `about = "mean"` looks at `x - mean(x)`. The first value is compared with none.
    """
    negative = (block.values if parameters.about == "zero" else block.centred) < 0
    crossings: Doubles = np.add.reduce(negative[:, 1:] != negative[:, :-1], axis=1, dtype=np.float64)
    return crossings


@feature("band_energy")
def band_energy(block: Block, parameters: Feature) -> Doubles:
    """Mean square of what lies from a band's first frequency up to its second (exclusive); unit of the input squared.

    The sum of `c |X_k|² / (n sum(w²))` over the frequencies `k rate / n` in the band: X is the discrete Fourier
    transform of `w x`; c is 1 at 0 Hz and at half the rate, else 2; w is 1, or with `taper = "hann"` the periodic Hann
    window `0.5 - 0.5 cos(2 pi i / n)`, which needs 2 rows. The mean is not taken off: it lies at 0 Hz. Without a taper,
    bands over all frequencies add up to the mean square. As `scipy.signal.periodogram(x, rate, window, detrend=False)`
    summed over the band, times `rate / n`. A band that holds none of the frequencies has 0.
    """
    rows, values = block.rows, block.values
    weights = float(rows)
    if parameters.taper == "hann":
        taper = _hann(rows)
        values, weights = values * taper, float(taper @ taper)
    spectrum = np.fft.rfft(values)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    power[:, 1 : (rows + 1) // 2] *= 2
    energies = [row_sums(power[:, begin:end]) for begin, end in _bins(parameters.bands, rows, block.rate)]
    return np.array(energies) / (rows * weights)


@lru_cache(_KEPT)
def _hann(rows: int) -> Doubles:
    taper: Doubles = 0.5 - 0.5 * np.cos(2 * np.pi / rows * np.arange(rows))
    return taper


@lru_cache
def _bins(bands: tuple[tuple[float, float], ...], rows: int, rate: float) -> list[tuple[int, int]]:
    """Return the first number of the transform in each band, and the first behind it."""
    return [(_first_bin(low * rows / rate), _first_bin(high * rows / rate)) for low, high in bands]


def _first_bin(place: float) -> int:
    return math.ceil(place - _AT_THE_EDGE)


class Extractor:
    """The manifest's features.

    :param channels: number of channels.
    :param rows: of each window; None where they hold now more rows, now fewer.
    :param rate: rows a second; None where the manifest states none, which it must for features in hertz.
    :ivar values: number of values that come out.
    :raises ConfigError: the window is too short for one of them.
    """

    def __init__(self, features: Features, channels: int, rows: int | None, rate: float | None) -> None:
        self.values = features.values * channels
        self._features = [(REGISTRY[feature.name], feature) for feature in features.all]
        self._shape = (features.values, channels)
        self._by_channel = features.order == "channel"
        self._rate = math.nan if rate is None else rate
        self._least = max(one.least_rows for one in features.all)
        if rows is not None and rows < self._least:
            raise ConfigError(f"features.use: {self._needs(rows)}, window.size is {rows}")

    def __call__(self, window: Floats) -> Doubles:
        """Return float64 [:attr:`values`] for a window float32 [rows, channels].

        By feature and then by channel, or the other way round, as the manifest states.

        :raises ReadingShapeError: a window by time holds too few rows for a feature.
        """
        if len(window) < self._least:
            raise ReadingShapeError(f"features.use: {self._needs(len(window))}, this window holds {len(window)}")
        block = Block(window, self._rate)
        table = np.empty(self._shape)
        at = 0
        for function, parameters in self._features:
            end = at + parameters.values
            table[at:end] = function(block, parameters)
            at = end
        return (table.T if self._by_channel else table).reshape(-1)

    def _needs(self, rows: int) -> str:
        """Return a sentence about the first feature that needs more rows."""
        short = next(feature for _, feature in self._features if feature.least_rows > rows)
        return f"{short.name} needs {short.least_rows} rows"
