"""The process whose memory `load_peak.py` watches: imports everything, waits to be told, loads one model, waits again.

`load_child.py edged ENGINE DIRECTORY` loads as the daemon does, from the board's installed package;
`load_child.py 'by hand' ENGINE DIRECTORY` reads, decrypts and hands the bytes over as model_content=.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.board.installation import Board
from edged.board.state import State
from edged.config.load import load_board
from edged.model.runtime import Engine, choose

_NONCE = 12


def main() -> None:
    """Load at the first line of standard input, and leave at the next."""
    how, name, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    engine = choose(name)  # type: ignore[arg-type]  # the caller gives one of its names
    load = {"edged": _load_as_edged, "by hand": _load_by_hand}[how]
    _say("ready")
    model = load(engine, directory)
    _say("loaded")
    del model


def _say(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


def _load_as_edged(engine: Engine, directory: Path) -> object:
    board = Board(load_board(directory / "edged.toml"))
    (installed,) = board.packages.all()
    return board.load(installed, board.keystore(), State(board.directory), engine)


def _load_by_hand(engine: Engine, directory: Path) -> object:
    sealed = (directory / "by-hand.bin").read_bytes()
    key = AESGCM((directory / "by-hand.key").read_bytes())
    interpreter = engine.module.Interpreter(
        model_content=key.decrypt(sealed[:_NONCE], sealed[_NONCE:], None), num_threads=1
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter


if __name__ == "__main__":
    main()
