"""The only importer of TFLite and LiteRT."""

from edged.runtime.engine import Engine, EngineChoice, EngineName, choose
from edged.runtime.interpreter import Interpreter

__all__ = ["Engine", "EngineChoice", "EngineName", "Interpreter", "choose"]
