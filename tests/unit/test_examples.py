"""Windows that are kept to train with: bounded, sealed, this board's alone, and gone when they are erased."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import EdgedError, NotARecipientError, StateError
from edged.board.examples import ExampleEditor, Examples, Intake, Like, Of, StoreKeys, Which, Window
from edged.board.examples.edits import Group, plan
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import Agreement, PrivateKey
from edged.formats.spec import Decide, Features, Normalise, Output, fingerprint
from support.lanes import FakeModel

CHAIN, OLDER = bytes([1]) * 32, bytes([2]) * 32
GEARBOX, PRESS = Of("gearbox", CHAIN), Of("press", CHAIN)
SHAPE = (4, 2)
PLAIN = 4 * 8
LIKE = Like(CHAIN, SHAPE, 3)
PLENTY = 10**9


class Keys:
    """A board's keys, those that it had before, and nobody else's."""

    def __init__(self, *former: Keys) -> None:
        self.sign, self.ecdh = PrivateKey.generate(), PrivateKey.generate()
        self.former = former

    def store(self) -> StoreKeys:
        signers = [self.sign.public, *(one.sign.public for one in self.former)]
        return StoreKeys(self.sign, self.ecdh.public, opener=self.opener, signers=signers)

    def opener(self, sealed: Encrypt) -> Agreement:
        kids = {recipient.kid for recipient in sealed.recipients}
        for keys in (self, *self.former):
            if keys.ecdh.public.thumbprint in kids:
                return keys.ecdh
        raise NotARecipientError("sealed to others")


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def store(state: Path, keys: Keys) -> Iterator[Examples]:
    with closing(Examples(state, keys.store())) as examples:
        yield examples


def window(at: int, label: int | None = 0, value: float | None = None) -> Window:
    values = np.full(SHAPE, at if value is None else value, "<f4")
    return Window(label, at, values.tobytes())


def add(store: Examples, *windows: Window, of: Of = GEARBOX, most: int = PLENTY) -> int:
    return Intake(store).add(of, windows, most)


def times(store: Examples, *labels: int) -> list[int]:
    rows = store.db.execute("SELECT at, label FROM example ORDER BY at")
    return [at for at, label in rows if not labels or label in labels]


def on_disk(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(state.glob("examples.db*")))


# --- what goes in comes out ------------------------------------------------------------------


def test_windows_come_out_as_they_went_in_with_their_labels(store: Examples) -> None:
    add(store, window(2, 1), window(1, 0), window(3, 2))
    loaded = store.load("gearbox", LIKE)
    assert loaded.x.dtype == loaded.y.dtype == np.float32
    assert loaded.x.tolist() == [np.full(SHAPE, at).tolist() for at in (1, 2, 3)]
    assert loaded.y.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert not loaded.left_out


def test_an_anomaly_detector_learns_the_window_itself(store: Examples) -> None:
    add(store, window(1, None), window(2, None))
    loaded = store.load("gearbox", Like(CHAIN, (8,), 0))
    assert loaded.x.shape == (2, 8)
    assert loaded.y is loaded.x


def test_a_model_without_windows_has_none(store: Examples) -> None:
    loaded = store.load("gearbox", LIKE)
    assert (loaded.x.shape, loaded.y.shape) == ((0, *SHAPE), (0, 3))


def test_windows_that_do_not_fit_are_left_out_and_counted(store: Examples) -> None:
    add(store, window(1), window(2, None), window(3, 3))
    add(store, window(4), of=Of("gearbox", OLDER))
    add(store, window(5), of=PRESS)
    add(store, Window(0, 6, bytes(PLAIN - 4)))
    loaded = store.load("gearbox", LIKE)
    assert len(loaded.x) == 1
    assert loaded.left_out == {"no label": 1, "another size": 2, "older chain": 1}


def test_another_process_reads_while_one_writes(state: Path, store: Examples, keys: Keys) -> None:
    """The federated client is one, with the same keys."""
    add(store, window(1))
    with closing(Examples(state, keys.store())) as reader:
        assert len(reader.load("gearbox", LIKE).x) == 1
        add(store, window(2))
        assert len(reader.load("gearbox", LIKE).x) == 2


def test_what_is_written_survives_and_is_never_sealed_under_an_old_key_again(state: Path, keys: Keys) -> None:
    for at in (1, 2, 3):
        with closing(Examples(state, keys.store())) as examples:
            add(examples, window(at))
            assert len(examples.load("gearbox", LIKE).x) == at
            assert len(examples.stored_keys()) == at


def test_no_nonce_repeats_under_a_key_also_when_writing_fails(store: Examples) -> None:
    """A write that fails may have left its bytes on the disk."""
    seen: list[bytes] = []
    _, sealer = store.sealer(GEARBOX)
    seal = sealer.seal
    sealer.seal = lambda *one: seen.append(made := seal(*one)) or made  # type: ignore[method-assign,func-returns-value]
    add(store, window(1), window(2))
    store.db.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON example BEGIN SELECT raise(ABORT, 'disk full'); END")
    with pytest.raises(StateError):
        add(store, window(3))
    store.db.execute("DROP TRIGGER full")
    add(store, window(4))
    ivs = [made[made.index(b"\x05\x4c") + 2 :][:12] for made in seen]
    assert len(ivs) == 4 == len(set(ivs))
    assert times(store) == [1, 2, 4]


# --- the bound -------------------------------------------------------------------------------

SEALED = 81
"""Bytes of a sealed window of 32."""


def test_a_window_takes_its_bytes_and_a_little(store: Examples) -> None:
    add(store, window(1))
    assert store.classes()[0].size == SEALED


def by_group(store: Examples) -> dict[tuple[bytes, int | None], list[int]]:
    """Return when windows of the gearbox came, in order, by chain and label."""
    groups: dict[tuple[bytes, int | None], list[int]] = {}
    query = "SELECT chain, label, at FROM example JOIN example_key k ON k.number = key WHERE model = 'gearbox'"
    for chain, label, at in store.db.execute(f"{query} ORDER BY at"):
        groups.setdefault((chain, label), []).append(at)
    return groups


@settings(max_examples=60)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from([None, 0, 0, 0, 1, 2]), st.booleans()), max_size=12), max_size=12
    ),
    room=st.integers(0, 24),
)
def test_the_bound_holds_after_every_write(
    batches: list[list[tuple[int | None, bool]]], room: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of each label the oldest go, and nothing of another model."""
    most = room * SEALED + SEALED // 2
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o700)
    with closing(Examples(state, Keys().store())) as store:
        intake = Intake(store)
        intake.add(PRESS, [window(0)], PLENTY)
        at = 0
        for batch in batches:
            for of, older in ((GEARBOX, False), (Of("gearbox", OLDER), True)):
                made = []
                for label, is_older in batch:
                    if is_older == older:
                        at += 1
                        made.append(window(at, label))
                before = by_group(store)
                intake.add(of, made, most)
                after = by_group(store)
                assert sum(map(len, after.values())) * SEALED == intake.sizes.get("gearbox", 0) <= most
                for group, was in before.items():
                    stay = [at for at in after.get(group, []) if at in was]
                    assert stay == was[len(was) - len(stay) :], "the oldest go"
        assert [one.windows for one in store.classes() if one.model == "press"] == [1]


@given(
    st.lists(
        st.builds(
            lambda usable, label, windows: Group(usable, label, windows, windows * 100),
            st.booleans(), st.one_of(st.none(), st.integers(0, 5)), st.integers(1, 500),
        ),
        max_size=8, unique_by=lambda group: group[:2],
    ),
    st.integers(0, 200_000),
)  # fmt: skip
def test_as_much_goes_as_must_the_useless_first_and_then_of_the_most_frequent_label(
    groups: list[Group], excess: int
) -> None:
    gone = plan(groups, excess)
    assert sum(gone) == min(-(-excess // 100), sum(group.windows for group in groups))
    useless = sum(count for group, count in zip(groups, gone, strict=True) if not group.usable)
    usable = [(group.windows, count) for group, count in zip(groups, gone, strict=True) if group.usable]
    if any(count for _, count in usable):
        assert useless == sum(group.windows for group in groups if not group.usable)
    left = [windows - count for windows, count in usable if count]
    if left:  # those that lost any are the largest still, and about as large as each other
        slack = 1 + sum(gone) // len(groups)
        assert max(left) - min(left) <= slack
        assert all(windows - count <= min(left) + slack for windows, count in usable)


def test_a_rare_label_stays_among_many_of_another(store: Examples) -> None:
    most = 32 * SEALED
    intake = Intake(store)
    intake.add(GEARBOX, [window(at, 1) for at in range(5)], most)
    for at in range(100, 1100, 10):
        intake.add(GEARBOX, [window(at + one, 0) for one in range(10)], most)
    assert times(store, 1) == [0, 1, 2, 3, 4]
    assert times(store, 0)[-1] == 1099, "the newest are there"


def test_unlabelled_windows_are_one_more_label(store: Examples) -> None:
    """A store full of labelled ones goes on taking what an operator has not seen yet."""
    most = 40 * SEALED
    add(store, *(window(at, at % 2) for at in range(40)), most=most)
    for at in range(100, 400, 5):
        add(store, *(window(at + one, None) for one in range(5)), most=most)
    kept = Counter({one.label: one.windows for one in store.classes()})
    assert kept[None] >= 10
    assert kept[0] >= 10 <= kept[1]


def test_what_another_chain_prepared_gives_way_first(store: Examples) -> None:
    most = 20 * SEALED
    add(store, *(window(at) for at in range(10, 20)), of=Of("gearbox", OLDER), most=most)
    add(store, *(window(at) for at in range(10)), most=most)
    add(store, *(window(at) for at in range(30, 38)), most=most)
    loaded = store.load("gearbox", LIKE)
    assert len(loaded.x) == 18
    assert loaded.left_out["older chain"] < 2


def test_a_key_goes_with_its_last_window(state: Path, keys: Keys) -> None:
    most = 8 * SEALED
    with closing(Examples(state, keys.store())) as before:
        add(before, *(window(at) for at in range(8)), most=most)
    with closing(Examples(state, keys.store())) as store:
        add(store, *(window(at) for at in range(8, 16)), most=most)
        assert len(store.stored_keys()) == 1


# --- what stands on the disk -----------------------------------------------------------------


def test_nothing_of_a_window_stands_on_the_disk(state: Path, store: Examples) -> None:
    canary = np.frombuffer(os.urandom(8 * 4), "<u4") & 0x3FFFFFFF
    add(store, *(Window(1, at, canary.tobytes()) for at in range(50)))
    assert store.load("gearbox", LIKE).x[0].tobytes() == canary.tobytes()
    assert canary.tobytes()[:8] not in on_disk(state)
    assert canary[:2].byteswap().tobytes() not in on_disk(state)


def test_the_files_are_their_owners_alone(state: Path, store: Examples) -> None:
    add(store, window(1))
    assert {path.stat().st_mode & 0o777 for path in state.glob("examples.db*")} == {0o600}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE example SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || x'00' AS BLOB) WHERE number = 1",
        "UPDATE example SET sealed = x'' WHERE number = 1",
        "UPDATE example SET label = 2 WHERE number = 1",
        "UPDATE example SET at = at + 1 WHERE number = 1",
        "UPDATE example SET sealed = (SELECT sealed FROM example WHERE number = 2) WHERE number = 1",
    ],
)
def test_a_row_that_was_altered_is_refused_and_counted(store: Examples, change: str) -> None:
    add(store, window(1, 0), window(2, 1), window(3, 2))
    store.db.execute(change)
    loaded = store.load("gearbox", LIKE)
    assert len(loaded.x) == 2
    assert loaded.left_out == {"unreadable": 1}


def test_windows_of_one_model_are_none_of_anothers(store: Examples) -> None:
    """Also where the whole key is moved."""
    add(store, window(1))
    store.db.execute("UPDATE example_key SET model = 'press'")
    assert store.load("press", LIKE).left_out == {"unreadable": 1}


def test_windows_of_another_chain_are_not_made_to_fit(store: Examples) -> None:
    add(store, window(1), of=Of("gearbox", OLDER))
    store.db.execute("UPDATE example_key SET chain = ?", (CHAIN,))
    assert store.load("gearbox", LIKE).left_out == {"unreadable": 1}


def test_another_boards_key_opens_nothing(state: Path, store: Examples) -> None:
    add(store, window(1), window(2))
    with closing(Examples(state, Keys().store())) as thief:
        loaded = thief.load("gearbox", LIKE)
    assert not len(loaded.x)
    assert loaded.left_out == {"unreadable": 2}


def test_who_knows_the_boards_public_keys_adds_no_window(state: Path, store: Examples, keys: Keys) -> None:
    """They stand in its record, and anything can be sealed to them."""
    forger = Keys()
    made = StoreKeys(forger.sign, keys.ecdh.public, opener=keys.opener, signers=[])
    with closing(Examples(state, made)) as forged:
        add(forged, window(1))
        assert len(forged.load("gearbox", LIKE).x) == 1
    assert store.load("gearbox", LIKE).left_out == {"unreadable": 1}


def test_after_a_migration_windows_are_opened_by_the_new_keys_alone(state: Path) -> None:
    old = Keys()
    with closing(Examples(state, old.store())) as examples:
        add(examples, window(1))
    new = Keys(old)
    with closing(Examples(state, new.store())) as examples:
        assert len(examples.load("gearbox", LIKE).x) == 1
        Intake(examples).renew_keys()
    new.former = ()  # as after `edged keystore forget-old`
    with closing(Examples(state, new.store())) as examples:
        assert len(examples.load("gearbox", LIKE).x) == 1


# --- labels ----------------------------------------------------------------------------------


def test_windows_of_a_time_get_a_label_and_lose_it_again(store: Examples) -> None:
    add(store, *(window(at, None) for at in range(10)))
    assert ExampleEditor(store).label(GEARBOX, 3, 5, 2) == (3, 0)
    assert ExampleEditor(store).label(GEARBOX, 5, 6, 1) == (2, 0)
    loaded = store.load("gearbox", LIKE)
    assert loaded.x[:, 0, 0].tolist() == [3, 4, 5, 6]
    assert loaded.y.argmax(axis=1).tolist() == [2, 2, 1, 1]
    assert ExampleEditor(store).label(GEARBOX, 0, 9, None) == (10, 0)
    assert store.load("gearbox", LIKE).left_out == {"no label": 10}
    assert ExampleEditor(store).label(GEARBOX, 0, 9, 0) == (10, 0)
    assert len(store.stored_keys()) == 1, "keys without windows are destroyed"


def test_a_window_that_does_not_open_gets_no_label(store: Examples) -> None:
    add(store, window(1, None), window(2, None))
    store.db.execute("UPDATE example SET sealed = CAST(sealed || x'00' AS BLOB) WHERE at = 1")
    assert ExampleEditor(store).label(GEARBOX, 0, 9, 1) == (1, 1)


def test_a_daemon_goes_on_under_a_key_of_its_own_after_its_windows_were_labelled(
    state: Path, store: Examples, keys: Keys
) -> None:
    intake = Intake(store)
    intake.add(GEARBOX, [window(1, None)], PLENTY)
    with closing(Examples(state, keys.store())) as other:
        ExampleEditor(other).label(GEARBOX, 0, 9, 1)
    intake.add(GEARBOX, [window(2, 1)], PLENTY)
    assert store.load("gearbox", LIKE).y.argmax(axis=1).tolist() == [1, 1]


# --- erasing ---------------------------------------------------------------------------------


def sealed_of(store: Examples) -> dict[int, bytes]:
    return dict(store.db.execute("SELECT at, sealed FROM example"))


def test_erasing_leaves_neither_windows_nor_keys(state: Path, store: Examples) -> None:
    add(store, *(window(at) for at in range(200)))
    add(store, window(1), of=PRESS)
    sealed = sealed_of(store)
    signed = [stored.signed for stored in store.stored_keys("gearbox")]
    held = on_disk(state)
    assert all(one[-16:] in held for one in (*sealed.values(), *signed))

    assert ExampleEditor(store).erase(Which("gearbox")) == 200

    held = on_disk(state)
    assert not [at for at, one in sealed.items() if at != 1 and one[-16:] in held]
    assert not [one for one in signed if one[-16:] in held]
    assert [one.model for one in store.classes()] == ["press"]
    assert ExampleEditor(store).erase(Which()) == 1
    assert store.stored_keys() == []


def test_what_stays_when_a_part_is_erased_is_sealed_anew(state: Path, store: Examples) -> None:
    """So that the key of what is gone is gone, too."""
    add(store, *(window(at, at % 3) for at in range(30)))
    sealed, (key,) = sealed_of(store), store.stored_keys()

    assert ExampleEditor(store).erase(Which("gearbox", CHAIN, label=1)) == 10
    assert ExampleEditor(store).erase(Which("gearbox", before=15)) == 10

    held = on_disk(state)
    assert not [one for one in sealed.values() if one[-16:] in held]
    assert key.signed[-16:] not in held
    loaded = store.load("gearbox", LIKE)
    assert loaded.x[:, 0, 0].tolist() == [at for at in range(15, 30) if at % 3 != 1]
    assert not loaded.left_out


def test_what_does_not_open_goes_with_the_key_that_is_erased(store: Examples) -> None:
    add(store, *(window(at, at % 2) for at in range(4)))
    store.db.execute("UPDATE example SET sealed = CAST(sealed || x'00' AS BLOB) WHERE at = 3")
    ExampleEditor(store).erase(Which("gearbox", before=1))
    assert times(store) == [1, 2]


def test_erasing_all_needs_no_keys(state: Path, store: Examples) -> None:
    """Those of a TPM that died, for instance. To keep a part, what stays must be sealed anew."""
    add(store, window(1), window(2))
    with closing(Examples(state, None)) as keyless:
        with pytest.raises(EdgedError):
            ExampleEditor(keyless).erase(Which("gearbox", before=2))
        assert times(keyless) == [1, 2]
        assert ExampleEditor(keyless).erase(Which("gearbox")) == 2


def test_a_daemon_stores_nothing_that_was_erased_before_it_came_to_it(
    state: Path, store: Examples, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows wait in RAM for half a minute."""
    now = 1_800_000_000 * 10**6
    monkeypatch.setattr("time.time_ns", lambda: now * 1000)
    intake = Intake(store)
    intake.add(GEARBOX, [window(now - 9)], PLENTY)
    with closing(Examples(state, keys.store())) as other:
        ExampleEditor(other).erase(Which("gearbox"))
    assert intake.add(GEARBOX, [window(now - 5), window(now + 5)], PLENTY) == 1
    assert intake.add(PRESS, [window(now - 5)], PLENTY) == 1
    assert intake.add(GEARBOX, [window(5)], PLENTY) == 1, "of a clock that is not set yet"
    assert times(store) == [5, now - 5, now + 5]
    assert len(store.load("gearbox", LIKE).x) == 2


def test_a_damaged_store_that_was_put_aside_is_erased_with_it(state: Path, store: Examples) -> None:
    aside = state / "examples.db.damaged"
    aside.write_bytes(b"sealed windows")
    ExampleEditor(store).erase(Which())
    assert not aside.exists()


def test_erasing_says_so_where_another_process_holds_what_it_should_overwrite(
    state: Path, store: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.base.database._BUSY_SECONDS", 0.1)
    add(store, window(1))
    with closing(Examples(state, None)) as other, closing(sqlite3.connect(state / "examples.db")) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM example").fetchone()
        with pytest.raises(StateError, match="another process is reading"):
            ExampleEditor(other).erase(Which())


# --- which chain -----------------------------------------------------------------------------


def test_new_weights_and_decisions_use_the_same_windows_and_another_chain_does_not() -> None:
    chain = FakeModel().manifest
    assert fingerprint(FakeModel(2, decide=Decide(watch="broken", enter=0.9)).manifest) == fingerprint(chain)
    others = [
        FakeModel(features=Features(use=("mean",))),
        FakeModel(normalise=Normalise(method="zscore", mean=1.0, std=2.0)),
        FakeModel(output=Output(kind="classifier", labels=("broken", "healthy"))),
    ]
    assert len({fingerprint(chain), *(fingerprint(one.manifest) for one in others)}) == 4
