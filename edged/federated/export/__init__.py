"""Turns a Keras model into a .tflite that boards can train, with builtin operators only. Needs TensorFlow.

from edged.federated.export import export

Path("model.tflite").write_bytes(export(model, loss="cross_entropy", batch=16))
"""

from edged.federated.export.build import export
from edged.federated.export.losses import LOSSES

__all__ = ["LOSSES", "export"]
