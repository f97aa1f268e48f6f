"""A runtime's refusal of a model, in plain words: the operators that it lacks, and how to convert it without them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edged.base.errors import ModelError

_FLEX = "Flex"
"""Custom operators of this prefix are TensorFlow's own, which a delegate of 100 MB or more would bring."""
_EDGE_TPU = "edgetpu-custom-op"
_BROUGHT_ALONG = frozenset({"TFLite_Detection_PostProcess"})
"""Custom operators that both runtimes have."""
_BUILTINS = "converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]"


def explain(subject: str, sentence: str, custom: Sequence[str]) -> ModelError:
    """Return the error for a model that a runtime refuses.

    :param subject: the model, for people.
    :param sentence: the runtime's own words.
    :param custom: names of the model's custom operators.
    """
    missing = [name for name in dict.fromkeys(custom) if name not in _BROUGHT_ALONG]
    if _EDGE_TPU in missing:
        return ModelError(
            f"{subject} is compiled for the Edge TPU and runs nowhere else",
            hint=f"its operator is {_EDGE_TPU!r}: take the .tflite that edgetpu_compiler was given",
        )
    if missing and ("custom op" in sentence or "Select TensorFlow op" in sentence):
        operators = f"operator{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}"
        if any(name.startswith(_FLEX) for name in missing):
            return ModelError(
                f"{subject} needs the TensorFlow {operators}, which the runtime lacks",
                hint=f"convert it with {_BUILTINS}, without SELECT_TF_OPS: then it names the layers to replace",
            )
        return ModelError(
            f"{subject} needs the custom {operators}, which the runtime lacks",
            hint="convert it with converter.allow_custom_ops = False: the converter then names the layers to replace",
        )
    if newer := re.search(r"builtin opcode '(\w+)' version '(\d+)'|builtin_code out of range: (\d+)", sentence):
        what = f"operator {newer[1]} in version {newer[2]}" if newer[1] else f"operator number {newer[3]}"
        return ModelError(
            f"{subject} needs {what}, which is newer than the runtime",
            hint="convert it with an older TensorFlow, or use a newer runtime: see what `edged inspect` says it needs",
        )
    return ModelError(f"the runtime refuses {subject}: {sentence}")
