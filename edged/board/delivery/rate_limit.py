"""``limits.rate``: the most messages a second of each topic."""

from __future__ import annotations

import time

_MOST_TOPICS = 4096


class _Bucket:
    """The tokens of one topic, and their time."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class RateLimit:
    """Lets ``rate`` messages a second of each topic through; a second's worth may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._topics: dict[str, _Bucket] = {}

    def admits(self, topic: str) -> bool:
        """Return True if one more message of a topic is let through."""
        now = time.monotonic()
        bucket = self._topics.get(topic)
        if bucket is None:
            if len(self._topics) >= _MOST_TOPICS:
                del self._topics[next(iter(self._topics))]
            bucket = self._topics[topic] = _Bucket(self._rate, now)
        tokens = min(self._rate, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        admits = tokens >= 1
        bucket.tokens = tokens - 1 if admits else tokens
        return admits
