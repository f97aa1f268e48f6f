"""The durable state of a hub: its ledger of accepted messages, the queue for the local broker, and what is shown.

Several hub processes may share one ``hub.db``: each transaction sees what the others have accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

from edged.base.database import Database, Layout
from edged.formats.channel import Believed
from edged.formats.channel.ledger import ANSWERED, Answers, is_repeated
from edged.hub.topics import MOST_SOURCES, Place

_BLOCK = 4096
"""Counts whose bits stand in one row."""
_MOST_CACHED = 4096
_PRUNE_EVERY = 512

HUB = Layout(
    "hub.db",
    3,
    """
CREATE TABLE IF NOT EXISTS believed (
    device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, serial INTEGER NOT NULL, kid BLOB NOT NULL, signs INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS accepted (
    device TEXT NOT NULL, kid BLOB NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL,
    PRIMARY KEY (device, kid, block)
) STRICT, WITHOUT ROWID;
DROP TABLE IF EXISTS answered;
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, what BLOB NOT NULL, epoch INTEGER NOT NULL,
    fresh INTEGER NOT NULL, redelivered INTEGER NOT NULL, UNIQUE (device, what, epoch)
) STRICT;
CREATE TABLE IF NOT EXISTS queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,
    retain INTEGER NOT NULL
) STRICT;
DROP TABLE IF EXISTS shown;
CREATE TABLE IF NOT EXISTS newest (
    device TEXT NOT NULL, channel TEXT NOT NULL, source TEXT NOT NULL, epoch INTEGER NOT NULL, count INTEGER NOT NULL,
    payload BLOB NOT NULL, PRIMARY KEY (device, channel, source)
) STRICT;
CREATE TABLE IF NOT EXISTS inventory (
    device TEXT PRIMARY KEY, content BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS published (
    topic TEXT PRIMARY KEY
) STRICT;
CREATE TABLE IF NOT EXISTS configuration (
    device TEXT PRIMARY KEY, payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS farewell (
    topic TEXT PRIMARY KEY, payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS fact (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL
) STRICT;
""",
)


class Queued(NamedTuple):
    """A message for the local broker."""

    number: int
    topic: str
    payload: bytes
    retain: bool


class HubState(Database):
    """A hub's ledger, its queue, and what it shows. All methods but those that say otherwise want a transaction.

    :param instance: name of this process, where several share the state.
    :raises StateError: it cannot be opened.
    """

    layout: ClassVar[Layout] = HUB

    def __init__(self, directory: Path, instance: str = "") -> None:
        super().__init__(directory)
        self._instance = instance
        self._bits: dict[tuple[str, bytes, int], bytearray] = {}
        self._changed: set[tuple[str, bytes, int]] = set()
        self._version = -1
        self._answers = 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Run the block in one transaction, which is durable when the block ends."""
        try:
            with self.transaction():
                (version,) = self.db.execute("PRAGMA data_version").fetchone()
                if version != self._version or len(self._bits) > _MOST_CACHED:
                    self._bits.clear()  # another process has written
                    self._version = version
                yield
                self.db.executemany(
                    "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?)",
                    [(*key, bytes(self._bits[key])) for key in self._changed],
                )
        except BaseException:
            self._bits.clear()
            raise
        finally:
            self._changed.clear()

    # --- the ledger (edged.formats.channel.ledger)

    def believed(self, device: str) -> Believed | None:
        """Return the newest announcement of a board that was believed."""
        row = self.db.execute("SELECT epoch, serial, kid, signs FROM believed WHERE device = ?", (device,)).fetchone()
        return Believed(row[0], row[1], row[2], bool(row[3])) if row else None

    def believe(self, device: str, announced: Believed) -> None:
        """Keep the newest announcement of a board that is believed."""
        self.db.execute("INSERT OR REPLACE INTO believed VALUES (?, ?, ?, ?, ?)", (device, *announced))

    def forget_epochs(self, device: str, kids: Collection[bytes]) -> None:
        """Forget which counts of a board were accepted under keys other than these: nothing opens under them."""
        self.db.execute(
            f"DELETE FROM accepted WHERE device = ? AND kid NOT IN ({','.join('?' * len(kids))})",  # noqa: S608  marks
            (device, *kids),
        )
        for key in [key for key in self._bits if key[0] == device and key[1] not in kids]:
            del self._bits[key]
            self._changed.discard(key)

    def is_marked(self, device: str, kid: bytes, count: int) -> bool:
        """Return True if a message of that count was accepted."""
        block, bit = divmod(count, _BLOCK)
        return bool(self._block((device, kid, block))[bit >> 3] >> (bit & 7) & 1)

    def mark(self, device: str, kid: bytes, count: int) -> None:
        """Accept a count."""
        block, bit = divmod(count, _BLOCK)
        key = (device, kid, block)
        self._block(key)[bit >> 3] |= 1 << (bit & 7)
        self._changed.add(key)

    def _block(self, key: tuple[str, bytes, int]) -> bytearray:
        bits = self._bits.get(key)
        if bits is None:
            row = self.db.execute(
                "SELECT bits FROM accepted WHERE device = ? AND kid = ? AND block = ?", key
            ).fetchone()
            bits = self._bits[key] = bytearray(row[0]) if row else bytearray(_BLOCK // 8)
        return bits

    def answer(self, device: str, what: bytes, epoch: int, *, redelivered: bool) -> bool:
        """Note a result; return True if it answers a reading that no result before has answered."""
        rows = self.db.execute(
            "SELECT epoch, fresh, redelivered FROM answers WHERE device = ? AND what = ?", (device, what)
        )
        answers = {number: Answers(*counts) for number, *counts in rows}
        repeated = is_repeated(answers, epoch, redelivered=redelivered)
        self.db.execute(
            "INSERT OR REPLACE INTO answers (device, what, epoch, fresh, redelivered) VALUES (?, ?, ?, ?, ?)",
            (device, what, epoch, *answers[epoch]),
        )
        self._answers += 1
        if self._answers % _PRUNE_EVERY == 0:
            self._prune(device)
        return not repeated

    def _prune(self, device: str) -> None:
        """Forget the oldest answers; redelivered ones for themselves: what they repeat may wait behind many others."""
        self.db.executemany(
            "DELETE FROM answers WHERE device = ?1 AND (redelivered > 0) = ?3 AND number <= (SELECT number FROM answers"
            " WHERE device = ?1 AND (redelivered > 0) = ?3 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            [(device, ANSWERED, again) for again in (False, True)],
        )

    # --- the queue

    def queue(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Queue a message for the local broker."""
        self.db.execute(
            "INSERT INTO queue (instance, topic, payload, retain) VALUES (?, ?, ?, ?)",
            (self._instance, topic, payload, retain),
        )

    def queued(self, after: int, limit: int) -> list[Queued]:
        """Return up to ``limit`` queued messages from behind a number, in order. Wants no transaction."""
        with self.wrapped():
            rows = self.db.execute(
                "SELECT number, topic, payload, retain FROM queue WHERE instance = ? AND number > ?"
                " ORDER BY number LIMIT ?",
                (self._instance, after, limit),
            ).fetchall()
        return [Queued(number, topic, payload, bool(retain)) for number, topic, payload, retain in rows]

    def count_queued(self) -> int:
        """Return how many messages wait. Wants no transaction."""
        with self.wrapped():
            (count,) = self.db.execute("SELECT count(*) FROM queue WHERE instance = ?", (self._instance,)).fetchone()
        return int(count)

    def unqueue(self, numbers: Iterable[int]) -> None:
        """Remove messages that the local broker has."""
        self.db.executemany("DELETE FROM queue WHERE number = ?", [(number,) for number in numbers])

    def drop_oldest(self, keep: int) -> int:
        """Remove all queued messages but the newest ``keep``; return how many those were."""
        return self.db.execute(
            "DELETE FROM queue WHERE instance = ?1 AND number <= (SELECT number FROM queue WHERE instance = ?1"
            " ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (self._instance, keep),
        ).rowcount

    # --- what is shown

    def show(self, device: str, place: Place, epoch: int, count: int, payload: bytes) -> bool:
        """Keep a result as the newest of its place; return False if a newer one is kept already.

        Beyond :data:`MOST_SOURCES` of a channel the place with the oldest result is forgotten.
        """
        changed = self.db.execute(
            "UPDATE newest SET epoch = ?4, count = ?5, payload = ?6 WHERE (device, channel, source) = (?1, ?2, ?3)"
            " AND (epoch, count) < (?4, ?5)",
            (device, *place, epoch, count, payload),
        ).rowcount
        if changed:
            return True
        added = self.db.execute(
            "INSERT OR IGNORE INTO newest VALUES (?, ?, ?, ?, ?, ?)", (device, *place, epoch, count, payload)
        ).rowcount
        if added and place.source:
            self.db.execute(
                "DELETE FROM newest WHERE (device, channel) = (?1, ?2) AND (epoch, count) <= (SELECT epoch, count FROM"
                " newest WHERE (device, channel) = (?1, ?2) ORDER BY epoch DESC, count DESC LIMIT 1 OFFSET ?3)",
                (device, place.channel, MOST_SOURCES),
            )
        return bool(added)

    def shown(self) -> list[tuple[str, Place, bytes]]:
        """Return the newest result of each place, with its board, the oldest first. Wants no transaction."""
        with self.wrapped():
            rows = self.db.execute("SELECT device, channel, source, payload FROM newest ORDER BY epoch, count")
            return [(device, Place(channel, source), payload) for device, channel, source, payload in rows]

    def keep_inventory(self, device: str, content: bytes) -> None:
        """Keep the last inventory of a board."""
        self.db.execute("INSERT OR REPLACE INTO inventory VALUES (?, ?)", (device, content))

    def inventories(self) -> dict[str, bytes]:
        """Return the last inventory of each board. Wants no transaction."""
        with self.wrapped():
            return dict(self.db.execute("SELECT device, content FROM inventory").fetchall())

    def forget(self, device: str, place: Place | None = None) -> None:
        """Forget inventory and results of a board, or the result of one place of it; the ledger stays."""
        if place is not None:
            self.db.execute("DELETE FROM newest WHERE (device, channel, source) = (?, ?, ?)", (device, *place))
            return
        self.db.execute("DELETE FROM inventory WHERE device = ?", (device,))
        self.db.execute("DELETE FROM newest WHERE device = ?", (device,))

    def removed_config(self, topic: str) -> bytes:
        """Return the configuration that was removed from a topic; empty if there is none."""
        row = self.db.execute("SELECT payload FROM farewell WHERE topic = ?", (topic,)).fetchone()
        return row[0] if row else b""

    def keep_removed_config(self, topic: str, payload: bytes) -> None:
        """Keep a configuration that was removed, until Home Assistant is known to have received its removal."""
        self.db.execute("INSERT OR REPLACE INTO farewell VALUES (?, ?)", (topic, payload))

    def configurations(self) -> dict[str, bytes]:
        """Return the configuration that was published last of each board. Wants no transaction."""
        with self.wrapped():
            return dict(self.db.execute("SELECT device, payload FROM configuration").fetchall())

    def keep_configuration(self, device: str, payload: bytes | None) -> None:
        """Keep the configuration of a board; None: there is none any more."""
        self.db.execute("DELETE FROM configuration WHERE device = ?", (device,))
        if payload is not None:
            self.db.execute("INSERT INTO configuration VALUES (?, ?)", (device, payload))

    def take_removed_configs(self) -> list[tuple[str, bytes]]:
        """Return the removed configurations, and forget them."""
        return self.db.execute("DELETE FROM farewell RETURNING topic, payload").fetchall()

    def note_published(self, topic: str) -> None:
        """Note that a topic has a retained message at the local broker."""
        self.db.execute("INSERT OR IGNORE INTO published VALUES (?)", (topic,))

    def unretain(self, topic: str) -> None:
        """Mark the queued messages of a cleared topic as not retained."""
        self.db.execute("UPDATE queue SET retain = 0 WHERE topic = ?", (topic,))

    def note_cleared(self, topic: str) -> None:
        """Note that a topic has no retained message any more."""
        self.db.execute("DELETE FROM published WHERE topic = ?", (topic,))

    def published(self) -> list[str]:
        """Return the topics with a retained message at the local broker. Wants no transaction."""
        with self.wrapped():
            return [topic for (topic,) in self.db.execute("SELECT topic FROM published ORDER BY topic").fetchall()]
