"""A model's training signatures in RAM: weights in, gradients out, nothing remembered but the weights.

What the signatures are is written in docs/training.md. Optimiser, clipping bounds, noise and rounds are not in the
model: they stand in :mod:`edged.federated.fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError
from edged.base.memory import SecretBuffer
from edged.federated.weights import Shape, Weights, check
from edged.model.runtime import Engine, Interpreter, Runner, Signature
from edged.model.signal.tensor import TensorInfo

Floats = npt.NDArray[np.float32]

INFER = "infer"
"""The signature that answers windows; a manifest names it as ``model.signature``."""

_MOST_WEIGHTS = 1024
_HINT = "docs/training.md says what a model that boards train has; edged.federated.export makes one"


def _with_signatures(runner: Runner) -> Interpreter:
    if not isinstance(runner, Interpreter):
        raise ModelError("this engine has no signatures, and training calls them", hint="runtime.engine = 'litert'")
    return runner


class Trainer:
    """A model that can be trained.

    :param source: the model: an interpreter of it that nobody else uses, its bytes, or its file. Its bytes are kept in
        memory that is wiped, its file is mapped.
    :ivar batch: examples of one call of :meth:`gradients` and :meth:`clipped`.
    :ivar inputs: shape of one example.
    :ivar outputs: shape of what is wanted of it.
    :ivar shapes: of the weights.
    :raises ModelError: the runtime refuses the model, or a signature is absent or does not fit the others.
    """

    def __init__(self, source: Runner | bytes | Path | str, engine: Engine) -> None:
        self._buffer: SecretBuffer | None = None
        if isinstance(source, bytes):
            self._buffer = SecretBuffer(len(source))
            self._buffer.view[:] = source
            source = self._buffer.path
        try:
            self._interpreter = _with_signatures(engine.open(str(source)) if isinstance(source, str | Path) else source)
            self._find()
        except ModelError:
            self._close_buffer()
            raise

    def _find(self) -> None:
        """Fetch all signatures and check them against one another."""
        self._infer = self._signature(INFER, ["x"], ["y"])
        self._get = self._interpreter.signature("get_weights")
        names = [f"w{place}" for place in range(len(self._get.outputs))]
        if not 0 < len(names) <= _MOST_WEIGHTS:
            raise ModelError(f"signature 'get_weights' gives {len(names)} weights", hint=_HINT)
        self._get = self._signature("get_weights", [], names)
        self.shapes: list[Shape] = [self._get.outputs[name].shape for name in names]
        sums = [f"g{place}" for place in range(len(names))]
        self._set = self._signature("set_weights", names, None)
        self._grads = self._signature("grads", ["x", "y", "mask"], [*sums, "loss"])
        self._clipped = self._signature("grads_clipped", ["x", "y", "mask", "clip"], [*sums, "norms", "loss"])

        x, y = self._grads.inputs["x"].shape, self._grads.inputs["y"].shape
        self.batch, self.inputs, self.outputs = x[0] if x else 0, x[1:], y[1:]
        self._wanted(self._infer, self._infer.inputs, x=(1, *self.inputs))
        weights = dict(zip(names, self.shapes, strict=True))
        gradients = dict(zip(sums, self.shapes, strict=True))
        self._wanted(self._set, self._set.inputs, **weights)
        one = {"x": x, "y": (self.batch, *self.outputs), "mask": (self.batch,)}
        self._wanted(self._grads, self._grads.inputs, **one)
        self._wanted(self._grads, self._grads.outputs, **gradients, loss=())
        self._wanted(self._clipped, self._clipped.inputs, **one, clip=())
        self._wanted(self._clipped, self._clipped.outputs, **gradients, norms=(self.batch,), loss=())

    def _signature(self, key: str, inputs: list[str], outputs: list[str] | None) -> Signature:
        """Return a signature that has these inputs and outputs and no others; None: whatever outputs it has."""
        found = self._interpreter.signature(key)
        for side, names, has in (("inputs", inputs, found.inputs), ("outputs", outputs, found.outputs)):
            if names is not None and set(names) != set(has):
                told = f"signature {key!r}: its {side} are {', '.join(has) or 'none'}, not {', '.join(names) or 'none'}"
                # TensorFlow names the first parameter of a bound method so.
                raise ModelError(told, hint="sign plain functions, not methods" if "self" in has else _HINT)
        return found

    @staticmethod
    def _wanted(signature: Signature, tensors: Mapping[str, TensorInfo], **shapes: Shape) -> None:
        for name, shape in shapes.items():
            tensor = tensors[name]
            if tensor.extents != shape or tensor.dtype != np.float32 or 0 in shape:
                has = f"{tensor.dtype} {list(tensor.extents)}"
                raise ModelError(f"signature {signature.key!r}: {name} is {has}, not float32 {list(shape)}", hint=_HINT)

    def weights(self) -> Weights:
        """Return a copy of the weights that it has now."""
        found = self._get()
        return [found[f"w{place}"].astype(np.float32) for place in range(len(self.shapes))]

    def use(self, weights: Weights) -> None:
        """Take these weights.

        :raises FormatError: they have other shapes, or values that are not finite.
        """
        check(weights, self.shapes)
        self._set(**{f"w{place}": np.ascontiguousarray(each) for place, each in enumerate(weights)})

    def infer(self, x: Floats) -> Floats:
        """Return what the model answers to each of ``x`` [n, *inputs], as [n, k]."""
        answers = [self._infer(x=np.ascontiguousarray(one[None]))["y"].reshape(-1) for one in x]
        return np.stack(answers).astype(np.float32) if answers else np.empty((0, 0), np.float32)

    def gradients(self, x: Floats, y: Floats, mask: Floats) -> tuple[Weights, float]:
        """Return the sum of the gradients of the examples whose mask is 1, and the sum of their losses.

        :param x: [batch, *inputs]
        :param y: [batch, *outputs]
        :param mask: [batch] of 1 and 0
        """
        found = self._grads(x=x, y=y, mask=mask)
        return self._sums(found), float(found["loss"])

    def clipped(self, x: Floats, y: Floats, mask: Floats, clip: float) -> tuple[Weights, Floats, float]:
        """Return the sum of gradients that were each scaled down to a norm of ``clip``, their norms before, and losses.

        An example whose gradient is not finite or beyond all reason counts as zero, and its norm as the largest float.

        :raises ModelError: the clip is not above zero.
        """
        if not 0 < clip < math.inf:
            raise ModelError(f"gradients are clipped to a norm above 0, not to {clip:g}")
        found = self._clipped(x=x, y=y, mask=mask, clip=np.float32(clip).reshape(()))
        return self._sums(found), found["norms"].astype(np.float32), float(found["loss"])

    def _sums(self, found: Mapping[str, npt.NDArray[np.generic]]) -> Weights:
        return [found[f"g{place}"].astype(np.float32) for place in range(len(self.shapes))]

    def close(self) -> None:
        """Close the model."""
        self._interpreter.close()
        del self._infer, self._get, self._set, self._grads, self._clipped
        self._close_buffer()

    def _close_buffer(self) -> None:
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None
