"""Certificates for the last step to a SuperLink, on the aggregator's own machine.

Flower authenticates boards over TLS alone, so a SuperLink speaks TLS on the loopback too. Boards see the proxy's
certificate; this one is seen by the proxy and by the aggregator's own commands.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

# a TLS key of this machine's own, not one of edged's keys: those are made and used in edged.formats.cose alone
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: TID251
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: TID251
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edged.base.files import PRIVATE_FILE, make_private_directory, write_atomically

_LIFE = dt.timedelta(days=3650)
_SKEW = dt.timedelta(days=1)
_RECORD_MODE = 0o644


@dataclass(frozen=True)
class Loopback:
    """PEM files of a server on the loopback."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def at(cls, directory: Path) -> Loopback:
        """Return where they stand."""
        return cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")

    @classmethod
    def make(cls, directory: Path) -> Loopback:
        """Make an authority whose key is thrown away, and one certificate for ``localhost`` and 127.0.0.1."""
        files = cls.at(make_private_directory(directory))
        authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = _name("edged aggregator, loopback")
        ca = _builder(issuer, issuer, authority.public_key(), authority.public_key())
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        ca = ca.add_extension(_usage(signs=True), critical=True)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        cert = _builder(_name("localhost"), issuer, server.public_key(), authority.public_key())
        cert = cert.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        cert = cert.add_extension(_usage(signs=False), critical=True)
        cert = cert.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        cert = cert.add_extension(x509.SubjectAlternativeName(names), critical=False)
        private = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for path, content, mode in (
            (files.key, private, PRIVATE_FILE),
            (files.cert, cert.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM), _RECORD_MODE),
            (files.ca, ca.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM), _RECORD_MODE),
        ):
            write_atomically(path, [content], mode=mode, replace=True)
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
