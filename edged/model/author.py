"""The manifest as its author writes it (TOML): the signal chain, and the files that `edged pack` takes in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec

from edged.base.errors import ConfigError
from edged.base.files import read_bounded
from edged.base.names import check_name
from edged.config.load import convert, read_toml
from edged.formats.package.manifest import MOST_CASES, SelfTest, SelfTestCase
from edged.formats.spec import Chain, ModelTable

_CARD_LIMIT = 256 * 1024


class ModelFile(ModelTable, frozen=True):
    """``[model]``: the weights, and how the model is asked.

    :ivar file: the weights, beside the manifest; the command line may name another.
    """

    file: str | None = None


class SelfTestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[self_test]``: known answers, written by ``edged try --record-self-test``.

    :ivar file: an .npz with ``scores`` (float32 [n, outputs]) and ``windows`` (float32 [n, rows, channels]), or, where
        windows have different sizes, ``window_0`` and so on.
    :ivar tolerance: how far each score may lie from the recorded one.
    """

    file: str
    tolerance: float = 0.02


class Author(Chain, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An author's manifest.

    :ivar name: of the model: lower-case letters, digits, - and _.
    :ivar version: whole number, only grows.
    :ivar summary: one line, for people.
    :ivar license: SPDX expression.
    :ivar card: file of the model card, beside the manifest.
    :ivar expires: last day (UTC) on which the package may be installed.
    """

    name: str
    version: int
    summary: str = ""
    license: str = ""
    card: str | None = None
    expires: dt.date | None = None
    model: ModelFile = ModelFile()
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
        if self.model.file is None:
            raise ConfigError("no model file", hint='name it on the command line or as `file = "..."` under [model]')
        return base / self.model.file

    def fields(self, base: Path) -> dict[str, Any]:
        """Return the fields that `edged pack` signs: this manifest, with its files' content in place of their names.

        :raises ConfigError: there is no self-test, or it does not fit.
        """
        return self.fields_without_self_test(base) | {"self_test": self.read_self_test(base)}

    def fields_without_self_test(self, base: Path) -> dict[str, Any]:
        """Return the same for weights whose known answers come from elsewhere."""
        fields = msgspec.structs.asdict(self)
        del fields["self_test"]
        fields["model"] = ModelTable(
            **{name: getattr(self.model, name) for name in ModelTable.__struct_fields__}  # all but the file
        )
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
                scores = archive["scores"]
                single = "windows" not in archive.files
                windows = [archive[f"window_{n}"] for n in range(len(scores))] if single else list(archive["windows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"self_test.file: {path}: {error}", hint="an .npz with `windows` and `scores`") from error
        channels = len(self.input.channels)
        fits = all(
            window.ndim == 2 and window.shape[1] == channels and len(window) == (self.rows or len(window))  # noqa: PLR2004
            for window in windows
        )
        if not fits or scores.ndim != 2 or not 0 < len(windows) == len(scores) <= MOST_CASES:  # noqa: PLR2004
            rows = "rows" if self.rows is None else self.rows
            found = windows[0].shape if windows else ()
            raise ConfigError(
                f"self_test.file: {path}: {len(windows)} windows {found} and scores {scores.shape} are not"
                f" n of [{rows}, {channels}] and [n, outputs] with n from 1 to {MOST_CASES}"
            )
        cases = zip(windows, scores.astype("<f4"), strict=True)
        return SelfTest(
            float(self.self_test.tolerance),
            tuple(SelfTestCase(window.astype("<f4").tobytes(), score.tobytes()) for window, score in cases),
        )


def _last_second(day: dt.date) -> int:
    """Return the end of a day in UTC, in Unix seconds."""
    return int(dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC).timestamp())
