"""From a verified package to a model that answers: decrypted only into RAM, and believed only after its self-test."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from edged.cose.keys import Agreement
from edged.errors import SelfTestError
from edged.memory import SecretBuffer, trim
from edged.package.manifest import SelfTest
from edged.package.verify import VerifiedPackage
from edged.runtime import Engine, Interpreter
from edged.signal.chain import CompiledChain
from edged.signal.spec import Chain

Floats = npt.NDArray[np.float32]


class Model:
    """A signal chain around an interpreter: windows in, scores out.

    :ivar outputs: how many scores there are.
    :raises ModelError: the chain does not fit the model's tensors.
    """

    def __init__(self, chain: Chain, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self._chain = CompiledChain(chain, interpreter.input, interpreter.output)
        self.outputs = self._chain.outputs

    def scores(self, window: Floats) -> Floats:
        """Return the scores (float32 [k], after activation) for a window (float32 [size, channels])."""
        return self._chain.scores(self.interpreter.invoke(self._chain.prepare(window)))

    def self_test(self, test: SelfTest, shape: tuple[int, int]) -> None:
        """Answer the signed vectors.

        :param shape: rows and channels of a window.
        :raises SelfTestError: an answer lies further from the signed one than the tolerance.
        """
        for number, case in enumerate(test.cases, 1):
            window = np.frombuffer(case.window, "<f4").reshape(shape)
            expected = np.frombuffer(case.scores, "<f4")
            got = self.scores(window)
            error = float(np.max(np.abs(got - expected))) if got.shape == expected.shape else float("inf")
            if not error <= test.tolerance:
                raise SelfTestError(
                    f"self-test {number} of {len(test.cases)} is off by {error:.4g}, more than {test.tolerance:.4g}",
                    hint="this runtime answers unlike the publisher's: try another engine, or ask the publisher",
                )
        self.interpreter.reset()

    def close(self) -> None:
        """Let go of the interpreter and give its memory back."""
        self.interpreter.close()


class LiveModel(Model):
    """A model from a package, its weights in locked memory that is excluded from core dumps.

    :ivar identity: SHA-256 of the signed manifest.
    :ivar locked: whether the weights are held out of swap.
    """

    def __init__(self, package: VerifiedPackage, buffer: SecretBuffer, interpreter: Interpreter) -> None:
        super().__init__(package.manifest, interpreter)
        self.manifest = package.manifest
        self.identity = package.identity
        self.locked = buffer.locked
        self._buffer = buffer

    def close(self) -> None:
        """Let go of the interpreter, wipe the weights and give the memory back."""
        super().close()
        self._buffer.close()


def load(package: VerifiedPackage, agreement: Agreement, engine: Engine, threads: int) -> LiveModel:
    """Unwrap, decrypt into RAM, load and self-test a package. Whatever fails, the weights are wiped.

    :raises TrustError: as :meth:`VerifiedPackage.unwrap` and :meth:`UnwrappedPackage.decrypt_into`.
    :raises ModelError: the runtime refuses the model, it does not fit its manifest, or its self-test disagrees.
    """
    unwrapped = package.unwrap(agreement)
    with ExitStack() as undo:
        buffer = undo.enter_context(SecretBuffer(package.manifest.plaintext.size))
        unwrapped.decrypt_into(buffer.view)
        interpreter = Interpreter(engine, buffer.path, threads, on_mapped=buffer.seal_runtime_maps)
        undo.callback(interpreter.close)
        model = LiveModel(package, buffer, interpreter)
        manifest = package.manifest
        model.self_test(manifest.self_test, (manifest.window.size, len(manifest.input.channels)))
        undo.pop_all()
        trim()  # of this thread, which may end long before the model is closed in another
        return model
