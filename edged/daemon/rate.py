"""How many messages a topic may bring: a bucket of tokens for each (token bucket, RFC 2697 and others)."""

from __future__ import annotations

import time
from collections import OrderedDict

_MOST_TOPICS = 4096


class RateLimit:
    """Lets ``rate`` messages a second of each topic through; a second's worth may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._topics: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, topic: str) -> bool:
        """Tell whether one more message of a topic is let through."""
        now = time.monotonic()
        tokens, before = self._topics.get(topic, (self._rate, now))
        tokens = min(self._rate, tokens + (now - before) * self._rate)
        if topic not in self._topics and len(self._topics) >= _MOST_TOPICS:
            self._topics.popitem(last=False)
        admits = tokens >= 1
        self._topics[topic] = (tokens - 1 if admits else tokens, now)
        return admits
