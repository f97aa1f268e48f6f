"""`edged check`: all checks of a board that need no running daemon, each with its own verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edged.base.errors import BrokerError, EdgedError, MissingFileError
from edged.base.machine import check_clock, check_entropy, check_owner, check_room, describe_memory
from edged.base.units import parse_duration, parse_size
from edged.board.examples.store import NAME as EXAMPLES
from edged.board.installation import Board
from edged.board.pipeline import check_binding, check_chain, check_state
from edged.board.state import State
from edged.board.state.store import NAME as STATE
from edged.broker import Address, probe
from edged.broker.probe import MOST_AT_ONCE, REDELIVERED_WITHIN, Behaviour, ProbeResult, Redelivery
from edged.config.board import BrokerTable
from edged.config.load import load_board
from edged.config.model import ModelConfig
from edged.formats.package.manifest import Manifest


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: a detail, or the error that stands in the way."""

    what: str
    detail: str
    error: EdgedError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        found: dict[str, Any] = {"check": self.what, "ok": self.error is None, "detail": self.detail}
        if self.error is not None:
            found |= {"kind": type(self.error).__name__, "hint": self.error.hint}
        return found


def check(path: Path, *, offline: bool) -> Iterator[Finding]:
    """Check the board that the configuration at ``path`` describes; nothing is changed.

    :param offline: leave the broker out.
    """
    try:
        board = Board(load_board(path))
        Address.parse(board.config.broker.url)
    except EdgedError as error:
        yield Finding("configuration", error.message, error)
        return
    yield Finding("configuration", str(path))
    above: dict[str, Manifest] = {}
    looks: list[tuple[str, Callable[[], str]]] = [
        ("clock", lambda: check_clock(trusted=board.config.device.clock == "trusted")),
        ("entropy", check_entropy),
        ("memory", describe_memory),
        ("owner", lambda: _owner(board)),
        ("disk", lambda: _disk(board)),
        ("keys", lambda: _keys(board)),
        ("state", lambda: _state(board)),
        ("publishers", lambda: f"{len(board.publishers().pinned)} pinned"),
        ("hubs", lambda: f"{len(board.hubs())} granted"),
        ("sensors", lambda: f"{len(board.sensor_keys())} with keys"),
        ("runtime", lambda: _runtime(board)),
        *((f"model {table.name}", partial(_model, board, table, above)) for table in board.config.model),
    ]
    for what, look in looks:
        try:
            with board.as_owner():
                detail = look()
        except EdgedError as error:
            yield Finding(what, error.message, error)
        else:
            yield Finding(what, detail)
    if not offline:
        yield from _brokers(board)


def _owner(board: Board) -> str:
    return check_owner(board.directory) if board.directory.exists() else "no state yet"


def _disk(board: Board) -> str:
    """Check the room for outbox and examples at their largest, and for a package beside the largest one."""
    packages = [_size(installed.path) for installed in board.packages.all()]
    outbox = parse_size(board.config.results.outbox.size) - _size(board.directory / STATE)
    kept = {one.name: parse_size(one.collect.size) for one in board.config.model if one.collect is not None}
    windows = sum(kept.values()) - _size(board.directory / EXAMPLES)
    standing = next(path for path in (board.directory, *board.directory.parents) if path.exists())
    return check_room(standing, max(0, outbox) + max(0, windows) + max(packages, default=0))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _keys(board: Board) -> str:
    return f"fingerprint {board.keys.opened_record(board.keystore()).fingerprint}"


def _state(board: Board) -> str:
    if not State.exists(board.directory):
        return "none yet"
    State(board.directory).close()
    return "readable"


def _runtime(board: Board) -> str:
    engine = board.engine()
    return f"{engine.name} {engine.version} ({engine.reason})"


def _model(board: Board, table: ModelConfig, above: dict[str, Manifest]) -> str:
    name = table.name
    newest = board.packages.newest(name)
    if newest is None:
        raise MissingFileError(f"no package of model {name!r} is installed", hint=f"edged install {name}-VERSION.edged")
    with closing(State(board.directory)) as state:
        installed = board.in_use(name, state) or newest
        model = board.load(installed, board.keystore(), state, board.engine(), table.delegate)
    try:
        manifest = model.manifest
        check_binding(table, manifest)
        check_state(table, keeps_state=model.keeps_state)
        check_chain(table, manifest, above)
        above[table.channel] = manifest
        locked = "locked" if model.locked else "not locked"
        own = ", a thread of its own" if model.seconds > parse_duration(board.config.runtime.slow) else ""
        return (
            f"version {manifest.version}, self-test passed, {model.seconds * 1000:.2f} ms a window{own},"
            f" weights {locked} in RAM"
        )
    finally:
        model.close()


def _brokers(board: Board) -> Iterator[Finding]:
    config = board.config
    filters: dict[str, int] = {}
    for table in config.model:
        for topic in table.filters:
            filters[topic] = max(table.qos, filters.get(topic, 0))
    yield from _broker(board, "broker", config.broker, filters, answers=config.uplink is None)
    if config.uplink is not None:
        yield from _broker(board, "uplink", config.uplink, {}, answers=True)


def _broker(
    board: Board, name: str, table: BrokerTable, filters: dict[str, int], *, answers: bool
) -> Iterator[Finding]:
    try:
        with board.as_owner():
            base = f"{board.config.results.prefix}/{board.config.device.name}"
            result = probe(board.broker_options(table), base, filters, timeout=10.0)
    except EdgedError as error:
        yield Finding(name, error.message, error)
        return
    yield Finding(name, str(result))
    for remark in remarks(result, filters, answers=answers):
        yield Finding(f"{name} {remark.what}", remark.detail, remark.error)


# --- remarks: the meaning of a broker's answers for this board


class Remark(NamedTuple):
    """A remark about a broker: a detail, or the error if the board cannot do without."""

    what: str
    detail: str
    error: BrokerError | None = None


def remarks(result: ProbeResult, filters: Mapping[str, int], *, answers: bool) -> Iterator[Remark]:
    """Yield remarks on the answers of a broker.

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
