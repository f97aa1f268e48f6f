"""A board that keeps the windows of the gearbox to train with, and what its federated client opens of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edged.board.installation import Board
from edged.board.pipeline import like
from edged.config.load import load_board
from edged.federated.nodes import NodeRecord, open_node_key
from support.commands import Done
from support.site import Site

EACH = 'format = "f32le"\neach = "window"\ntrial = { windows = 0 }\n'
COLLECT = '[model.collect]\nat_most_every = "1 us"\n'
OPERATOR = f'{EACH}{COLLECT}label = "operator"\n'


def prepared(site: Site, model: str, **options: Any) -> Site:
    site.configure(model, **options)
    site.init()
    site.install(site.pack())
    return site


def data(site: Site, *arguments: object, check: bool = True) -> Done:
    """Run one of the commands of `edged federate data`: they need nothing of that extra."""
    return site.edged("federate", "data", *arguments, "-c", "edged.toml", check=check)


def open_kept(config: Path, record: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, bytes, bytes]:
    """Return the windows of a board's first model, and its node key: what names it, and its scalar.

    It is called in a process of its own: a PKCS#11 module reads its configuration once in the life of each.

    :param record: the node record's file.
    :param shape: of what the model is fed.
    """
    board = Board(load_board(config))
    keystore, name = board.keystore(), board.config.model[0].name
    installed = board.packages.newest(name)
    assert installed is not None
    manifest = board.verify_installed(installed).manifest
    with closing(board.examples(keystore)) as examples:
        windows = examples.load(name, like(manifest, shape)).x
    node = open_node_key(board.directory / "federated" / "node.key", NodeRecord.read(record).device, keystore)
    return windows, node.public.thumbprint, node.scalar()


def features(windows: np.ndarray) -> np.ndarray:
    """Return what the gearbox model is fed, [n, 16]."""
    x = windows.astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    n = x.shape[1]
    second, fourth = (centred**2).mean(axis=1), (centred**4).mean(axis=1)
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * fourth / second**2 - 3 * (n - 1))
    return np.concatenate([np.abs(x).sum(axis=1), x.std(axis=1, ddof=1), x.max(axis=1), kurtosis], axis=1)


def send(site: Site, **options: Any) -> None:
    """Send the hundred windows of the gearbox."""
    source = site.models / "gearbox" / "golden.npz"
    more = [part for name, value in options.items() for part in (f"--{name}", value)]
    site.edged(
        "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", *more,
        "-t", site.topic, *site.connection(),
    )  # fmt: skip


def answer(site: Site, *, times: int = 1) -> list[dict[str, Any]]:
    """Send the windows, and return the results."""
    with site.listener(100 * times) as listener:
        listener.wait_connected()
        for number in range(times):
            listener.wait_printed(100 * number)  # equal readings are one as long as their result is on its way
            send(site)
        return listener.results()
