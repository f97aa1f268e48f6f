"""The only importer of TFLite and LiteRT."""

from edged.runtime.delegate import DelegateLibrary
from edged.runtime.engine import Engine, EngineChoice, EngineName, choose
from edged.runtime.interpreter import Interpreter
from edged.runtime.signature import Signature

__all__ = ["DelegateLibrary", "Engine", "EngineChoice", "EngineName", "Interpreter", "Signature", "choose"]
