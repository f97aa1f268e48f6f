"""Boards that learn together, set up by the collection: node keys, the aggregator, and nginx between them, on real hosts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.ansible import Operator, ansible_bin
from support.hosts import Fleet, host_root
from support.waiting import wait_until

PORT = 8443
NGINX = "usr/sbin/nginx"

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.story,
    pytest.mark.skipif(os.environ.get("EDGED_HOSTS") == "2", reason="eight playbooks take minutes: `make hosts`"),
]


class Federation(Operator):
    """A fleet whose boards learn together, led from the host that has hub and broker."""

    def __init__(self, path: Path, fleet: Fleet, package: Path, federated: Path) -> None:
        super().__init__(path, fleet, package)
        shutil.copy(federated, path / "packages")
        authority = trustme.CA()
        certificate = authority.issue_cert(self.home.address)
        authority.cert_pem.write_to_path(path / "fleet-ca.crt")
        certificate.private_key_pem.write_to_path(path / "aggregator.key")
        certificate.cert_chain_pems[0].write_to_path(path / "aggregator.crt")
        self.run("ansible-vault", "encrypt", str(path / "aggregator.key"))
        with (self.inventory / "hosts.ini").open("a") as inventory:
            inventory.write(f"[aggregators]\n{self.home.name}\n")
        self._write_variables(
            self.inventory / "group_vars" / "aggregators.yml",
            edged_aggregator_server_name=self.home.address,
            edged_aggregator_certificate_file=f"{path}/aggregator.crt",
            edged_aggregator_key_file=f"{path}/aggregator.key",
        )
        self._write_variables(
            self.inventory / "group_vars" / "boards.yml",
            edged_host_config={"federated": {"aggregator": f"{self.home.address}:{PORT}", "models": ["gearbox"]}},
            edged_federated_ca_file=f"{path}/fleet-ca.crt",
        )

    def nodes(self) -> dict[str, Any]:
        """Return what the aggregator says of its boards."""
        said = self.home.run("runuser", "-u", "edged-aggregator", "--", "edged", "aggregator", "status", "--json")
        return json.loads(said.stdout)["boards"]  # type: ignore[no-any-return]

    def asked(self) -> str:
        """Return what the proxy was asked for."""
        return (self.home.root / "var/log/nginx/access.log").read_text()


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, package: Path, federated_package: Path, models: Path
) -> Iterator[Federation]:
    """A fleet that serves, and does not learn yet; the tests below go on from there in their order."""
    if ansible_bin() is None:
        pytest.skip("no Ansible: `make hosts` installs it")
    root = host_root()
    if root is None or not (root / NGINX).exists():
        pytest.skip("the root file system for hosts has no nginx: `make hosts` makes it anew")
    with Fleet(2, name=f"l{os.getpid()}n", net="10.80.0") as fleet:
        path = tmp_path_factory.mktemp("federation") / "fleet"
        federation = Federation(path, fleet, package, federated_package)
        for playbook in ("enrol", "site"):
            federation.play(playbook)
        gearbox = models / "gearbox"
        vectors = path / "vectors-1.npz"
        federation.record_self_test(gearbox / "dnn.tflite", gearbox / "golden.npz", vectors)
        first = federation.pack(gearbox / "dnn.tflite", 1, vectors)
        federation.play("rollout", edged_rollout_package=str(first))
        yield federation


def test_what_is_missing_is_said_before_anything_is_changed(federation: Federation) -> None:
    home, (board, *_) = federation.home.name, federation.boards
    played = federation.play("federate", check=False, edged_aggregator_key_file="/nowhere")
    assert played.failed == {home}
    assert "edged_aggregator_key_file is not set, or no file" in played.output
    played = federation.play("federate", check=False, edged_federated_ca_file="")
    assert played.failed == {board.name}
    assert "edged_federated_ca_file is not set" in played.output
    assert set(played.changed.values()) == {0}


def test_boards_come_to_their_aggregator_through_the_proxy(federation: Federation) -> None:
    played = federation.play("federate")
    print(f"\nfederate: a board and an aggregator in {played.seconds:.0f} s")
    for board in federation.boards:
        wait_until(lambda name=board.name: federation.nodes()[name]["state"] == "online")
        assert (federation.records / f"{board.name}.node").exists()
    assert f"{federation.boards[0].address} - - " in federation.asked()
    assert '"POST /v1/fleet/pull-messages HTTP/1.1" 200' in federation.asked()
    listening = federation.home.run("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout
    assert "127.0.0.1:9092" in listening
    assert listening.count(":9092") == 1, "nobody reaches the SuperLink but by the proxy"


def test_a_second_run_changes_nothing(federation: Federation) -> None:
    for playbook in ("federate", "site"):
        played = federation.play(playbook, "--diff")
        assert set(played.changed.values()) == {0}, played.output


def test_private_keys_stay_where_they_were_made(federation: Federation) -> None:
    stays = [federation.home.root / "var/lib/edged-aggregator" / name for name in ("keys", "tls")]
    stays += [board.root / "var/lib/edged/federated" for board in federation.boards]
    keys = [path.read_bytes() for top in stays for path in top.rglob("*key*") if path.is_file()]
    assert len(keys) >= 1 + len(federation.boards)
    here = [path.read_bytes() for path in federation.path.rglob("*") if path.is_file()]
    assert not any(key in other for key in keys for other in here)


def test_a_version_of_edged_takes_both_packages_along(federation: Federation) -> None:
    """Each stands on the other's version: apt would take neither alone."""
    board = federation.boards[0]
    federation.play("rollout", edged_version=federation.repackage("7.0.0-1"))
    shown = board.run("dpkg-query", "--show", "edged", "edged-federated").stdout.split()
    assert shown == ["edged", "7.0.0-1~deb12", "edged-federated", "7.0.0-1~deb12"]
    assert board.run("dpkg", "--audit").stdout == ""
    wait_until(lambda: federation.nodes()[board.name]["state"] == "online")


def test_a_board_that_was_revoked_is_cut_off(federation: Federation) -> None:
    lost = federation.boards[0].name
    federation.play("revoke", edged_revoke=lost)
    assert lost not in federation.nodes()
    played = federation.play("federate", check=False)
    assert "the board was revoked" in played.output
    assert lost not in federation.nodes()


def test_a_board_that_is_given_away_keeps_nothing_of_it(federation: Federation) -> None:
    board = federation.boards[0]
    federation.play("decommission", edged_decommission=board.name)
    for path in (
        "var/lib/edged",
        "usr/lib/edged-federated",
        "etc/edged",
        "etc/systemd/system/edged-federated.service.d",
    ):
        assert not (board.root / path).exists(), path
