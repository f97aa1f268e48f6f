"""The only importer of TFLite and LiteRT."""

from edged.runtime.delegate import DelegateLibrary
from edged.runtime.engine import Engine, EngineChoice, EngineName, choose
from edged.runtime.interpreter import Interpreter

__all__ = ["DelegateLibrary", "Engine", "EngineChoice", "EngineName", "Interpreter", "choose"]
