"""Statements: what boards say to one another in a masked round, signed, by way of an aggregator that only carries it.

Masks are agreed on with keys that the aggregator hands round. A board believes one where its owner's board, which the
order names, has signed for it; and opens nothing until enough of them have signed for the very same sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edged.base.errors import FormatError, MismatchError, NotAllowedError
from edged.federated.order import Order
from edged.formats.cose import cbor
from edged.formats.cose.keys import PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.identity import Record

_STATEMENT, _SUM = "edged.secagg.1", "edged.secagg-sum.1"
_KEYS = {"order", "node", "key", "pk1", "pk2"}
_LIMITS = cbor.Limits(4096, 8, 64)
_SUM_LIMITS = cbor.Limits(16 * 1024, 8, 4096)
_MOST_NODE, _MOST_KEY = 1 << 64, 1024

MaskKeys = tuple[bytes, bytes]
"""A board's two public keys of one round, as Flower encodes them: of masks, and of shares."""


class Statement(NamedTuple):
    """The keys of one board in one round, in its own hand.

    :ivar node: Flower's number of the board.
    :ivar key: signs what the board says.
    :ivar payload: what it signed.
    """

    device: str
    node: int
    key: PublicKey
    keys: MaskKeys
    payload: bytes


def open_statement(data: bytes, order: Order) -> Statement:
    """Take a statement that answers an order.

    :raises FormatError: it is none.
    :raises NotAllowedError: its signer is not among the order's boards.
    :raises SignatureError: it is for another round, or its signature does not hold.
    :raises MismatchError: it answers another order.
    """
    signed = Sign1.parse(data, _LIMITS)
    value = cbor.decode_canonical(signed.unverified, _LIMITS)
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise FormatError("the statement has keys missing or unknown")
    key = PublicKey.parse(value["key"])
    device = order.board_of(key)
    signed.verify(key, _aad(_STATEMENT, order, device))
    node, keys = value["node"], (value["pk1"], value["pk2"])
    if type(node) is not int or not 0 <= node < _MOST_NODE:
        raise FormatError("the statement's node is no number of 64 bits")
    if not all(isinstance(one, bytes) and len(one) <= _MOST_KEY for one in keys):
        raise FormatError("the statement holds no keys")
    if value["order"] != order.digest:
        raise MismatchError(f"the statement of {device} answers another order")
    return Statement(device, node, key, keys, signed.unverified)


@dataclass(frozen=True)
class Parties:
    """All boards that mask together.

    :ivar by_node: each by Flower's number.
    :ivar binding: digests of the order and of what all stated, 64 bytes: in the derivation of each mask, so that
        boards which were told of different parties have no masks in common.
    """

    order: Order
    by_node: Mapping[int, Statement]
    binding: bytes

    @classmethod
    def gather(cls, order: Order, statements: Iterable[bytes]) -> Parties:
        """Take everybody's statement.

        :raises EdgedError: as :func:`open_statement`; or a board or node has two (FormatError).
        """
        said: dict[str, Statement] = {}
        by_node: dict[int, Statement] = {}
        for one in (open_statement(data, order) for data in statements):
            if one.device in said or one.node in by_node:
                raise FormatError(f"a second statement of {one.device}, or of node {one.node}")
            said[one.device] = by_node[one.node] = one
        ordered = [said[device].payload for device in sorted(said)]
        return cls(order, by_node, order.digest + hashlib.sha256(cbor.encode(ordered)).digest())

    def check_keys(self, keys: Mapping[int, MaskKeys]) -> None:
        """Check that keys by Flower's number are exactly those that were stated.

        :raises NotAllowedError: they are not.
        """
        if keys != {node: one.keys for node, one in self.by_node.items()}:
            raise NotAllowedError("keys of this round are not those that its boards signed for")

    def check_sum(self, confirmations: Iterable[bytes], active: Collection[int], dead: Collection[int]) -> int:
        """Return how many boards have signed for this sum.

        :param active: nodes whose updates are in it; each may sign.
        :param dead: nodes that were lost.
        :raises EdgedError: one has signed for another, is not in it, or signed twice.
        """
        payload = self.sum_of(active, dead)
        signers: set[bytes] = set()
        for data in confirmations:
            signed = Sign1.parse(data, _SUM_LIMITS)
            one = next((self.by_node[node] for node in active if self._key(node) == signed.kid), None)
            if one is None or signed.kid in signers:
                raise NotAllowedError("a sum is confirmed by each board in it, once")
            if signed.verify(one.key, _aad(_SUM, self.order, one.device)) != payload:
                raise MismatchError(f"{one.device} has confirmed another sum")
            signers.add(signed.kid)
        return len(signers)

    def _key(self, node: int) -> bytes | None:
        return self.by_node[node].key.thumbprint if node in self.by_node else None

    def sum_of(self, active: Collection[int], dead: Collection[int]) -> bytes:
        """Return what boards sign for a sum."""
        return cbor.encode({"binding": self.binding, "active": sorted(active), "dead": sorted(dead)})


@dataclass(frozen=True)
class Party:
    """This board in one masked round.

    :ivar order: believed, and its round taken.
    """

    order: Order
    device: Record
    signer: Signer

    def state(self, node: int, keys: MaskKeys) -> bytes:
        """Return this board's statement."""
        pk1, pk2 = keys
        own = {"order": self.order.digest, "node": node, "key": self.signer.public.cose(), "pk1": pk1, "pk2": pk2}
        return sign(cbor.encode(own), _aad(_STATEMENT, self.order, self.device.id), self.signer)

    def confirm(self, parties: Parties, active: Collection[int], dead: Collection[int]) -> bytes:
        """Return this board's signature for a sum: a round has one."""
        return sign(parties.sum_of(active, dead), _aad(_SUM, self.order, self.device.id), self.signer)


def _aad(context: str, order: Order, device: str) -> bytes:
    return cbor.encode([context, order.run, order.round, device])
