"""`edged init --keystore` and `edged keystore`: new keys for old, and what goes wrong on the way."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from edged.base.lock import Lock
from edged.board.audit import Entry
from edged.board.state import State
from edged.formats.identity import Record, Role
from edged.keystore.records import read_record
from support.site import Site
from support.tokens import Keys, P11Server, SoftHsm
from support.tpm import Swtpm

NOWHERE = "mqtt://127.0.0.1:9"

# --- new keys for old ------------------------------------------------------------------------


class Quiet:
    """A board without a broker: what can be done to its keys while it stands still."""

    def __init__(self, site: Site, keys: Keys) -> None:
        self.site = site
        self.keys = keys
        self.configure("file:")
        self.record = site.init()
        self.package = site.pack()
        site.install(self.package)

    def configure(self, uri: str) -> None:
        self.uri = uri
        table = "" if uri == "file:" else self.keys.table(uri)
        self.site.configure('format = "json"\neach = "row"', extra=table)

    def migrate(self, uri: str) -> Record:
        pin = () if uri.startswith("tpm2:") else ("--pin-file", self.keys.pin)
        self.site.edged("keystore", "migrate", "--to", uri, *pin, "-c", "edged.toml", "-o", "next.enrol")
        return read_record(self.site.path / "next.enrol", Role.DEVICE)

    def edged(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return self.site.edged(*arguments, **options)

    def model_loads(self) -> bool:
        shown = self.edged("check", "edged.toml", "--offline", "--json", check=False).stdout
        return '"detail": "version 1, self-test passed' in shown


@pytest.fixture
def quiet(tmp_path: Path, models: Path, keys: Keys) -> Quiet:
    tmp_path.chmod(0o700)
    return Quiet(Site(tmp_path, models, NOWHERE), keys)


def test_migration_keeps_the_board_running_and_is_endorsed_by_the_old_key(quiet: Quiet, uri: str) -> None:
    old = read_record(quiet.record, Role.DEVICE)
    new = quiet.migrate(uri)
    new.check_replaces(old)
    assert (new.id, new.aead) == (old.id, old.aead)
    assert new.sign != old.sign
    assert new.ecdh != old.ecdh

    assert quiet.model_loads(), "with the old keys, until the configuration names the new ones"
    assert "whole" in quiet.edged("audit", "--verify", "-c", "edged.toml").stdout

    quiet.configure(uri)
    assert quiet.model_loads(), "which was sealed to the old key"
    check = quiet.edged("keystore", "check", "-c", "edged.toml").stdout
    assert new.fingerprint in check
    assert "whole" in quiet.edged("audit", "--verify", "-c", "edged.toml").stdout


def test_forgotten_keys_are_gone_and_installed_packages_go_on(quiet: Quiet, uri: str) -> None:
    quiet.migrate(uri)
    quiet.configure(uri)
    said = quiet.edged("keystore", "forget-old", "-c", "edged.toml").stdout
    assert "sealed gearbox 1 to the present keys" in said
    assert not list(quiet.site.state.rglob("*.key"))
    assert quiet.model_loads()
    refused = quiet.site.install(quiet.package, check=False)
    assert "not sealed to key" in refused.stderr
    assert "whole" in quiet.edged("audit", "--verify", "-c", "edged.toml").stdout
    assert "there are no old keys" in quiet.edged("keystore", "forget-old", "-c", "edged.toml").stdout


def test_keys_in_use_are_not_forgotten(quiet: Quiet, tpm: Swtpm) -> None:
    quiet.migrate(tpm.uri)
    refused = quiet.edged("keystore", "forget-old", "-c", "edged.toml", check=False)
    assert "keystore.uri still names the keys that were migrated from" in refused.stderr
    assert quiet.model_loads()


def test_exported_audit_log_is_verified_with_the_record_of_the_key_that_signed_last(quiet: Quiet, tpm: Swtpm) -> None:
    quiet.migrate(tpm.uri)
    quiet.configure(tpm.uri)
    quiet.edged("keystore", "forget-old", "-c", "edged.toml")
    quiet.edged("audit", "--export", "log.cbor", "-c", "edged.toml")
    verify = ("audit", "--file", "log.cbor", "--verify", "--board", "next.enrol")
    assert "whole" in quiet.edged(*verify).stdout
    assert "whole" in quiet.edged(*verify, "--board", quiet.record).stdout
    assert "signed by key" in quiet.edged(*verify[:-1], quiet.record, check=False).stderr


def test_second_migration_waits_for_the_first(quiet: Quiet, tpm: Swtpm) -> None:
    first = quiet.migrate(tpm.uri)
    refused = quiet.edged(
        "keystore", "migrate", "--to", f"file:{quiet.site.path}/more", "-c", "edged.toml", check=False
    )
    assert f"a migration to {first.fingerprint} waits" in refused.stderr
    assert not (quiet.site.path / "more").exists()


def test_board_with_keys_is_not_initialised_elsewhere(quiet: Quiet, tpm: Swtpm) -> None:
    refused = quiet.edged("init", "-c", "edged.toml", "--keystore", tpm.uri, check=False)
    assert "this board has keys" in refused.stderr
    assert "edged keystore migrate" in refused.stderr
    assert quiet.model_loads()


# --- no keys any more --------------------------------------------------------------------------


def destroy(quiet: Quiet, **options: object) -> subprocess.CompletedProcess[str]:
    return quiet.edged("keystore", "destroy", "--device", quiet.site.name, "-c", "edged.toml", **options)


def test_destroyed_keys_are_gone_with_those_before_them_and_the_records(quiet: Quiet, uri: str) -> None:
    quiet.migrate(uri)
    quiet.configure(uri)
    quiet.edged("keystore", "check", "-c", "edged.toml")
    quiet.edged("audit", "--export", "log.cbor", "-c", "edged.toml")

    said = destroy(quiet).stdout

    assert said.splitlines() == ["destroyed the keys at file:", f"destroyed the keys at {quiet.uri}"]
    left = sorted(path.name for path in (quiet.site.state / "keystore").rglob("*") if path.is_file())
    assert left == ["gearbox-1.edged", "gearbox-1.grant"]
    assert quiet.edged("keystore", "check", "-c", "edged.toml", check=False).returncode == 66
    assert not quiet.model_loads()
    with closing(State(quiet.site.state)) as state:
        last = Entry.parse(state.audit()[0][-1])
        assert len(state.audit()[1]) > 0
    assert (last.kind, last.facts["what"], last.facts["device"]) == ("key", "destroy", quiet.site.name)
    quiet.edged("init", "-c", "edged.toml")  # refused where the store held keys


def test_key_files_are_overwritten_before_they_go(quiet: Quiet) -> None:
    keys = sorted((quiet.site.state / "keystore" / "keys").iterdir())
    secrets = [path.read_bytes() for path in keys]
    for path in keys:
        os.link(path, quiet.site.path / f"still-{path.name}")

    destroy(quiet)

    for path, secret in zip(keys, secrets, strict=True):
        assert not path.exists()
        kept = (quiet.site.path / f"still-{path.name}").read_bytes()
        assert (len(kept), kept == secret) == (len(secret), False)


@pytest.mark.parametrize(
    ("device", "code", "said"),
    [
        ("press-08", 64, "this board is press-07, not press-08"),
        ("press-07", 75, "the daemon runs on"),
    ],
)
def test_keys_of_another_board_or_of_a_daemon_that_runs_stay(quiet: Quiet, device: str, code: int, said: str) -> None:
    with closing(Lock(quiet.site.state)):
        refused = quiet.edged("keystore", "destroy", "--device", device, "-c", "edged.toml", check=False)
    assert (refused.returncode, said in refused.stderr) == (code, True)
    assert quiet.model_loads()


def test_keys_that_a_migration_made_are_not_left_behind(quiet: Quiet, tpm: Swtpm) -> None:
    quiet.migrate(tpm.uri)
    refused = destroy(quiet, check=False)
    assert "a migration waits for keystore.uri to name its keys" in refused.stderr
    assert quiet.model_loads()


# --- what goes wrong ---------------------------------------------------------------------------


def test_init_on_a_token_that_cannot_agree_leaves_nothing_on_it(
    tmp_path: Path, hsm: SoftHsm, server: P11Server, keys: Keys, models: Path
) -> None:
    if server.agrees():
        pytest.skip("this p11-kit passes on all that a board needs")
    site = Site(tmp_path, models, NOWHERE)
    site.configure('format = "json"\neach = "row"', extra=keys.table(server.uri("edged")))
    refused = site.edged("init", "-c", "edged.toml", check=False)
    assert "the token cannot do this on P-256" in refused.stderr
    site.configure('format = "json"\neach = "row"', extra=keys.table(hsm.uri("edged")))
    site.edged("init", "-c", "edged.toml", env={**os.environ, **hsm.environment})


def test_wrong_pin_is_told_without_a_traceback(tmp_path: Path, hsm: SoftHsm, keys: Keys, models: Path) -> None:
    site = Site(tmp_path, models, NOWHERE)
    site.configure('format = "json"\neach = "row"', extra=keys.table(hsm.uri("edged")))
    site.init()
    keys.pin.write_text("9999")
    refused = site.edged("keystore", "check", "-c", "edged.toml", check=False)
    assert refused.stderr.splitlines()[0] == "edged: error: token 'edged': the PIN is wrong"
    assert refused.returncode == 66
    keys.pin.chmod(0o644)
    assert site.edged("keystore", "check", "-c", "edged.toml", check=False).returncode == 77


def test_extra_that_is_not_installed_is_named(tmp_path: Path, models: Path) -> None:
    site = Site(tmp_path, models, NOWHERE)
    blocked = tmp_path / "blocked"
    for name in ("pkcs11", "tpm2_pytss"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')")
    paths = os.pathsep.join(filter(None, (str(blocked), os.environ.get("PYTHONPATH"))))
    for uri, extra in (("pkcs11:token=edged", "pkcs11"), ("tpm2:", "tpm2")):
        site.configure('format = "json"\neach = "row"', extra=f'[keystore]\nuri = "{uri}"')
        environment = {**os.environ, "PYTHONPATH": paths}
        environment.pop("PYTHONSAFEPATH", None)
        refused = site.edged("init", "-c", "edged.toml", check=False, env=environment)
        assert f"pip install 'edged[{extra}]'" in refused.stderr
        assert refused.returncode == 78


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_uses_the_daemons_keys_as_the_daemons_user(tmp_path: Path, tpm: Swtpm, keys: Keys, models: Path) -> None:
    """The key files stay the user's; the PIN is read before, because only root can (systemd's credentials are so)."""
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())  # pytest's own are root's alone
    folder.chmod(0o755)
    try:
        site = Site(tmp_path, models, NOWHERE)
        site.state = folder / "state"
        site.state.mkdir(mode=0o700)
        os.chown(site.state, nobody.pw_uid, nobody.pw_gid)
        site.configure('format = "json"\neach = "row"', extra=f'{keys.table(tpm.uri)}pin = "{keys.pin}"\n')
        site.edged("init", "-c", "edged.toml", "-o", "board.enrol")
        files = list((site.state / "keystore" / "keys").iterdir())
        assert {path.name for path in files} == {"sign.tpm", "ecdh.tpm"}
        assert {path.stat().st_uid for path in files} == {nobody.pw_uid}
        assert "the PIN, as long as the process runs" in site.edged("keystore", "check", "-c", "edged.toml").stdout
    finally:
        shutil.rmtree(folder)
