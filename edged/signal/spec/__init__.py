"""The signal chain as a manifest states it: the same names in the author's TOML and in the signed CBOR.

Only what works is accepted here; a key that this release does not know is refused by its name.
"""

from edged.signal.spec.chain import Chain, HomeAssistant
from edged.signal.spec.decide import Decide, Needed, Publish, Smooth
from edged.signal.spec.features import FEATURE_NAMES, Feature, Features, Normalise
from edged.signal.spec.input import Gap, Image, Input, Join
from edged.signal.spec.model import ModelTable, Tensor
from edged.signal.spec.output import Output
from edged.signal.spec.window import Window

__all__ = [
    "FEATURE_NAMES",
    "Chain",
    "Decide",
    "Feature",
    "Features",
    "Gap",
    "HomeAssistant",
    "Image",
    "Input",
    "Join",
    "ModelTable",
    "Needed",
    "Normalise",
    "Output",
    "Publish",
    "Smooth",
    "Tensor",
    "Window",
]
