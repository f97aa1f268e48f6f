"""The URIs of PKCS#11 tokens (RFC 7512). They are parsed without python-pkcs11, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from edged.base.errors import ConfigError

_TOKEN = ("token", "manufacturer", "serial", "model")
_MODULE = "p11-kit-proxy.so"
"""The default module: it stands for all modules that the system has configured (RFC 7512, section 2.4)."""


class TokenUri(msgspec.Struct, frozen=True):
    """``pkcs11:token=NAME;object=LABEL?module-path=FILE``.

    :ivar wanted: what the token must say of itself: token (its label), manufacturer, serial, model.
    :ivar object: begins the labels of both keys, ``LABEL-sign`` and ``LABEL-ecdh``; None where the URI leaves it open.
    :ivar module: the PKCS#11 library: a path, or a name that the dynamic linker finds.
    """

    text: str
    wanted: Mapping[str, str]
    object: str | None
    module: str

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Take a URI.

        :raises ConfigError: it is none, names no token, or has an attribute that edged does not know.
        """
        scheme, _, rest = text.partition(":")
        path, _, query = rest.partition("?")
        found = _attributes(text, path, ";", (*_TOKEN, "object"))
        if scheme != "pkcs11" or not found.keys() & set(_TOKEN):
            raise ConfigError(f"{text!r} names no token", hint='"pkcs11:token=LABEL"')
        module = _attributes(text, query, "&", ("module-path",)).get("module-path", _MODULE)
        label = found.pop("object", None)
        return cls(text, found, label, module)

    def labelled(self, label: str) -> TokenUri:
        """Return this URI with a label for the keys, unless it has one."""
        if self.object is not None:
            return self
        path, mark, query = self.text.partition("?")
        return TokenUri.parse(f"{path};object={label}{mark}{query}")


def _attributes(text: str, part: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, part.split(separator)):
        name, equals, value = pair.partition("=")
        if name in {"pin-value", "pin-source"}:
            raise ConfigError(
                f"a key store's URI has no {name}: URIs stand in process lists and logs",
                hint="name the file or credential that holds the PIN: keystore.pin on a board, else --passphrase-file",
            )
        if name not in known or not equals or name in found:
            raise ConfigError(f"{text!r}: {pair!r} does not fit", hint=f"known are {', '.join(known)}, each once")
        found[name] = unquote(value)
    return found
