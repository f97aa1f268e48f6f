"""A certificate authority of this machine's own, for TLS between programs that edged itself starts.

The demo's broker and the aggregator's SuperLink use it. Neither is reached from elsewhere, and the authority's key
stays in memory: nobody can issue another certificate once the process has ended.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

import msgspec
from cryptography import x509

# TLS keys of this machine's own, not edged's keys: those are made and used in edged.formats.cose alone
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: TID251
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: TID251
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edged.base.files import PRIVATE_FILE, write_atomically

_SKEW = dt.timedelta(days=1)
_PUBLIC_FILE = 0o644
_LOOPBACK = ("127.0.0.1", "::1")


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files of one side of a TLS connection."""

    ca: Path
    cert: Path
    key: Path


class Authority:
    """Issues certificates.

    :param name: common name of the authority.
    :param ca: file that the authority's own certificate is written to.
    :param life: of every certificate, its own included.
    """

    def __init__(self, name: str, ca: Path, life: dt.timedelta) -> None:
        self.ca = ca
        self._name = _common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._life = life
        builder = self._builder(self._name, self._key.public_key(), is_authority=True)
        _write(ca, builder.sign(self._key, hashes.SHA256()), _PUBLIC_FILE)

    def issue_server(self, cert: Path, key: Path) -> TlsFiles:
        """Issue a certificate for ``localhost``, 127.0.0.1 and ::1."""
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in _LOOPBACK]
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])
        return self._issue("localhost", ExtendedKeyUsageOID.SERVER_AUTH, names, TlsFiles(self.ca, cert, key))

    def issue_client(self, name: str, cert: Path, key: Path) -> TlsFiles:
        """Issue a certificate for a client of this name."""
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, names, TlsFiles(self.ca, cert, key))

    def _issue(
        self, name: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName, files: TlsFiles
    ) -> TlsFiles:
        private = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_common_name(name), private.public_key(), is_authority=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(names, critical=False)
        encoded = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(files.key, [encoded], mode=PRIVATE_FILE, replace=True)
        _write(files.cert, builder.sign(self._key, hashes.SHA256()), _PUBLIC_FILE)
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        path_length = 0 if is_authority else None
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + self._life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=path_length), critical=True)
            .add_extension(_key_usage(signs_certificates=is_authority), critical=True)
        )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return the key usage, without which Python 3.13 refuses an authority."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, certificate: x509.Certificate, mode: int) -> None:
    write_atomically(path, [certificate.public_bytes(Encoding.PEM)], mode=mode, replace=True)
