"""The signal chain as a manifest states it: the same names in the author's TOML and in the signed CBOR.

Only what works is accepted here; a key that this release does not know is refused by its name.
"""

from edged.formats.spec.chain import Chain, HomeAssistant, fingerprint
from edged.formats.spec.decide import Decide, Needed, Publish, Smooth
from edged.formats.spec.features import FEATURES, Feature, Features, Normalise, Tensor
from edged.formats.spec.input import Gap, Image, Input, Join, Layout, Window
from edged.formats.spec.output import ModelTable, Output

__all__ = [
    "FEATURES",
    "Chain",
    "Decide",
    "Feature",
    "Features",
    "Gap",
    "HomeAssistant",
    "Image",
    "Input",
    "Join",
    "Layout",
    "ModelTable",
    "Needed",
    "Normalise",
    "Output",
    "Publish",
    "Smooth",
    "Tensor",
    "Window",
    "fingerprint",
]
