"""A hub without a broker: whatever the order in which messages come, each result opens once."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edged.formats.channel.hub
from edged.base.errors import KeystoreError, MismatchError
from edged.formats.channel.hub import Hub, Taken
from edged.formats.channel.ledger import RamLedger
from edged.formats.cose import cbor
from edged.formats.cose.keys import Keys
from support.parties import NOW, Board, seal
from support.parties import Hub as HubKeys

DAY = 86_400.0


def topic(level: str, board: str = "press-07") -> str:
    return f"edged/{board}/{level}"


def refusals(taken: Taken) -> list[str]:
    return [type(one.error).__name__ for one in taken.refused]


def open_hub(keys: HubKeys, *boards: Board, ledger: RamLedger | None = None) -> Hub:
    records = [board.record for board in boards]
    return Hub(Keys(keys.sign, keys.key), records, ledger=ledger)


def test_a_publishers_keys_make_no_hub() -> None:
    with pytest.raises(KeystoreError, match="opens nothing"):
        Hub(Keys(HubKeys().sign, None), [])


def test_a_record_of_a_hub_is_no_boards() -> None:
    keys = HubKeys()
    with pytest.raises(MismatchError, match="hub home is not that of a device"):
        Hub(Keys(keys.sign, keys.key), [keys.record])


def test_announce_topics_are_subscribed_to_by_name() -> None:
    hub = open_hub(HubKeys(), Board(), Board("press-08"))
    assert hub.topics == [topic(level, board) for board in ("press-07", "press-08") for level in ("announce", "+")]


def test_a_result_that_comes_first_is_held_and_opens_behind_its_announcement() -> None:
    board, keys = Board(), HubKeys()
    hub, announcer = open_hub(keys, board), board.announcer(keys)
    for _ in range(2):
        assert hub.take(topic("c1"), seal(announcer), now=NOW) == Taken([], [], [], [], [])
    taken = hub.take(topic("announce"), announcer.announcement(NOW), now=NOW)
    assert [one.count for one in taken.opened] == [1, 2]
    assert (taken.announced, refusals(taken)) == ([("press-07", 1)], [])


def test_the_same_announcement_again_announces_nothing_new() -> None:
    board, keys = Board(), HubKeys()
    hub, announcer = open_hub(keys, board), board.announcer(keys)
    announced = announcer.announcement(NOW)
    assert hub.take(topic("announce"), announced, now=NOW).announced == [("press-07", 1)]
    assert hub.take(topic("announce"), announced, now=NOW) == Taken([], [], [], [], [])


def test_what_asks_nothing_of_a_hub_has_no_outcome() -> None:
    hub = open_hub(HubKeys(), Board())
    for level, payload in (("status", b"online"), ("nonce", b"a question of another hub")):
        assert hub.take(topic(level), payload, now=NOW) == Taken([], [], [], [], [])


@pytest.mark.parametrize("level", ["announce", "c1", "health", "inventory"])
def test_a_stranger_is_refused(level: str) -> None:
    keys, stranger = HubKeys(), Board("press-08")
    announcer = stranger.announcer(keys)
    payload = announcer.announcement(NOW) if level == "announce" else seal(announcer)
    hub = open_hub(keys, Board())
    for _ in range(2):  # the second is no echo: a stranger leaves nothing behind
        assert refusals(hub.take(topic(level, "press-08"), payload, now=NOW)) == ["UnknownSignerError"]


def test_a_retained_result_is_refused() -> None:
    board, keys = Board(), HubKeys()
    hub, announcer = open_hub(keys, board), board.announcer(keys)
    hub.take(topic("announce"), announcer.announcement(NOW), now=NOW)
    assert refusals(hub.take(topic("c1"), seal(announcer), retained=True, now=NOW)) == ["FormatError"]


def test_an_announcement_refused_twice_at_once_is_refused_once() -> None:
    """It arrived through two subscriptions that overlap."""
    board, keys, other = Board(), HubKeys(), HubKeys()
    hub, announced = open_hub(keys, board), board.announcer(other).announcement(NOW)
    found = [refusals(hub.take(topic("announce"), announced, now=NOW)) for _ in range(2)]
    assert found == [["NotARecipientError"], []]


def test_a_board_whose_announcement_lapsed_is_asked_and_believed_when_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board, keys = Board(), HubKeys()
    hub, announcer = open_hub(keys, board), board.announcer(keys)
    later = NOW + 3 * DAY
    first = hub.take(topic("announce"), announcer.announcement(NOW), now=later)
    assert refusals(first) == ["ExpiredError"]
    (question,) = first.questions
    assert question.topic == topic("nonce")
    announcer.asked(*cbor.decode(question.payload))
    assert not hub.take(topic("announce"), announcer.announcement(NOW + 1), now=later).refused
    assert len(hub.take(topic("c1"), seal(announcer), now=later).opened) == 1
    silent = hub.take(topic("c1"), seal(announcer), now=later + 3 * DAY)
    assert (refusals(silent), silent.questions) == (["ExpiredError"], []), "asked a moment ago"
    monkeypatch.setattr(edged.formats.channel.hub, "_ASK_EVERY", -1.0)
    assert len(hub.take(topic("c1"), seal(announcer), now=later + 3 * DAY).questions) == 1


def test_what_waits_is_bounded_and_a_board_that_floods_loses_its_own() -> None:
    board, flood, keys = Board(), Board("press-08"), HubKeys()
    hub, announcer, flooding = open_hub(keys, board, flood), board.announcer(keys), flood.announcer(keys)
    hub.take(topic("c1"), seal(announcer), now=NOW)
    lost: list[str] = []
    for _ in range(1000):
        lost += [one.topic for one in hub.take(topic("c1", "press-08"), seal(flooding), now=NOW).refused]
    assert 400 < len(lost) < 600
    assert set(lost) == {topic("c1", "press-08")}
    opened = hub.take(topic("announce"), announcer.announcement(NOW), now=NOW).opened
    assert [one.device for one in opened] == ["press-07"]
    opened = hub.take(topic("announce", "press-08"), flooding.announcement(NOW), now=NOW).opened
    assert [one.count for one in opened] == list(range(len(lost) + 1, 1001)), "the newest have stayed, in their order"


def test_what_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    board, keys = Board(), HubKeys()
    hub, announcer = open_hub(keys, board), board.announcer(keys)
    hub.take(topic("c1"), seal(announcer), now=NOW)
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 601)
    assert refusals(hub.take(topic("status"), b"online", now=NOW)) == ["UnknownKeyError"]
    assert not hub.take(topic("announce"), announcer.announcement(NOW), now=NOW).opened


def test_a_hub_that_shares_its_ledger_holds_results_until_it_has_heard_the_newest_announcement() -> None:
    """Another process of the same hub has heard of a newer epoch: results of the older one may be closed by now."""
    board, keys, ledger = Board(), HubKeys(), RamLedger()
    announcer = board.announcer(keys)
    first, second = (open_hub(keys, board, ledger=ledger) for _ in range(2))
    first.take(topic("announce"), announcer.announcement(NOW), now=NOW)
    sealed = seal(announcer)
    announcer.rotate()
    announced = announcer.announcement(NOW)
    second.take(topic("announce"), announced, now=NOW)
    assert first.take(topic("c1"), sealed, now=NOW) == Taken([], [], [], [], [])
    assert len(first.take(topic("announce"), announced, now=NOW).opened) == 1
    assert refusals(second.take(topic("c1"), sealed, now=NOW)) == ["ReplayError"]


class Life:
    """A board, and a hub that restarts: it has its ledger, and its broker redelivers what had not opened."""

    def __init__(self) -> None:
        self.board, self.keys, self.ledger = Board(), HubKeys(), RamLedger()
        self.announcer = self.board.announcer(self.keys)
        self.sealed: list[bytes] = []
        self.waiting: list[bytes] = []
        self.opened: list[tuple[bytes, int]] = []
        self.restart()

    def take(self, level: str, *payloads: bytes) -> None:
        for payload in payloads:
            taken = self.hub.take(topic(level), payload, now=NOW)
            assert set(refusals(taken)) <= {"ReplayError"}
            self.opened += [(one.kid, one.count) for one in taken.opened]

    def restart(self) -> None:
        self.hub = open_hub(self.keys, self.board, ledger=self.ledger)
        self.take("c1", *self.waiting)

    def seal(self) -> None:
        self.sealed.append(seal(self.announcer))
        self.waiting.append(self.sealed[-1])
        self.take("c1", self.sealed[-1])

    def announce(self) -> None:
        self.take("announce", self.announcer.announcement(NOW))
        self.waiting.clear()

    def rotate(self) -> None:
        self.announcer.rotate()

    def replay(self) -> None:
        """Replay what has opened; under a key that this hub does not know yet it waits, and is refused then."""
        self.take("c1", *(one for one in self.sealed if one not in self.waiting))


@given(st.lists(st.sampled_from(["seal", "seal", "announce", "rotate", "replay", "restart"]), max_size=30))
def test_each_result_opens_once_whatever_the_order_of_announcements_results_and_restarts(steps: list[str]) -> None:
    life = Life()
    for step in (*steps, "announce"):
        getattr(life, step)()
    assert len(life.opened) == len(set(life.opened)) == len(life.sealed)
