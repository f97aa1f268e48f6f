"""The manifest as its author writes it (TOML): the signal chain, and the files that `edged pack` takes in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edged.base.errors import ConfigError, FormatError, MissingFileError, PermissionsError, error_context
from edged.base.files import path_below, read_bounded
from edged.base.names import check_name
from edged.config.load import convert, read_toml
from edged.formats.package.self_test import MOST_CASES, SelfTest
from edged.formats.spec import Chain, ModelTable

_CARD_LIMIT = 256 * 1024
_SELF_TEST_LIMIT = 64 * 1024 * 1024
TOLERANCE = 0.02
"""Of the spread of the scores, where neither an author nor a recording says more."""


class ModelFile(ModelTable, frozen=True):
    """``[model]``: the weights, and how the model is asked.

    :ivar file: the weights, beside the manifest; the command line may name another.
    """

    file: str | None = None


class SelfTestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[self_test]``: known answers, written by ``edged try --record-self-test``.

    :ivar file: below the manifest's folder, an .npz with ``scores`` (float32 [n, outputs]) and ``windows`` ([n, rows,
        channels]), or, where windows have different sizes, ``window_0`` and so on; and, where it was recorded, with
        ``tolerance`` and the names of the ``engines`` that answered.
    :ivar tolerance: how far each score may lie from the recorded one, as a share of the spread of the recorded ones;
        default: what was recorded with them.
    """

    file: str
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 <= self.tolerance < float("inf"):
            raise ConfigError("self_test.tolerance: a number from 0")


class Author(Chain, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An author's manifest.

    :ivar name: of the model: lower-case letters, digits, - and _.
    :ivar version: whole number, only grows.
    :ivar summary: one line, for people.
    :ivar license: SPDX expression.
    :ivar card: file of the model card, below the manifest's folder.
    :ivar expires: last day (UTC) on which the package may be installed; from then on, a board that serves it is
        degraded.
    :ivar minimum: boards that accepted this version never serve one below ``minimum`` again; at most ``version``.
    """

    name: str
    version: int
    summary: str = ""
    license: str = ""
    card: str | None = None
    expires: dt.date | None = None
    minimum: int | None = None
    model: ModelFile = ModelFile()
    self_test: SelfTestFile | None = None

    @classmethod
    def read(cls, path: Path) -> Author:
        """Read the manifest at ``path``.

        :raises ConfigError: as :meth:`of`.
        """
        return cls.of(read_toml(path), path)

    @classmethod
    def of(cls, tables: Mapping[str, Any], source: Path | str) -> Author:
        """Take a manifest's tables, which errors say are from ``source``.

        :raises ConfigError: a key is missing, unknown, or does not fit.
        """
        author = convert(tables, cls, source)
        check_name(f"{source}: name", author.name)
        if not 0 < author.version < 1 << 32:
            raise ConfigError(f"{source}: version: {author.version} is not between 1 and 2^32 - 1")
        if author.minimum is not None and not 0 < author.minimum <= author.version:
            raise ConfigError(f"{source}: minimum: {author.minimum} is not between 1 and version, {author.version}")
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
        """Return the fields that `edged pack` signs: this manifest, with the card in place of its file's name.

        :raises ConfigError: the card lies outside of ``base``, or is no text.
        """
        fields = msgspec.structs.asdict(self)
        del fields["self_test"]
        fields["model"] = ModelTable(
            **{name: getattr(self.model, name) for name in ModelTable.__struct_fields__}  # all but the file
        )
        fields["card"] = "" if self.card is None else _read_card(base, self.card)
        fields["expires"] = None if self.expires is None else _last_second(self.expires)
        return fields

    def read_self_test(self, base: Path) -> SelfTest:
        """Read the self-test, as :meth:`read_recording` does."""
        return self.read_recording(base)[0]

    def read_recording(self, base: Path) -> tuple[SelfTest, tuple[str, ...]]:
        """Read the self-test vectors, and the engines that they were recorded with.

        :raises ConfigError: there are none, they lie outside of ``base``, or do not fit the manifest.
        """
        from edged.model.known_answers import make_self_test  # noqa: PLC0415  boards read no author's manifests
        from edged.model.npz import open_npz  # noqa: PLC0415  as above

        if self.self_test is None:
            raise ConfigError(
                "the manifest has no [self_test]",
                hint="`edged try MODEL --manifest M --input DATA --record-self-test FILE` writes the vectors",
            )
        with _as_config("self_test.file", "an .npz with `windows` and `scores`"):
            path = path_below(base, self.self_test.file)
            with open_npz(path, _SELF_TEST_LIMIT) as archive:
                scores = archive.read("scores")
                recorded = float(archive.read("tolerance")) if "tolerance" in archive.names else TOLERANCE
                engines = tuple(map(str, archive.read("engines"))) if "engines" in archive.names else ()
                if "windows" in archive.names:
                    windows = list(archive.read("windows"))
                else:
                    windows = [archive.read(f"window_{number}") for number in range(min(len(scores), MOST_CASES))]
        with error_context(f"self_test.file: {path}"):
            tolerance = recorded if self.self_test.tolerance is None else self.self_test.tolerance
            return make_self_test(self, tolerance, windows, list(scores) if scores.ndim else []), engines


@contextmanager
def _as_config(key: str, hint: str) -> Iterator[None]:
    """Raise what is wrong with a file that a manifest names as an error of the manifest."""
    try:
        yield
    except (PermissionsError, MissingFileError, FormatError) as error:
        raise ConfigError(f"{key}: {error.message}", hint=error.hint or hint) from error


def _read_card(base: Path, name: str) -> str:
    with _as_config("card", "the model card is text in UTF-8, beside the manifest"):
        path = path_below(base, name)
        try:
            return read_bounded(path, _CARD_LIMIT).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is no text in UTF-8: {error.reason}") from error


def _last_second(day: dt.date) -> int:
    """Return the end of a day in UTC, in Unix seconds."""
    return int(dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC).timestamp())
