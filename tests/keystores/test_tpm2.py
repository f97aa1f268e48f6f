"""Keys in a TPM 2.0: swtpm, as any TPM."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import ConfigError, KeystoreError, OutputError, PermissionsError
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import seal
from edged.formats.cose.keys import ContentKey, PrivateKey
from edged.formats.cose.sign1 import Sign1, sign
from edged.keystore import Keystore, create_keystore, exercise, open_keystore
from support import tpm as tpms
from support.tpm import Swtpm, put_tpm_key

pytestmark = pytest.mark.skipif(bool(tpms.cannot_swtpm()), reason=tpms.cannot_swtpm())

PIN = b"correct horse"


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with Swtpm(tmp_path_factory.mktemp("tpm")) as tpm:
        yield tpm


@pytest.fixture
def own_tpm(tmp_path: Path) -> Iterator[Swtpm]:
    """One that gets wrong PINs, after a few of which it answers nobody."""
    with Swtpm(tmp_path / "tpm") as tpm:
        yield tpm


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def create(tpm: Swtpm, keys: Path, pin: bytes | None = None) -> Keystore:
    return create_keystore(tpm.uri, keys, None, pin)


def reopen(tpm: Swtpm, keys: Path, pin: bytes | None = None) -> Keystore:
    return open_keystore(tpm.uri, keys, None, pin)


# --- both operations, against software ----------------------------------------------------------


def test_keys_of_a_tpm_open_again(tpm: Swtpm, keys: Path) -> None:
    made, found = create(tpm, keys), reopen(tpm, keys)
    assert (made.signer.public, made.agreement.public) == (found.signer.public, found.agreement.public)
    assert made.signer.public != made.agreement.public


def test_signature_of_a_tpm_verifies_in_software(tpm: Swtpm, keys: Path) -> None:
    signer = create(tpm, keys).signer
    for number in range(50):
        message = sign(f"{number}".encode(), b"\x80", signer)
        assert Sign1.parse(message).verify(signer.public, b"\x80") == f"{number}".encode()


def test_what_is_sealed_to_a_tpm_opens_there(tpm: Swtpm, keys: Path) -> None:
    agreement = create(tpm, keys).agreement
    key = ContentKey.generate(Aead.A256GCM)
    sealed = seal(key, bytes(12), b"weights", b"\x80", [PrivateKey.generate().public, agreement.public])
    assert sealed.unwrap(agreement, key.commit) == key
    assert sealed.open(key, b"\x80") == b"weights"


def test_shared_secret_with_leading_zeros_keeps_its_32_bytes(tpm: Swtpm, keys: Path) -> None:
    agreement = create(tpm, keys).agreement
    peer = PrivateKey.generate()
    while peer.ecdh(agreement.public)[0]:
        peer = PrivateKey.generate()
    z = agreement.ecdh(peer.public)
    assert len(z) == 32
    assert z[0] == 0
    assert z == peer.ecdh(agreement.public)


def test_peer_with_leading_zeros_is_agreed_with(tpm: Swtpm, keys: Path) -> None:
    agreement = create(tpm, keys).agreement
    peer = PrivateKey.generate()
    while peer.public.x[0]:
        peer = PrivateKey.generate()
    assert agreement.ecdh(peer.public) == peer.ecdh(agreement.public)


def test_tpm_agrees_with_every_peer_as_software_does(tpm: Swtpm, keys: Path) -> None:
    agreement = create(tpm, keys).agreement

    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 2**256 - 2**224))
    def agrees(scalar: int) -> None:
        peer = PrivateKey.from_scalar(scalar.to_bytes(32, "big"))
        assert agreement.ecdh(peer.public) == peer.ecdh(agreement.public)

    agrees()


def test_two_threads_use_one_tpm(tpm: Swtpm, keys: Path) -> None:
    """The daemon signs in one thread while another loads a model."""
    keystore = create(tpm, keys)
    failed: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(5):
                exercise(keystore.signer, keystore.agreement)
        except BaseException as error:  # noqa: BLE001  told below
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# --- what the TPM holds, and what passes on the way to it -----------------------------------------


def test_keys_were_made_in_the_tpm_and_cannot_leave_it(tpm: Swtpm, keys: Path) -> None:
    assert create(tpm, keys).protection().protected[:2] == (
        "sign key: made in the TPM, cannot leave it",
        "ecdh key: made in the TPM, cannot leave it",
    )


def test_imported_keys_are_called_that(tpm: Swtpm, keys: Path) -> None:
    imported(tpm, keys)
    sign, ecdh, _ = reopen(tpm, keys).protection().protected
    assert sign == "sign key: imported: it was elsewhere, CAN BE MOVED to another"
    assert ecdh == "ecdh key: imported: it was elsewhere, CAN BE MOVED to another"


def imported(tpm: Swtpm, keys: Path) -> tuple[PrivateKey, PrivateKey]:
    keys.mkdir(mode=0o700)
    pair = (PrivateKey.generate(), PrivateKey.generate())
    put_tpm_key(tpm.tcti, keys / "sign.tpm", pair[0], "SIGN_ENCRYPT")
    put_tpm_key(tpm.tcti, keys / "ecdh.tpm", pair[1], "DECRYPT")
    return pair


def test_imported_keys_are_the_same_as_in_software(tpm: Swtpm, keys: Path) -> None:
    sign, ecdh = imported(tpm, keys)
    keystore, peer = reopen(tpm, keys), PrivateKey.generate()
    assert keystore.signer.public == sign.public
    assert keystore.agreement.ecdh(peer.public) == ecdh.ecdh(peer.public)


def test_emulated_tpm_is_not_called_hardware(tpm: Swtpm, keys: Path) -> None:
    protection = create(tpm, keys).protection()
    assert not protection.hardware
    assert protection.store.startswith("TPM 2.0 by IBM (SW")


def test_nothing_stays_in_the_tpm_after_an_operation(tpm: Swtpm, keys: Path) -> None:
    import tpm2_pytss as tss  # noqa: PLC0415  an extra

    keystore = create(tpm, keys, PIN)
    exercise(keystore.signer, keystore.agreement)
    with pytest.raises(KeystoreError):
        reopen(tpm, keys, b"wrong").signer.sign(bytes(32))
    with tss.ESAPI(tpm.tcti) as esapi:
        for first in (0x80000000, 0x02000000, 0x03000000):  # transient objects, loaded and saved sessions
            found = esapi.get_capability(tss.TPM2_CAP.HANDLES, first, 10)[1]
            assert found.data.handles.count == 0


def test_neither_pin_nor_shared_secret_is_to_be_read_on_the_bus(
    tpm: Swtpm, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TPM on a bus of its own can be listened to: here a recorder stands between."""
    record = tmp_path / "bus.pcap"
    monkeypatch.setenv("TCTI_PCAP_FILE", str(record))
    uri = f"tpm2:?tcti=pcap:{tpm.tcti}"
    keystore, peer = create_keystore(uri, keys, None, PIN), PrivateKey.generate()
    z = keystore.agreement.ecdh(peer.public)
    signature = keystore.signer.sign(bytes(32))
    bus = record.read_bytes()
    assert signature[:32].lstrip(b"\0") in bus, "else the record shows nothing"
    assert z not in bus
    assert PIN not in bus


def test_key_files_are_private(tpm: Swtpm, keys: Path) -> None:
    create(tpm, keys)
    assert sorted(path.name for path in keys.iterdir()) == ["ecdh.tpm", "sign.tpm"]
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}
    (keys / "sign.tpm").chmod(0o640)
    with pytest.raises(PermissionsError):
        reopen(tpm, keys)


def test_key_files_are_those_of_openssls_provider(tpm: Swtpm, keys: Path) -> None:
    """Whoever leaves edged can use them elsewhere, in the same TPM."""
    create(tpm, keys)
    pem = (keys / "sign.tpm").read_text()
    assert pem.startswith("-----BEGIN TSS2 PRIVATE KEY-----\n")
    shown = subprocess.run(
        ["openssl", "asn1parse"], input=pem, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "2.23.133.10.1.3" in shown


def test_persistent_storage_key_is_used_where_there_is_one(tmp_path: Path, keys: Path) -> None:
    """As systemd and tpm2-tools provision a TPM: it saves making the key anew for each operation."""
    import tpm2_pytss as tss  # noqa: PLC0415  an extra

    with Swtpm(tmp_path / "tpm") as tpm:
        with tss.ESAPI(tpm.tcti) as esapi:
            use = tss.TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATEPRIMARY_ATTRS | tss.TPMA_OBJECT.NODA
            template = tss.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=use)
            primary, *_ = esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template)
            esapi.evict_control(tss.ESYS_TR.OWNER, primary, 0x81000001)
            esapi.flush_context(primary)
        keystore = create(tpm, keys)
        assert keystore.signer._key.parent == 0x81000001
        found = reopen(tpm, keys)
        exercise(found.signer, found.agreement)


def test_keys_last_when_the_tpm_starts_again(tmp_path: Path, keys: Path) -> None:
    with Swtpm(tmp_path / "tpm") as tpm:
        public = create(tpm, keys).signer.public
    with Swtpm(tmp_path / "tpm") as tpm:
        found = reopen(tpm, keys)
        exercise(found.signer, found.agreement)
        assert found.signer.public == public


# --- what goes wrong ---------------------------------------------------------------------------


def test_pin_opens_keys_and_a_wrong_one_does_not(own_tpm: Swtpm, keys: Path) -> None:
    create(own_tpm, keys, PIN)
    found = reopen(own_tpm, keys, PIN)
    exercise(found.signer, found.agreement)
    with pytest.raises(KeystoreError, match="the PIN is wrong"):
        reopen(own_tpm, keys, b"wrong").agreement.ecdh(PrivateKey.generate().public)
    with pytest.raises(KeystoreError, match="the PIN is wrong"):
        reopen(own_tpm, keys).signer.sign(bytes(32))


def test_tpm_locks_itself_after_wrong_pins(own_tpm: Swtpm, keys: Path) -> None:
    create(own_tpm, keys, PIN)
    guess = reopen(own_tpm, keys, b"wrong").signer
    said = []
    for _ in range(50):
        with pytest.raises(KeystoreError) as caught:
            guess.sign(bytes(32))
        said.append(caught.value.message)
    assert "locked after wrong PINs" in said[-1]
    with pytest.raises(KeystoreError, match="locked"):
        reopen(own_tpm, keys, PIN).signer.sign(bytes(32))


def test_key_files_of_another_tpm_are_refused(tpm: Swtpm, own_tpm: Swtpm, keys: Path) -> None:
    create(tpm, keys)
    with pytest.raises(KeystoreError, match="another TPM's"):
        reopen(own_tpm, keys)


def test_absent_tpm_is_named(keys: Path, tpm: Swtpm) -> None:
    create(tpm, keys)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(KeystoreError, match=f"the TPM at swtpm:host=127.0.0.1,port={port} cannot be reached"):
            open_keystore(f"tpm2:?tcti=swtpm:host=127.0.0.1,port={port}", keys, None)


def test_absent_keys_are_named(tpm: Swtpm, keys: Path) -> None:
    with pytest.raises(KeystoreError, match="there are no TPM keys at"):
        reopen(tpm, keys)


def test_damaged_key_file_is_named(tpm: Swtpm, keys: Path) -> None:
    create(tpm, keys)
    path = keys / "ecdh.tpm"
    for damaged in ("", path.read_text()[:100], path.read_text().replace("A", "B", 3)):
        path.write_text(damaged)
        with pytest.raises(KeystoreError):
            reopen(tpm, keys)


def test_key_of_the_wrong_curve_is_refused(tpm: Swtpm, keys: Path) -> None:
    import tpm2_pytss as tss  # noqa: PLC0415  an extra
    from tpm2_pytss.tsskey import TSSPrivKey  # noqa: PLC0415  as above

    create(tpm, keys)
    with tss.ESAPI(tpm.tcti) as esapi:
        key = TSSPrivKey.create_ecc(esapi, curveID=tss.TPM2_ECC.NIST_P384)
    (keys / "sign.tpm").write_bytes(key.to_pem())
    with pytest.raises(KeystoreError, match="is not on P-256"):
        reopen(tpm, keys)


def test_second_keys_of_a_directory_are_not_made(tpm: Swtpm, keys: Path) -> None:
    first = create(tpm, keys)
    with pytest.raises(OutputError, match="exists already"):
        create(tpm, keys)
    assert reopen(tpm, keys).signer.public == first.signer.public


def test_destroyed_keys_are_gone(tpm: Swtpm, keys: Path) -> None:
    create(tpm, keys).destroy()
    assert list(keys.iterdir()) == []
    create(tpm, keys)


def test_uri_names_another_directory(tpm: Swtpm, tmp_path: Path, keys: Path) -> None:
    uri = f"tpm2:{tmp_path}/else%20where?tcti={tpm.tcti}"
    create_keystore(uri, keys, None)
    assert (tmp_path / "else where" / "sign.tpm").exists()
    open_keystore(uri, keys, None)


@pytest.mark.parametrize("uri", ["tpm2:?device=/dev/tpm0", "tpm2:?tcti=", "tpm2:?tcti=a&pin=1"])
def test_uri_with_anything_else_is_refused(keys: Path, uri: str) -> None:
    with pytest.raises(ConfigError, match="has more than a TCTI"):
        open_keystore(uri, keys, None)
