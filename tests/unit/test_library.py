"""`import edged`: few names, each loaded when it is first used; the parts that other tests do not reach."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edged
from edged.base.errors import ConfigError, KeystoreError, MismatchError, UsageError
from edged.formats.cose.algorithms import Aead
from edged.formats.package.self_test import SelfTest
from support.parties import Board, Hub

_HEAVY = ("click", "cryptography", "msgspec", "numpy", "paho", "sqlite3", "edged.")
MANIFEST = {"name": "pump", "version": 1, "input": {"channels": ["x", "y"]}, "window": {"size": 4}}
MANIFEST["output"] = {"kind": "classifier", "labels": ["good", "bad"]}
WINDOWS = [np.full((4, 2), number, np.float32) for number in range(3)]
SCORES = [np.array([number, 1 - number], np.float32) for number in range(3)]
KEYS = edged.Keys.generate(agreement=False)


def loaded_after(statement: str, tmp_path: Path) -> list[str]:
    """Return the modules that a fresh process has loaded after a statement."""
    command = [sys.executable, "-c", f"import sys, edged; {statement}; print(*sys.modules)"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()


def test_import_edged_loads_nothing_but_itself(tmp_path: Path) -> None:
    assert [name for name in loaded_after("pass", tmp_path) if name.startswith(_HEAVY)] == []


def test_a_hub_and_a_sensor_load_no_arrays_no_database_and_no_broker(tmp_path: Path) -> None:
    loaded = loaded_after("edged.Hub, edged.ReadingSealer, edged.Package, edged.read_keys", tmp_path)
    assert [name for name in loaded if name.startswith(("click", "numpy", "paho", "sqlite3", "edged.model"))] == []


def test_each_name_is_there_for_readers_and_for_type_checkers() -> None:
    """The table that loads them and the imports that type checkers read say the same."""
    tree = ast.parse(Path(edged.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {one.names[0].name: one.module for one in imports} == edged._PLACE
    for name in edged._PLACE:
        assert getattr(edged, name).__doc__
        assert name in dir(edged)
    with pytest.raises(AttributeError, match="nothing_such"):
        edged.nothing_such  # noqa: B018  it is looked up


@pytest.mark.parametrize("agreement", [False, True])
@pytest.mark.parametrize("passphrase", [None, b"a long passphrase"])
def test_keys_are_read_as_they_were_written(passphrase: bytes | None, *, agreement: bool) -> None:
    keys = edged.Keys.generate(agreement=agreement)
    pem = edged.write_keys(keys, passphrase)
    read = edged.read_keys(pem, passphrase)
    assert read.signer.public == keys.signer.public
    assert (read.agreement and read.agreement.public) == (keys.agreement and keys.agreement.public)
    if passphrase is not None:
        with pytest.raises(KeystoreError):
            edged.read_keys(pem, b"another passphrase")


@pytest.mark.parametrize("blocks", [0, 3])
def test_a_file_of_no_keys_or_of_three_is_refused(blocks: int) -> None:
    with pytest.raises(KeystoreError, match=f"{blocks} PEM blocks"):
        edged.read_keys(edged.write_keys(KEYS, None) * blocks)


def test_keys_on_a_token_are_not_written() -> None:
    class OnToken:
        public = KEYS.signer.public

        def sign(self, digest: bytes) -> bytes:
            raise NotImplementedError

    with pytest.raises(KeystoreError, match="not in this process's memory"):
        edged.write_keys(edged.Keys(OnToken(), None), None)


def test_a_record_is_read_as_it_was_written() -> None:
    keys = edged.Keys.generate(agreement=True)
    record = edged.Record.of(edged.Role.HUB, "home", keys, int(time.time()))
    assert edged.Record.parse(record.encode(keys.signer)) == record


def test_a_sensors_key_is_read_as_it_was_written() -> None:
    key = edged.ContentKey.generate(Aead.A256GCM)
    assert edged.ContentKey.decode(key.encode()) == key


# --- packages from values in memory --------------------------------------------------------------


def test_a_package_from_a_notebook_opens_on_its_board_alone() -> None:
    board = Board()
    data = edged.pack_model(MANIFEST, b"weights", WINDOWS, SCORES, publisher=KEYS, to=[board.record])
    verified = edged.Package.parse(data).verify(edged.Publishers.of(KEYS.signer.public, "pump"))
    verified.check_ciphertexts()
    unwrapped = verified.unwrap(board.ecdh)
    contents = [bytearray(part.plaintext.size) for part in verified.manifest.sealed]
    for number, content in enumerate(contents):
        unwrapped.decrypt_into(memoryview(content), number)
    assert contents[0] == b"weights"
    cases = SelfTest.parse(memoryview(contents[1]), verified.manifest).cases
    assert [np.frombuffer(case.scores.data, "<f4").tolist() for case in cases] == [one.tolist() for one in SCORES]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"card": "README.md"}, "card: names a file"),
        ({"self_test": {"file": "a.npz"}}, "self_test: names a file"),
        ({"version": 0}, "version: 0 is not between"),
        ({"widow": 1}, "widow"),
        ({"window": {"size": 5}}, r"3 windows \(4, 2\) .* are not n of \[5, 2\]"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_its_key(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        edged.pack_model({**MANIFEST, **changed}, b"", WINDOWS, SCORES, publisher=KEYS, to=[Board().record])


def test_an_operators_keys_sign_no_model_and_nobody_is_no_recipient() -> None:
    operator = edged.Keys.generate(agreement=True)
    with pytest.raises(UsageError, match="sign no models"):
        edged.pack_model(MANIFEST, b"", WINDOWS, SCORES, publisher=operator, to=[Board().record])
    with pytest.raises(UsageError, match="recipients"):
        edged.pack_model(MANIFEST, b"", WINDOWS, SCORES, publisher=KEYS, to=[])


def test_no_model_is_sealed_to_a_hub() -> None:
    with pytest.raises(MismatchError, match="not that of a device or operator"):
        edged.pack_model(MANIFEST, b"", WINDOWS, SCORES, publisher=KEYS, to=[Hub().record])
