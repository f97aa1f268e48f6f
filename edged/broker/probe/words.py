"""What a broker's answers mean to a board, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edged.base.errors import BrokerError
from edged.broker.probe.result import MOST_AT_ONCE, REDELIVERED_WITHIN, Behaviour, ProbeResult, Redelivery


class Remark(NamedTuple):
    """One thing about a broker: a detail, or the error where the board cannot do without."""

    what: str
    detail: str
    error: BrokerError | None = None


def remarks(result: ProbeResult, filters: Mapping[str, int], *, answers: bool) -> Iterator[Remark]:
    """Say what was found.

    :param filters: the filters of the sensors' topics that come from here, each with the QoS that is wanted.
    :param answers: whether the board's results go here.
    """
    for topic, wanted in filters.items():
        yield _subscription(topic, wanted, result.granted[topic])
    yield _own_topics(result, needed=answers)
    behaviour = result.behaviour
    if behaviour is None:
        return
    yield _retained(behaviour, needed=answers)
    yield Remark("wildcards", "+ takes what matches" if behaviour.wildcards else "+ brings nothing: name each topic")
    yield _at_once(behaviour.at_once)
    yield _session(behaviour, needed=bool(filters))


def _subscription(topic: str, wanted: int, granted: int | None) -> Remark:
    what = f"topic {topic}"
    if granted is None:
        return _wrong(
            what, f"it refuses the subscription to {topic}", f"let this board read {topic}: see the broker's ACL"
        )
    if granted < wanted:
        return Remark(
            what, f"granted with QoS {granted} instead of {wanted}: what is lost on the way is not sent again"
        )
    return Remark(what, f"granted, QoS {granted}")


def _own_topics(result: ProbeResult, *, needed: bool) -> Remark:
    below = f"{result.base}/#"
    if not result.barred:
        lossy = result.behaviour is not None and not result.behaviour.qos
        consequence = ", with QoS 0 only: what is lost on the way is not sent again" if lossy else ""
        return Remark("own topics", f"{below} may be written and read{consequence}")
    if not needed:
        return Remark("own topics", f"{below} cannot be used, which this board does not need here: {result.barred}")
    return _wrong(
        "own topics",
        f"this board cannot use its own topics, {below}: {result.barred}",
        f"let this board write and read {below}: see the broker's ACL",
    )


def _retained(behaviour: Behaviour, *, needed: bool) -> Remark:
    if behaviour.retained_by_wildcard:
        return Remark("retained", "retained messages reach who subscribes later, by name and through wildcards")
    if behaviour.retained:
        return Remark(
            "retained", "no retained messages through wildcards: hubs subscribe to each board's announce topic by name"
        )
    what = "no retained messages: a hub that starts after this board cannot open its results"
    return _wrong("retained", what, "have the broker retain messages") if needed else Remark("retained", what)


def _at_once(count: int | None) -> Remark:
    if count is None:
        return Remark("at once", f"hands out {MOST_AT_ONCE} unacknowledged messages at a time, or more")
    messages = "1 unacknowledged message" if count == 1 else f"{count} unacknowledged messages"
    return Remark("at once", f"hands out {messages} at a time: whole windows at a high rate wait for each other")


_REPLAYS = "after this board was killed, sealed readings come behind later ones and are refused as replays"
_REDELIVERY = {
    Redelivery.MARKED: "what was not acknowledged comes again, marked as such (DUP)",
    Redelivery.UNMARKED: "what was not acknowledged comes again, but unmarked (no DUP):"
    " a reading that kills the daemon is not recognised when it comes again",
    Redelivery.BEHIND: f"what was not acknowledged comes again behind what was sent later: {_REPLAYS}",
    Redelivery.NONE: "what was not acknowledged does not come again"
    f" within {REDELIVERED_WITHIN:.0f} s, but what was sent later does: {_REPLAYS}",
}


def _session(behaviour: Behaviour, *, needed: bool) -> Remark:
    if behaviour.keeps:
        return Remark("session", f"keeps what comes while this board is away; {_REDELIVERY[behaviour.redelivery]}")
    what = "keeps nothing while this board is away: what sensors send meanwhile is lost"
    return (
        _wrong("session", what, "have the broker keep sessions of clients that are away")
        if needed
        else Remark("session", what)
    )


def _wrong(what: str, detail: str, hint: str) -> Remark:
    return Remark(what, detail, BrokerError(detail, hint=hint))
