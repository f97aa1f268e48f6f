"""TPMs without hardware: swtpm on free loopback ports."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from edged.formats.cose.keys import PrivateKey
from support.ports import quiet_ports
from support.process import Server


def cannot_swtpm() -> str:
    """Return why there is no TPM here; empty if there is."""
    if importlib.util.find_spec("tpm2_pytss") is None:
        return "needs tpm2-pytss"
    if shutil.which("swtpm") is None:
        return "needs swtpm: apt install swtpm"
    return ""


class Swtpm(Server):
    """A TPM 2.0 in a process of its own, with its state below ``path``: ``with Swtpm(path) as tpm``."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.port = quiet_ports(2)
        server, control = (f"type=tcp,port={port},bindaddr=127.0.0.1" for port in (self.port, self.port + 1))
        options = ("--tpmstate", f"dir={path}", "--flags", "not-need-init,startup-clear")
        super().__init__(
            ("swtpm", "socket", "--tpm2", *options, "--server", server, "--ctrl", control), {}, self._listens
        )

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port + 1)) == 0

    @property
    def tcti(self) -> str:
        """How the TPM is reached."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @property
    def uri(self) -> str:
        """The URI of a board's keys in it."""
        return f"tpm2:?tcti={self.tcti}"


def put_tpm_key(tcti: str, path: Path, key: PrivateKey, use: str) -> None:
    """Import a private key that was made elsewhere into a TPM, and write its file.

    :param use: SIGN_ENCRYPT or DECRYPT.
    """
    import tpm2_pytss as tss  # noqa: PLC0415  an extra
    from tpm2_pytss.tsskey import TSSPrivKey  # noqa: PLC0415  an extra

    parent_use = tss.TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATEPRIMARY_ATTRS | tss.TPMA_OBJECT.NODA
    with tss.ESAPI(tcti) as esapi:
        parent, *_ = esapi.create_primary(
            tss.TPM2B_SENSITIVE_CREATE(), tss.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=parent_use)
        )
        kind = "ecc256:ecdsa-sha256:null" if use == "SIGN_ENCRYPT" else "ecc256"
        wanted = tss.TPMA_OBJECT.USERWITHAUTH | tss.TPMA_OBJECT.NODA | getattr(tss.TPMA_OBJECT, use)
        public = tss.TPM2B_PUBLIC.parse(kind, objectAttributes=wanted)
        public.publicArea.unique.ecc.x, public.publicArea.unique.ecc.y = key.public.x, key.public.y
        sensitive = tss.TPM2B_SENSITIVE(tss.TPMT_SENSITIVE(sensitiveType=tss.TPM2_ALG.ECC))
        sensitive.sensitiveArea.sensitive.ecc = key.scalar()
        private = esapi.import_(
            parent,
            b"",
            public,
            tss.TPM2B_PRIVATE(sensitive.marshal()),
            tss.TPM2B_ENCRYPTED_SECRET(),
            tss.TPMT_SYM_DEF_OBJECT(algorithm=tss.TPM2_ALG.NULL),
        )
        esapi.flush_context(parent)
    path.write_bytes(TSSPrivKey(private, public).to_pem())
    path.chmod(0o600)
