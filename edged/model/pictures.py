"""Pictures in files as samples for `edged try`: one, a folder of them, or a folder for each label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edged.base.errors import FormatError, MissingFileError, UsageError, error_context
from edged.base.files import read_bounded
from edged.formats.readings import Format
from edged.formats.spec import Input
from edged.model.reading import Decoder, Layout
from edged.model.samples import Samples

SUFFIXES: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_MOST_BYTES, _UNPACKED = 256 << 20, 1 << 30


def read_picture_samples(path: Path, source: Input) -> Samples:
    """Read a picture, or the pictures of a folder by their names; below it, a folder's name is their label.

    :param source: of the model that takes them.
    :raises UsageError: the model takes no pictures, or there are none.
    :raises MissingFileError: one cannot be read.
    :raises ReadingError: one is not what a board would take, with its name.
    :raises FormatError: they take more room than there is.
    """
    if source.image is None:
        raise UsageError(f"{path} holds pictures, and the model takes rows of numbers: it has no input.image")
    try:
        found = list(_files(path))
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        raise UsageError(f"{path} holds no {', '.join(SUFFIXES)}")
    size = (source.image.width * source.image.height, len(source.channels))
    if len(found) * size[0] * size[1] > _UNPACKED:
        raise FormatError(f"{path}: {len(found)} pictures take more than {_UNPACKED} bytes at once")
    decoders = {
        format_: Decoder(Layout(format_, "window", source.channels, _MOST_BYTES, picture=source.image))
        for format_ in {SUFFIXES[one.suffix.lower()] for one, _ in found}
    }
    values = np.empty((len(found), *size), np.uint8)
    for at, (one, _) in enumerate(found):
        with error_context(one):
            values[at] = decoders[SUFFIXES[one.suffix.lower()]](read_bounded(one, _MOST_BYTES)).rows
    labels = tuple(label for _, label in found if label is not None)
    return Samples(values, labels=labels if len(labels) == len(found) else None)


def _files(path: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield pictures with their labels, in the order of their names."""
    if not path.is_dir():
        yield path, None
        return
    for one in sorted(path.iterdir()):
        if one.is_dir():
            yield from ((below, one.name) for below in sorted(one.iterdir()) if below.suffix.lower() in SUFFIXES)
        elif one.suffix.lower() in SUFFIXES:
            yield one, None
