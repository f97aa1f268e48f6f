"""The manifest as its author writes it (TOML): the signal chain, and the files that `edged pack` takes in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec

from edged.config.load import convert, read_toml
from edged.config.names import check_name
from edged.errors import ConfigError
from edged.files import read_bounded
from edged.package.manifest import MOST_CASES, SelfTest, SelfTestCase
from edged.signal.spec import Chain

_CARD_LIMIT = 256 * 1024


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[model]``: the weights."""

    file: str


class SelfTestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[self_test]``: an .npz with ``windows`` (float32 [n, size, channels]) and ``scores`` (float32 [n, outputs])."""

    file: str
    tolerance: float = 0.02


class Author(Chain, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An author's manifest.

    :ivar card: file of the model card, beside the manifest.
    :ivar expires: last day (UTC) on which the package may be installed.
    """

    name: str
    version: int
    summary: str = ""
    license: str = ""
    card: str | None = None
    expires: dt.date | None = None
    model: ModelFile | None = None
    self_test: SelfTestFile | None = None

    @classmethod
    def read(cls, path: Path) -> Author:
        """Read the manifest at ``path``.

        :raises ConfigError: a key is missing, unknown, or does not fit.
        """
        author = convert(read_toml(path), cls, path)
        check_name(f"{path}: name", author.name)
        if not 0 < author.version < 1 << 32:
            raise ConfigError(f"{path}: version: {author.version} is not between 1 and 2^32 - 1")
        return author

    def weights_path(self, base: Path, given: Path | None) -> Path:
        """Return the model file: the one ``given`` on the command line, else the manifest's, beside it.

        :raises ConfigError: neither is there.
        """
        if given is not None:
            return given
        if self.model is None:
            raise ConfigError("no model file", hint='name it on the command line or as `file = "..."` under [model]')
        return base / self.model.file

    def signed_fields(self, base: Path) -> dict[str, Any]:
        """Return what of this manifest gets signed as it is, the model card's text in the place of its file's name."""
        fields = msgspec.structs.asdict(self)
        for name in ("model", "self_test"):
            del fields[name]
        fields["card"] = "" if self.card is None else read_bounded(base / self.card, _CARD_LIMIT).decode()
        fields["expires"] = None if self.expires is None else _last_second(self.expires)
        return fields

    def read_self_test(self, base: Path) -> SelfTest:
        """Read the self-test vectors.

        :raises ConfigError: there are none, or they do not fit the manifest.
        """
        import numpy as np  # noqa: PLC0415  boards read no author's manifests

        if self.self_test is None:
            raise ConfigError(
                "the manifest has no [self_test]",
                hint="`edged try MODEL --manifest M --input DATA --record-self-test FILE` writes the vectors",
            )
        path = base / self.self_test.file
        try:
            with np.load(path, allow_pickle=False) as archive:
                windows, scores = archive["windows"], archive["scores"]
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"self_test.file: {path}: {error}", hint="an .npz with `windows` and `scores`") from error
        wanted = (self.window.size, len(self.input.channels))
        if windows.shape[1:] != wanted or scores.ndim != 2 or not 0 < len(windows) == len(scores) <= MOST_CASES:  # noqa: PLR2004
            raise ConfigError(
                f"self_test.file: {path}: windows {windows.shape} and scores {scores.shape} are not"
                f" [n, {wanted[0]}, {wanted[1]}] and [n, outputs] with n from 1 to {MOST_CASES}"
            )
        cases = zip(windows.astype("<f4"), scores.astype("<f4"), strict=True)
        return SelfTest(
            float(self.self_test.tolerance), tuple(SelfTestCase(w.tobytes(), s.tobytes()) for w, s in cases)
        )


def _last_second(day: dt.date) -> int:
    """Return the end of a day in UTC, in Unix seconds."""
    return int(dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC).timestamp())
