"""The only importer of TFLite and LiteRT."""

from edged.model.runtime.engine import DelegateLibrary, Engine, EngineChoice, EngineName, choose
from edged.model.runtime.interpreter import Interpreter, Signature

__all__ = ["DelegateLibrary", "Engine", "EngineChoice", "EngineName", "Interpreter", "Signature", "choose"]
