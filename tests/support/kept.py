"""What a board's federated client opens: for a process of its own.

A PKCS#11 module reads its configuration once in the life of a process, and the test's own process has other tests.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from edged.board import Board, mapped
from edged.config.load import load_board
from edged.federated.nodes import NodeRecord, open_node_key
from edged.pipeline import like


def open_kept(config: Path, record: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, bytes, bytes]:
    """Return the windows of a board's first model, and its node key: what names it, and its scalar.

    :param record: the node record's file.
    :param shape: of what the model is fed.
    """
    board = Board(load_board(config))
    keystore, name = board.keystore(), board.config.model[0].name
    installed = board.packages.newest(name)
    assert installed is not None
    manifest = board.verify(mapped(installed.path), installed.path).manifest
    with closing(board.examples(keystore)) as examples:
        windows = examples.load(name, like(manifest, shape)).x
    node = open_node_key(board.directory / "federated" / "node.key", NodeRecord.read(record).device, keystore)
    return windows, node.public.thumbprint, node.scalar()
