"""A fleet from its first key to its last: two boards, and one host with hub and broker, run with real Ansible."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from support.ansible import Operator, ansible_bin
from support.hosts import Fleet

OVERFLOWS = '\n[normalise]\nmethod = "zscore"\nmean = 0.0\nstd = 1e-44\n'
"""Finite for a window of zeros, which its self-test holds, and for no other."""

HOSTS = int(os.environ.get("EDGED_HOSTS", "3"))
"""The short form has two: a board, and one for hub and broker."""

pytestmark = [pytest.mark.timeout(1800), pytest.mark.story]
in_waves = pytest.mark.skipif(HOSTS < 3, reason="waves need two boards: EDGED_HOSTS=3")


@pytest.fixture(scope="module")
def gearbox(models: Path) -> Path:
    return models / "gearbox"


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, package: Path, gearbox: Path) -> Iterator[Operator]:
    """A fleet that serves version 1; the tests below go through its life in their order."""
    if ansible_bin() is None:
        pytest.skip("no Ansible: `make hosts` installs it")
    with Fleet(HOSTS, name=f"f{os.getpid()}n", net="10.78.0") as fleet:  # two runs at once have namespaces of their own
        operator = Operator(tmp_path_factory.mktemp("fleet") / "fleet", fleet, package)
        dry = operator.play("enrol", "--check")
        assert "edged would be installed and configured" in dry.output
        assert not (operator.boards[0].root / "usr/bin/edged").exists()
        for playbook in ("enrol", "site"):
            print(f"\n{playbook}: {HOSTS} hosts in {operator.play(playbook).seconds:.0f} s")
        played = operator.play("rollout", edged_rollout_package=str(good(operator, gearbox, 1)))
        print(f"rollout of version 1, {operator.soak} s of soak each: {played.seconds:.0f} s")
        yield operator


def good(operator: Operator, gearbox: Path, version: int) -> Path:
    vectors = operator.path / "good.npz"
    if not vectors.exists():
        operator.record_self_test(gearbox / "dnn.tflite", gearbox / "golden.npz", vectors)
    return operator.pack(gearbox / "dnn.tflite", version, vectors)


def test_results_arrive_decrypted(operator: Operator, gearbox: Path) -> None:
    with operator.readings(gearbox / "golden.npz", operator.boards):
        for board in operator.boards:
            operator.wait_opened(board, 20)
    assert {one["state"] for one in operator.believed().values()} == {"online"}


def test_a_second_run_changes_nothing_and_shows_no_secret(operator: Operator) -> None:
    played = operator.play("site", "--diff", "-vvv")
    assert set(played.changed.values()) == {0}, played.output
    board = operator.boards[0]
    folders = ("etc/edged", "etc/systemd/system", "var/lib/edged")
    stored = [path.read_bytes() for top in folders for path in (board.root / top).rglob("*") if path.is_file()]
    for secret in (*operator.secrets, operator.broker_password(board)):
        assert secret not in played.output
        assert not any(secret.encode() in one for one in stored)


def test_check_and_diff_of_what_is_there_show_nothing(operator: Operator) -> None:
    played = operator.play("site", "--check", "--diff")
    assert set(played.changed.values()) == {0}, played.output
    assert "+++" not in played.output


def test_a_misspelt_configuration_key_is_refused_and_what_is_in_use_stays(operator: Operator) -> None:
    """In seconds: nothing waits for what will not come."""
    first = operator.boards[0]
    config = first.root / "etc/edged/edged.toml"
    before = config.read_text()
    model = operator.model()
    operator.write_host_variables(first, edged_host_config={"model": [{**model, "topik": model.pop("topic")}]})
    played = operator.play("site", "--limit", first.name, check=False)
    operator.write_host_variables(first)
    assert played.failed == {first.name}
    assert "model[0].topik: unknown key" in played.output
    assert "did you mean `topic`?" in played.output
    assert played.seconds < 120
    assert config.read_text() == before
    assert operator.status(first)["running"]


def test_private_keys_stay_on_their_board(operator: Operator) -> None:
    keys = [path.read_bytes() for board in operator.boards for path in (board.root / "var/lib/edged").rglob("keys/*")]
    assert keys
    here = [path.read_bytes() for path in operator.path.rglob("*") if path.is_file()]
    assert not any(key in other for key in keys for other in here)


def test_a_drift_is_shown_by_check_and_mended_by_a_run(operator: Operator) -> None:
    config = operator.boards[0].root / "etc/edged/edged.toml"
    before = config.read_text()
    config.write_text(before.replace('format = "f32le"', 'format = "json"'))
    checked = operator.play("site", "--check", "--diff", "--limit", operator.boards[0].name)
    assert '-format = "json"' in checked.output
    assert '+format = "f32le"' in checked.output
    assert config.read_text() != before
    mended = operator.play("site", "--limit", operator.boards[0].name)
    assert mended.changed[operator.boards[0].name] == 2  # the file, and the reload
    assert config.read_text() == before


@in_waves
def test_a_good_version_goes_out_in_waves(operator: Operator, gearbox: Path) -> None:
    with operator.readings(gearbox / "golden.npz", operator.boards):
        played = operator.play("rollout", edged_rollout_package=str(good(operator, gearbox, 2)))
    assert played.output.count("PLAY [Roll out in waves]") == 2
    assert [operator.status(board)["models"][0]["good"] for board in operator.boards] == [2, 2]
    print(f"\nrollout of a good version in two waves, {operator.soak} s of soak each: {played.seconds:.0f} s")


@in_waves
def test_a_version_that_fails_in_its_trial_is_taken_back_after_the_first_wave(
    operator: Operator, gearbox: Path
) -> None:
    np.savez(operator.path / "zeros.npz", windows=np.zeros((1, 300, 4), "f"), scores=np.zeros((1, 2), "f"))
    package = operator.pack(gearbox / "dnn.tflite", 3, operator.path / "zeros.npz", tolerance=1.0, more=OVERFLOWS)
    with operator.readings(gearbox / "golden.npz", operator.boards):
        played = operator.play("rollout", edged_rollout_package=str(package), check=False)
    check_only_the_first_wave_had(operator, 3, back_to=2)
    first = operator.boards[0].name
    assert played.failed == {first}
    assert f"{first}: gearbox 3 failed: " in played.output
    print(f"\nrollout of a version that fails in its trial, stopped and taken back: {played.seconds:.0f} s")


@in_waves
def test_a_version_whose_self_test_fails_on_one_board_goes_no_further(operator: Operator, gearbox: Path) -> None:
    """The publisher tried it on LiteRT; of one window tflite-runtime's answer is another, and one board is set to that."""
    weights, first = gearbox / "dnn_int8quantized.tflite", operator.boards[0]
    operator.write_host_variables(first, edged_host_config={"runtime": {"engine": "tflite"}})
    operator.play("site", "--limit", first.name)
    vectors = operator.path / "int8.npz"
    operator.record_self_test(weights, gearbox / "golden.npz", vectors, only=4)
    package = operator.pack(weights, 4, vectors, tolerance=0.001)
    played = operator.play("rollout", edged_rollout_package=str(package), check=False)
    check_only_the_first_wave_had(operator, 3, back_to=2)  # of the test before
    assert f"{first.name}: edged: error: " in played.output
    assert "self-test" in played.output
    print(f"\nrollout of a version whose self-test fails, stopped: {played.seconds:.0f} s")
    other = operator.boards[1].name  # where nothing is wrong with it
    operator.play("rollout", "--limit", other, edged_rollout_package=str(package))
    assert operator.status(operator.boards[1])["models"][0]["serving"] == 4


def check_only_the_first_wave_had(operator: Operator, rejected: int, *, back_to: int) -> None:
    """Check that the second board never had a version, that the first serves the one before, and what it remembers."""
    first, second = [one["models"][0] for one in map(operator.status, operator.boards)]
    assert (first["serving"], second["serving"]) == (back_to, back_to)
    assert [one["version"] for one in first["rejected"]] == [rejected]
    assert (second["newest"], second["rejected"]) == (back_to, [])
    audit = json.loads(operator.boards[1].run("edged", "audit", "--json", "-n", "1000").stdout)
    assert all(entry.get("version", 0) <= back_to for entry in audit if entry["kind"] in {"install", "swap"})


@in_waves
def test_status_is_a_table_of_all_boards(operator: Operator) -> None:
    first, second = operator.boards
    served = operator.status(first)["models"][0]["serving"]
    second.kill()
    try:
        said = operator.play("status", check=False).output.partition("PLAY RECAP")[0]
    finally:
        second.start()
    assert re.search(rf'"{first.name} +{re.escape(operator.version)}~deb\d+ +well +gearbox {served}\b', said), said
    assert re.search(rf'"{second.name} +- +cannot be reached', said), said


def test_channel_keys_change_with_a_new_epoch(operator: Operator, gearbox: Path) -> None:
    operator.play("rotate", edged_rotate="channel")
    with operator.readings(gearbox / "golden.npz", operator.boards):
        for board in operator.boards:
            operator.wait_opened(board, operator.opened(board) + 20)


def test_a_hubs_keys_change_while_boards_seal_to_both(operator: Operator, gearbox: Path) -> None:
    name, before = operator.home.name, (operator.records / "hubs" / f"{operator.home.name}.pub").read_bytes()
    for step in ("begin", "finish"):
        operator.play("rotate", edged_rotate="hub", edged_rotate_name=name, edged_rotate_step=step)
        with operator.readings(gearbox / "golden.npz", operator.boards):
            for board in operator.boards:
                operator.wait_opened(board, operator.opened(board) + 20)
    assert (operator.records / "hubs" / f"{name}.pub").read_bytes() != before
    assert [path.name for path in (operator.boards[0].root / "etc/edged/hubs").iterdir()] == [f"{name}.pub"]


def test_a_publishers_key_changes_once_nothing_needs_the_old_one(operator: Operator, gearbox: Path) -> None:
    operator.edged("keygen", "publisher", "--id", "acme-next", "--no-passphrase", "-o", operator.path)
    shutil.copy(operator.path / "acme-next.pub", operator.path / "publishers")
    rotate = {"edged_rotate": "publisher", "edged_rotate_name": "acme"}
    operator.play("rotate", edged_rotate_step="begin", **rotate)
    early = operator.play("rotate", edged_rotate_step="finish", check=False, **rotate)
    assert "still needs the old key of acme: model gearbox" in early.output
    package = operator.pack(gearbox / "dnn.tflite", 7, operator.path / "good.npz", key="acme-next.key")
    operator.play("rollout", edged_rollout_package=str(package))
    operator.play("rotate", edged_rotate_step="finish", **rotate)
    for board in operator.boards:
        assert [path.name for path in (board.root / "etc/edged/publishers").iterdir()] == ["acme.pub"]
        assert operator.status(board)["models"][0]["serving"] == 7
    shutil.copy(operator.path / "acme-next.key", operator.path / "acme.key")


def test_a_sensors_next_key_is_taken_beside_the_old_one_until_that_goes(operator: Operator) -> None:
    first = operator.boards[0]
    key, config = operator.path / "sensors" / first.name / "pump.key", first.root / "etc/edged/edged.toml"
    key.parent.mkdir(parents=True)
    operator.edged("keygen", "sensor", "--id", "pump", "-o", key.parent)
    operator.run("ansible-vault", "encrypt", str(key))
    model = operator.model(sensor="/etc/edged/sensors/pump.key")
    operator.write_host_variables(first, edged_host_config={"model": [model]})
    rotate = {"edged_rotate": "sensor", "edged_rotate_name": "pump"}
    operator.play("rotate", "--limit", first.name, edged_rotate_step="begin", **rotate)
    assert 'sensor = ["/etc/edged/sensors/pump.key", "/etc/edged/sensors/pump-next.key"]' in config.read_text()
    operator.play("rotate", "--limit", first.name, edged_rotate_step="finish", **rotate)
    assert 'sensor = "/etc/edged/sensors/pump.key"' in config.read_text()
    assert [path.name for path in (first.root / "etc/edged/sensors").iterdir()] == ["pump.key"]
    operator.write_host_variables(first)
    operator.play("site", "--limit", first.name)


def test_playbooks_fail_early_and_say_why(operator: Operator, gearbox: Path) -> None:
    first = operator.boards[0]
    package = str(good(operator, gearbox, 9))

    def refused(*said: str, playbook: str = "rollout", days: int = 0, **variables: object) -> None:
        if playbook == "rollout":
            variables = {"edged_rollout_package": package, **variables}
        played = operator.play(playbook, "--limit", first.name, check=False, days=days, **variables)
        assert played.failed == {first.name}, played.output
        assert not played.changed[first.name], played.output
        for words in said:
            assert words in played.output

    refused("its disk is nearly full", "edged_least_free", edged_least_free="9 PB")
    refused("its clock is not set: it is 86", days=-1)
    with changed(first.root / "etc/debian_version", lambda _: "11.9\n"):
        refused("Debian 11 on amd64 is not supported", playbook="site")
    with away(operator.records / f"{first.name}.enrol"):
        refused("is absent: run edged.fleet.enrol first", playbook="site")
    with away(first.root / "var/lib/edged/keystore/device.enrol"):
        refused("has no keys yet: run edged.fleet.enrol first")
    first.run("chown", "root:", "/var/lib/edged/state.db")
    refused("/var/lib/edged/state.db must belong to edged", playbook="site")
    first.run("chown", "edged:", "/var/lib/edged/state.db")
    with changed(operator.home.root / "etc/mosquitto/edged/passwords", lambda text: text.replace(first.name, "nobody")):
        operator.home.run("systemctl", "reload", "mosquitto")
        refused(f"{first.name}: broker: ")
    operator.home.run("systemctl", "reload", "mosquitto")
    operator.edged("keygen", "operator", "--id", "stranger", "--no-passphrase")
    refused("edged: error: not sealed to key", edged_operator_key=f"{operator.path}/stranger.key")


@contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """Change a file for as long as the block lasts."""
    text = path.read_text()
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Take a file away for as long as the block lasts."""
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@in_waves
def test_a_version_of_edged_goes_out_and_one_that_does_not_start_is_taken_back(operator: Operator) -> None:
    fine, broken = operator.repackage("7.0.0-1"), operator.repackage("8.0.0-1", broken=True)
    first, second = operator.boards
    operator.play("rollout", edged_version=fine)
    assert [operator.status(board)["reported"]["version"] for board in operator.boards] == ["7.0.0", "7.0.0"]
    again = operator.play("site")  # whose inventory still has the version from before
    assert set(again.changed.values()) == {0}, again.output
    assert "nothing is done; edged.fleet.rollout moves versions" in again.output
    assert [operator.status(board)["reported"]["version"] for board in operator.boards] == ["7.0.0", "7.0.0"]
    played = operator.play("rollout", edged_version=broken, edged_rollout_patience=10, check=False)
    assert played.failed == {first.name}
    assert f"Taken back: {first.name}." in played.output
    assert [operator.status(board)["reported"]["version"] for board in operator.boards] == ["7.0.0", "7.0.0"]
    assert not list((second.root / "var/cache/edged").glob("edged_8.0.0-1*"))


@in_waves
def test_a_board_that_was_lost_is_revoked(operator: Operator, gearbox: Path) -> None:
    lost, home = operator.boards[1], operator.home
    operator.play("revoke", edged_revoke=lost.name)
    operator.wait_forgotten(lost)
    assert (operator.records / "revoked" / f"{lost.name}.enrol").exists()
    played = operator.play("rollout", edged_rollout_package=str(good(operator, gearbox, 10)), check=False)
    assert "the board was revoked" in played.output
    for path in ("acl", "passwords"):
        assert lost.name not in (home.root / "etc/mosquitto/edged" / path).read_text()
    findings = json.loads(operator.check(lost))
    assert any(one["check"] == "broker" and not one["ok"] for one in findings)


def test_a_board_that_is_given_away_keeps_nothing(operator: Operator) -> None:
    first = operator.boards[0]
    operator.play("decommission", edged_decommission=first.name)
    for path in ("var/lib/edged", "etc/edged", "usr/lib/edged", "var/cache/edged"):
        assert not (first.root / path).exists(), path
    operator.wait_forgotten(first)
    again = operator.play("decommission", edged_decommission=first.name)
    assert set(again.changed.values()) == {0}, again.output


def test_a_board_that_was_given_away_comes_back_only_when_it_is_named(operator: Operator) -> None:
    first = operator.boards[0]
    refused = operator.play("enrol", check=False)
    assert first.name in refused.failed
    assert "the board was revoked. If it is to come back, say so by its name" in refused.output
    assert not (first.root / "usr/bin/edged").exists()
    assert first.name not in operator.believed()
    operator.play("enrol", "--limit", f"{first.name},hubs", edged_readmit=first.name)
    assert (operator.records / f"{first.name}.enrol").exists()
    assert first.name in {path.stem for path in (operator.home.root / "etc/edged/boards").iterdir()}
