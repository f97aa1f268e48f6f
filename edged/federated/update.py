"""Updates where they are not masked: what a board learned, signed by it, and sealed to the aggregator.

TLS ends where the aggregator's proxy stands; this seal ends in the process that averages. Run, round and board stand in
the associated data of both signature and seal, so that an update counts once, in its round, for its board.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from edged.federated.weights import Weights, decode, encode
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign

_CONTEXT = "edged.update.1"
_OVERHEAD = 64 * 1024
_LIMITS_DEPTH, _LIMITS_ITEMS = 8, 64


class Round(NamedTuple):
    """The round that an update answers, and the board that answers.

    :ivar device: the board's name, as in its record.
    """

    run: int
    round: int
    device: str


def seal_update(weights: Weights, about: Round, signer: Signer, aead: Aead, to: PublicKey) -> bytes:
    """Return trained weights, signed by the board and sealed to the aggregator's key ``to``."""
    aad = _aad(about)
    signed = sign(encode(weights), aad, signer)
    return cbor.encode(seal(ContentKey.generate(aead), os.urandom(IV_SIZE), signed, aad, [to]).cose())


def open_update(
    data: bytes, about: Round, device: PublicKey, agreement: Agreement, shapes: Sequence[tuple[int, ...]]
) -> Weights:
    """Return the weights of an update.

    :param device: the signing key in the board's pinned record.
    :param shapes: of the model's weights: anything else is refused before a number is read.
    :raises FormatError: not an update, other shapes, or numbers that are not finite.
    :raises TrustError: for another round, by another board, or sealed to another aggregator.
    """
    aad = _aad(about)
    numbers = sum(_product(shape) for shape in shapes)
    limits = cbor.Limits(4 * numbers + _OVERHEAD, _LIMITS_DEPTH, _LIMITS_ITEMS)
    sealed = Encrypt.parse(cbor.decode_canonical(data, limits), most=1)
    signed = sealed.open(sealed.unwrap(agreement, None), aad)
    return decode(Sign1.parse(signed, limits).verify(device, aad), shapes)


def _aad(about: Round) -> bytes:
    return cbor.encode([_CONTEXT, *about])


def _product(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
