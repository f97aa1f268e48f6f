"""What a board learns with: the package that it runs, decrypted into RAM once more, and the windows that it kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from edged.base.errors import MissingFileError
from edged.board.installation import Board
from edged.board.state import Like, State
from edged.federated.trainer import Trainer
from edged.federated.work import Material, Open
from edged.formats.spec import fingerprint
from edged.keystore import Keystore

_LOG = logging.getLogger(__name__)


def opener(board: Board, keystore: Keystore) -> Open:
    """Return what opens a board's models with its windows, for as long as a round needs them."""

    @contextmanager
    def open_material(model: str) -> Iterator[Material]:
        with closing(State(board.directory)) as state:
            installed = board.in_use(model, state)
            if installed is None:
                raise MissingFileError(f"no package of model {model!r} can be used", hint="`edged models` lists them")
            engine = board.engine()
            with closing(board.load(installed, keystore, state, engine)) as live:
                trainer = Trainer(live.interpreter, engine)
                labels = live.manifest.output.labels
                like = Like(fingerprint(live.manifest), trainer.inputs, len(labels))
                with closing(board.examples(keystore)) as examples:
                    loaded = examples.load(model, like)
                for why, count in loaded.left_out.items():
                    _LOG.info("%s: %d windows are left out: %s", model, count, why)
                yield Material(trainer, loaded.x, loaded.y)

    return open_material
