"""Features: each turns a window into one value a channel, or several.

One function with :func:`~edged.model.signal.features.block.feature` above it, and its name and parameters in
:mod:`edged.formats.spec.features`, add one. Its docstring is its definition, and stands in docs/manifest.md.
"""

from edged.model.signal.features import amplitude, deviation, shape, spectrum  # noqa: F401  they fill the registry
from edged.model.signal.features.block import REGISTRY
from edged.model.signal.features.extract import Extractor

__all__ = ["REGISTRY", "Extractor"]
