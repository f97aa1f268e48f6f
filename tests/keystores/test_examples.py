"""Windows that a board keeps, with its keys on a token or in a TPM."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from edged.federated.nodes import NodeRecord
from support.kept import OPERATOR, answer, data, features, open_kept, prepared
from support.site import Site
from support.tokens import Keys

FEDERATED = """
[federated]
aggregator = "fleet.example:8443"
record = "fleet.pub"
ca = "ca.pem"
models = ["gearbox"]
"""


def test_windows_and_node_key_are_sealed_to_keys_that_are_elsewhere(
    site: Site, models: Path, keys: Keys, uri: str
) -> None:
    """On a token or in a TPM: no private key of the board's stands in a file, and what it keeps opens all the same."""
    prepared(site, OPERATOR, extra=keys.table(uri) + FEDERATED)
    with site.daemon() as daemon:
        answer(site)
        assert daemon.stop() == 0
    data(site, "label", "--model", "gearbox", "--from", "1h", "healthy")

    made, again = (site.edged("federate", "init", "-c", "edged.toml", "-o", f"{name}.node") for name in ("a", "b"))
    assert made.stdout.splitlines()[:2] == again.stdout.splitlines()[:2]
    records = [NodeRecord.read(site.path / f"{name}.node") for name in ("a", "b")]
    assert records[0] == records[1], "the key that was made is opened, and vouched for once more"
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        opened = elsewhere.submit(open_kept, site.path / "edged.toml", site.path / "a.node", (16,))
        windows, node, scalar = opened.result(60)
    with np.load(models / "gearbox" / "golden.npz") as golden:
        assert windows == pytest.approx(features(golden["raw_windows"]), rel=1e-5)
    assert node == records[0].node.thumbprint
    assert [path.name for path in site.state.rglob("*.key")] == ["node.key"]
    assert not any(scalar in path.read_bytes() for path in site.state.rglob("*") if path.is_file())
