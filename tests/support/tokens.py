"""Tokens without hardware: SoftHSM2 in a directory of its own, in the process that uses it or in another."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edged.formats.cose.keys import PrivateKey
from support.process import Server, children

PIN = "1234"
_LIBRARIES = [*Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"), Path("/usr/lib/softhsm/libsofthsm2.so")]
_REMOTES = list(Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"))


def cannot_softhsm() -> str:
    """Return why there are no tokens here; empty if there are."""
    if importlib.util.find_spec("pkcs11") is None:
        return "needs python-pkcs11"
    if shutil.which("softhsm2-util") is None or not any(path.exists() for path in _LIBRARIES):
        return "needs SoftHSM2: apt install softhsm2"
    return ""


def cannot_remote() -> str:
    """Return why no token can be served by another process here; empty if it can."""
    if shutil.which("p11-kit") is None or not _REMOTES:
        return "needs p11-kit's server and client: apt install p11-kit p11-kit-modules"
    return cannot_softhsm()


class Keys:
    """Where a test's keys are made, and what the configuration says of them."""

    def __init__(self, path: Path) -> None:
        self.pin = path / "pin"
        self.pin.write_text(f"{PIN}\n")
        self.pin.chmod(0o600)

    def table(self, uri: str) -> str:
        """Return the ``[keystore]`` table for ``uri``."""
        pin = "" if uri.startswith("tpm2:") else f'pin = "{self.pin}"\n'
        return f'[keystore]\nuri = "{uri}"\n{pin}'


class SoftHsm:
    """SoftHSM2 with its configuration and tokens below ``path``; :attr:`environment` is what processes need."""

    def __init__(self, path: Path) -> None:
        self.module = next(path for path in _LIBRARIES if path.exists())
        tokens = path / "tokens"
        tokens.mkdir(parents=True, mode=0o700)
        config = path / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(config)}

    def make(self, *labels: str) -> None:
        """Initialise tokens."""
        for label in labels:
            command = ("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "5678")
            _run(command, self.environment)

    def uri(self, token: str, label: str | None = None) -> str:
        """Return the URI of keys on a token."""
        return f"pkcs11:token={token}{f';object={label}' if label else ''}?module-path={self.module}"

    def put(self, token: str, label: str, key: PrivateKey, **options: object) -> None:
        """Put a private key on a token that was made elsewhere, in a process of its own; see :func:`put_key`."""
        script = "import sys; from support.tokens import put_key_from; put_key_from(*sys.argv[1:])"
        command = (sys.executable, "-c", script, str(self.module), token, label, key.scalar().hex(), repr(options))
        _run(command, {**self.environment, "PYTHONPATH": os.pathsep.join(sys.path)})


def put_key_from(module: str, token: str, label: str, scalar: str, options: str) -> None:
    """Put a key on a token; what :meth:`SoftHsm.put` runs."""
    import ast  # noqa: PLC0415  in a process of its own

    import pkcs11  # noqa: PLC0415  an extra

    with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=PIN) as session:
        put_key(session, label, PrivateKey.from_scalar(bytes.fromhex(scalar)), **ast.literal_eval(options))


def put_key(session: object, label: str, key: PrivateKey, *, uses: str = "SIGN", extractable: bool = False) -> None:
    """Put a private key that was made elsewhere on a token.

    :param session: of python-pkcs11, open for writing.
    :param uses: what it may do: SIGN or DERIVE.
    """
    from pkcs11 import Attribute, KeyType, ObjectClass  # noqa: PLC0415  an extra

    point = b"\x04\x41\x04" + key.public.x + key.public.y
    both = {
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107"),
        Attribute.TOKEN: True,
        Attribute.LABEL: label,
        Attribute.ID: label.encode(),
    }
    create = session.create_object  # type: ignore[attr-defined]
    create({**both, Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.EC_POINT: point})
    create(
        {
            **both,
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.VALUE: key.scalar(),
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: not extractable,
            Attribute.EXTRACTABLE: extractable,
            Attribute.SIGN: uses == "SIGN",
            Attribute.DERIVE: uses == "DERIVE",
        }
    )


class P11Server(Server):
    """A token served by a process of its own: what uses it loads a module that only talks to that process."""

    def __init__(self, hsm: SoftHsm, token: str, path: Path) -> None:
        socket = path / "p11"
        self.module = _REMOTES[0]
        self.environment = {"P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"}
        command = ["p11-kit", "server", "-f", "--provider", hsm.module, "-n", socket, f"pkcs11:token={token}"]
        super().__init__(command, hsm.environment, socket.exists)

    @property
    def pids(self) -> list[int]:
        """The processes that hold the keys: the server, and one for each client."""
        return [self.pid, *children(self.pid)]

    def agrees(self) -> bool:
        """Return whether the server passes on ECDH."""
        script = """
import sys, pkcs11
(token,) = pkcs11.lib(sys.argv[1]).get_tokens()
print(pkcs11.Mechanism.ECDH1_DERIVE in token.slot.get_mechanisms())
"""
        command = (sys.executable, "-c", script, str(self.module))
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout == "True\n"

    def uri(self, token: str, label: str | None = None) -> str:
        """Return the URI of keys on the token, through the server."""
        return f"pkcs11:token={token}{f';object={label}' if label else ''}?module-path={self.module}"


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
