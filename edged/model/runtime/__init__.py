"""The engines that run models. The only importer of TFLite and LiteRT."""

from edged.model.runtime.engine import DelegateLibrary, Engine, Runner
from edged.model.runtime.engines import choose, installed
from edged.model.runtime.interpreter import Interpreter, Signature

__all__ = ["DelegateLibrary", "Engine", "Interpreter", "Runner", "Signature", "choose", "installed"]
