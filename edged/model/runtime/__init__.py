"""The only importer of TFLite and LiteRT."""

from edged.model.runtime.delegate import DelegateLibrary
from edged.model.runtime.engine import Engine, EngineChoice, EngineName, choose
from edged.model.runtime.interpreter import Interpreter
from edged.model.runtime.signature import Signature

__all__ = ["DelegateLibrary", "Engine", "EngineChoice", "EngineName", "Interpreter", "Signature", "choose"]
