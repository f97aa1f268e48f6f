"""The features of one model, taken together."""

from __future__ import annotations

import math

import numpy as np

from edged.base.errors import ConfigError, ReadingShapeError
from edged.formats.spec import Feature, Features
from edged.model.signal.features.block import REGISTRY, Block, Doubles, Floats

_LEAST_ROWS = {"skewness": 3, "kurtosis": 4}


class Extractor:
    """The manifest's features.

    :param channels: how many.
    :param rows: of each window; None where they hold now more rows, now fewer.
    :param rate: rows a second; None where the manifest states none, which it must for features in hertz.
    :ivar values: how many come out.
    :raises ConfigError: the window is too short for one of them.
    """

    def __init__(self, features: Features, channels: int, rows: int | None, rate: float | None) -> None:
        self.values = features.values * channels
        self._features = [(REGISTRY[feature.name], feature) for feature in features.all]
        self._shape = (features.values, channels)
        self._by_channel = features.order == "channel"
        self._rate = math.nan if rate is None else rate
        self._least = max(_least_rows(feature) for feature in features.all)
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
        """Say which feature needs more rows than there are."""
        name, least = next(
            (feature.name, least) for _, feature in self._features if (least := _least_rows(feature)) > rows
        )
        return f"{name} needs {least} rows"


def _least_rows(feature: Feature) -> int:
    if feature.taper == "hann":
        return 2  # over one row the taper is 0
    return _LEAST_ROWS.get(feature.name, 1 + feature.ddof)
