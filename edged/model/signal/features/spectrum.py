"""Features of how fast the values change."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from edged.formats.spec import Feature
from edged.model.signal.features.block import Block, Doubles, feature, row_sums

_AT_THE_EDGE = 1e-9  # of a bin: rounding must not put a frequency on the wrong side of a band's bound
_KEPT = 4  # windows by time hold now more rows, now fewer


@feature
def zero_crossings(block: Block, parameters: Feature) -> Doubles:
    """How many values have another sign than the one before, 0 (also -0.0) counting as positive; no unit.

    `about = "mean"` looks at `x - mean(x)`. The first value is compared with none.
    """
    negative = (block.values if parameters.about == "zero" else block.centred) < 0
    crossings: Doubles = np.add.reduce(negative[:, 1:] != negative[:, :-1], axis=1, dtype=np.float64)
    return crossings


@feature
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
