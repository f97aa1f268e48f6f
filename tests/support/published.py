"""What boards learned, through the publisher's hands and back onto a board, asked over MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support import vibration
from support.site import Site


def enrol(site: Site, engine: str = "auto") -> None:
    """Make a board for the vibration model."""
    site.configure('format = "cbor"\neach = "window"', name="vibration", engine=engine)
    site.init()


def lay_out(site: Site) -> list[str]:
    """Put a publisher's files there, and return how the model is packed for the board."""
    for path in (vibration.WEIGHTS, vibration.MANIFEST, vibration.SELF_TEST, vibration.FOLDER / "README.md"):
        (site.path / path.name).write_bytes(path.read_bytes())
    return ["pack", "vibration.tflite", "--manifest", "vibration.toml", "--sign", "acme.key", "--to", "board.enrol"]


def install_learned(site: Site, learned: Path, aggregator: Path) -> str:
    """Pack what boards learned as version 2, and install it; return what packing said."""
    learned_options = ("--learned", learned, "--aggregator", aggregator, "--version", 2)
    packed = site.edged(*lay_out(site), *learned_options).stdout
    site.install(site.path / "vibration-2.edged")
    return str(packed)


def answers(site: Site, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return the results that the board's daemon publishes for windows (float32 [n, rows, channels])."""
    np.savez(site.path / "vibration-test.npz", x=rows)
    with site.daemon() as daemon, site.listener(len(rows)) as listener:
        listener.wait_connected()
        send = ("vibration-test.npz", "--array", "x", "--each", "window", "--format", "cbor")
        site.edged("send", *send, "-t", site.topic, *site.connection())
        results: list[dict[str, Any]] = listener.results()
        assert daemon.stop() == 0
    return results
