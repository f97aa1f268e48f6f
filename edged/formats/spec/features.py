"""``[features]``, ``[normalise]`` and ``[tensors]``: what becomes of a window before the model sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edged.base.errors import ConfigError
from edged.formats.spec.input import Layout, Table


class FeatureKind(NamedTuple):
    """A feature as the manifest knows it.

    :ivar parameters: those of :class:`Feature` that it takes.
    :ivar least_rows: rows that a window must hold for it; a parameter may raise that.
    """

    parameters: tuple[str, ...] = ()
    least_rows: int = 1


FEATURES: Mapping[str, FeatureKind] = {
    "sum_abs": FeatureKind(),
    "mean": FeatureKind(),
    "std": FeatureKind(("ddof",)),
    "rms": FeatureKind(),
    "min": FeatureKind(),
    "max": FeatureKind(),
    "peak_to_peak": FeatureKind(),
    "skewness": FeatureKind(("bias",), least_rows=3),
    "kurtosis": FeatureKind(("bias",), least_rows=4),
    "crest_factor": FeatureKind(),
    "zero_crossings": FeatureKind(("about",)),
    "mad": FeatureKind(),
    "band_energy": FeatureKind(("bands", "taper")),
}
"""To add a feature: its row here, and its function in :mod:`edged.model.signal.features`."""


class Feature(Table, frozen=True):
    """A feature with its parameters.

    :ivar name: one of the features below.
    :ivar ddof: of ``std``: the divisor is n - ddof.
    :ivar bias: of ``skewness`` and ``kurtosis``: false takes the unbiased estimate, as pandas does.
    :ivar about: of ``zero_crossings``: around zero, or around the window's mean.
    :ivar bands: of ``band_energy``: from and up to (exclusive) so many hertz, each; ``input.rate`` must be stated.
    :ivar taper: of ``band_energy``: the window function before the transform.
    """

    name: str
    ddof: int = 0
    bias: bool = True
    about: Literal["zero", "mean"] = "zero"
    bands: tuple[tuple[float, float], ...] = ()
    taper: Literal["none", "hann"] = "none"

    def __post_init__(self) -> None:
        if self.name not in FEATURES:
            raise ConfigError(f"features.use: unknown feature {self.name!r}", hint=f"known: {', '.join(FEATURES)}")
        given = {"ddof": self.ddof != 0, "bias": not self.bias, "about": self.about != "zero"}
        given |= {"bands": bool(self.bands), "taper": self.taper != "none"}
        for parameter, is_given in given.items():
            if is_given and parameter not in FEATURES[self.name].parameters:
                raise ConfigError(f"features.use: {self.name} takes no {parameter}")
        if self.ddof < 0:
            raise ConfigError("features.use: ddof is not below 0")
        if self.name == "band_energy" and not self.bands:
            raise ConfigError("features.use: band_energy needs bands", hint="bands = [[0, 50], [50, 200]] in hertz")
        for low, high in self.bands:
            if not 0 <= low < high:
                raise ConfigError(f"features.use: band_energy: a band from {low} up to {high} holds no frequency")

    @property
    def values(self) -> int:
        """Number of values that it gives for each channel."""
        return len(self.bands) or 1

    @property
    def least_rows(self) -> int:
        """Rows that a window must hold for it."""
        if self.taper == "hann":
            return 2  # over one row the taper is 0
        return FEATURES[self.name].least_rows + self.ddof


class Features(Table, frozen=True):
    """``[features]``: values that take the window's place.

    :ivar use: features, by name or as a table with parameters.
    :ivar order: ``feature`` puts all channels' values of the first feature first; ``channel`` all features' of the
        first channel.
    """

    use: tuple[str | Feature, ...]
    order: Literal["feature", "channel"] = "feature"

    def __post_init__(self) -> None:
        if not self.all:
            raise ConfigError("features.use: at least one feature")

    @property
    def all(self) -> tuple[Feature, ...]:
        """The features, those given by name alone with their defaults."""
        return tuple(Feature(name=one) if isinstance(one, str) else one for one in self.use)

    @property
    def values(self) -> int:
        """Number of values that they give for each channel."""
        return sum(feature.values for feature in self.all)


class Normalise(Table, frozen=True):
    """``[normalise]``: zscore ``(x - mean) / std`` or minmax ``(x - min) / (max - min)``.

    :ivar method: of the two, or ``none``.
    :ivar by: where the parameters come from: ``given`` below, or from each window itself, for each ``channel`` or
        ``whole``. What does not vary in a window then becomes 0.
    :ivar mean: one number, or one for each value that goes in: features in their order, or else channels.
    :ivar std: likewise.
    :ivar min: likewise.
    :ivar max: likewise.
    """

    method: Literal["none", "zscore", "minmax"] = "none"
    by: Literal["given", "channel", "whole"] = "given"
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    min: float | tuple[float, ...] | None = None
    max: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        wanted = {"none": (), "zscore": ("mean", "std"), "minmax": ("min", "max")}[self.method]
        if self.by != "given":
            if self.method == "none":
                raise ConfigError(f"normalise.by: {self.by!r} needs method 'zscore' or 'minmax'")
            wanted = ()
        for name in ("mean", "std", "min", "max"):
            if (getattr(self, name) is not None) != (name in wanted):
                verdict = "wanted" if name in wanted else "not known"
                by = "" if self.by == "given" else f" by {self.by!r}"
                raise ConfigError(f"normalise.{name}: {verdict} with method {self.method!r}{by}")


class Tensor(Table, frozen=True):
    """``[tensors.NAME]``: what one of several inputs is given, out of the same window.

    :ivar channels: which of ``input.channels``, in this order; default: all.
    :ivar features: as ``[features]``.
    :ivar normalise: as ``[normalise]``.
    :ivar layout: as ``input.layout``.
    """

    channels: tuple[str, ...] = ()
    features: Features | None = None
    normalise: Normalise = Normalise()
    layout: Layout | None = None
