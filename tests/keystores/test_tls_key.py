"""A TLS client key in the TPM: the broker sees the certificate, the key is nowhere but there."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from edged.keystore import create_keystore
from support import tpm as tpms
from support.tpm import Swtpm

PEM = serialization.Encoding.PEM


def cannot_tls() -> str:
    """Return why no TLS key of a TPM can be used here; empty if it can."""
    if not any(Path("/usr/lib").glob("*/ossl-modules/tpm2.so")):
        return "needs OpenSSL's provider: apt install tpm2-openssl"
    return tpms.cannot_swtpm()


pytestmark = pytest.mark.skipif(bool(cannot_tls()), reason=cannot_tls())

CLIENT = """
import json, sys, time
from pathlib import Path
from edged.base.errors import EdgedError
from edged.broker.dial import dial
from edged.broker.options import BrokerOptions
url, *files = sys.argv[1:]
ca, cert, key = map(Path, files)
said = {}
try:
    for _ in range(2):
        dial(BrokerOptions(url=url, ca=ca, cert=cert, key=key)).close()
    said["connected"] = True
except EdgedError as error:
    said |= {"error": error.message, "hint": error.hint}
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
message_key = ec.generate_private_key(ec.SECP256R1())
message_key.public_key().verify(message_key.sign(b"", ec.ECDSA(hashes.SHA256())), b"", ec.ECDSA(hashes.SHA256()))
said["numbers"] = message_key.private_numbers().private_value > 0  # a key in the TPM would have none to show
print(json.dumps(said))
"""


class Authority:
    """A CA of Ed25519, which no TPM does: swtpm without a resource manager has room for the client's key alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = Ed25519PrivateKey.generate()
        self.certify("ca", self._key.public_key(), ca=True)
        server = Ed25519PrivateKey.generate()
        self.certify("localhost", server.public_key())
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (path / "localhost.key").write_bytes(server.private_bytes(PEM, *plain))

    def certify(self, name: str, key: CertificatePublicKeyTypes, *, ca: bool = False) -> Path:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, "ca"))
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        if ca:
            usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment"), False)
            usage |= dict.fromkeys(("data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        path = self.path / f"{name}.pem"
        path.write_bytes(builder.sign(self._key, None).public_bytes(PEM))
        return path

    @contextmanager
    def listening(self) -> Iterator[tuple[str, list[str]]]:
        """Accept TLS connections that bring a certificate of this authority; yield the URL and the names in them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "localhost.pem", self.path / "localhost.key")
        context.load_verify_locations(self.path / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        names: list[str] = []

        def serve(listener: socket.socket) -> None:
            while listener.fileno() >= 0:
                with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as client:
                    found = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
                    names.append(found.subject.rfc4514_string())

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=serve, args=[listener], daemon=True).start()
            yield f"mqtts://localhost:{listener.getsockname()[1]}", names


def connect(url: str, ca: Path, cert: Path, key: Path, tpm: Swtpm) -> dict[str, object]:
    environment = {**os.environ, "TPM2OPENSSL_TCTI": tpm.tcti}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, url, ca, cert, key], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_tls_key_of_the_tpm_shows_who_the_board_is(tpm: Swtpm, tmp_path: Path) -> None:
    made = create_keystore(tpm.uri, tmp_path / "keys", None)
    authority = Authority(tmp_path)
    certificate = authority.certify("press-07", made.signer.public.point)
    with authority.listening() as (url, names):
        said = connect(url, tmp_path / "ca.pem", certificate, tmp_path / "keys" / "sign.tpm", tpm)

    assert said == {"connected": True, "numbers": True}
    assert names == ["CN=press-07"] * 2


def test_a_tls_key_of_another_tpm_is_refused(tpm: Swtpm, tmp_path: Path) -> None:
    made = create_keystore(tpm.uri, tmp_path / "keys", None)
    authority = Authority(tmp_path)
    certificate = authority.certify("press-07", made.signer.public.point)
    with Swtpm(tmp_path / "another") as another, authority.listening() as (url, names):
        said = connect(url, tmp_path / "ca.pem", certificate, tmp_path / "keys" / "sign.tpm", another)

    assert "cannot be used" in str(said["error"])
    assert names == []
