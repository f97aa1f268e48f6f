"""A package from values in memory, such as a notebook has: no file is read, and the model is not run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edged.base.errors import ConfigError, UsageError
from edged.formats.cose.keys import Keys
from edged.formats.identity import Record, Role
from edged.formats.package.pack import pack, preferred_aead
from edged.model.author import TOLERANCE, Author
from edged.model.known_answers import make_self_test


def pack_model(
    manifest: Mapping[str, Any],
    model: bytes,
    windows: Sequence[npt.NDArray[Any]],
    scores: Sequence[npt.NDArray[Any]],
    *,
    publisher: Keys,
    to: Sequence[Record],
    tolerance: float = TOLERANCE,
) -> bytes:
    """Return a package: the content of a file for ``edged install``, which runs the self-test before it serves.

    :param manifest: the tables of an author's manifest, as TOML would hold them; without ``card`` and ``[self_test]``,
        which name files.
    :param model: the .tflite file's content.
    :param windows: of the self-test, ``[rows, channels]`` each; 1 to 64.
    :param scores: the model's answers to them, ``[outputs]`` each.
    :param publisher: keys without ``agreement``: operators and hubs sign no models.
    :param to: records of boards, and of the operator who may grant the package to others.
    :param tolerance: largest difference of a score on a board, as a share of the spread of ``scores``.
    :raises ConfigError: the manifest does not fit, or the self-test does not fit the manifest.
    :raises UsageError: the keys are no publisher's, or there is no record.
    :raises MismatchError: a record is a hub's, or somebody else's to whom no models are sealed.
    """
    if publisher.agreement is not None:
        raise UsageError("an operator's or a hub's keys sign no models", hint="give the publisher's keys")
    author = Author.of(manifest, "manifest")
    for key in ("card", "self_test"):
        if getattr(author, key) is not None:
            raise ConfigError(f"manifest: {key}: names a file, and none is read here", hint="leave it out")
    fields = author.fields(Path())
    contents = [("model", model), ("self_test", make_self_test(author, tolerance, windows, scores).encode())]
    chunks = pack(
        fields,
        contents,
        signer=publisher.signer,
        to=[record.check_role(Role.DEVICE, Role.OPERATOR).sealing_key for record in to],
        aead=preferred_aead(to),
        created=int(time.time()),
    )
    return b"".join(chunks)
