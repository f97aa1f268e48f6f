"""Sources: what `+` stood for in the topic of a reading stands in its result."""

from __future__ import annotations

import numpy as np
import pytest

from edged.base.errors import ReadingSourceError
from edged.board.pipeline import Job, Lane
from edged.formats.channel.result import LONGEST_SOURCE
from edged.formats.spec import Input
from support.lanes import FakeModel, lane, send
from support.serving import Serving

WINDOW = np.zeros((4, 2), "<f4").tobytes()


def source(to: Lane, topic: str) -> str:
    (answered,) = send(to, WINDOW, topic)
    return answered.answer.source


@pytest.mark.parametrize(
    ("wanted", "topic", "expected"),
    [
        ("factory/press-07/vibration", "factory/press-07/vibration", ""),
        ("factory/+/vibration", "factory/press-07/vibration", "press-07"),
        ("+/+/vibration", "factory/press-07/vibration", "factory/press-07"),
        ("factory/+/vibration/+", "factory/größe 1/vibration/left", "größe 1/left"),
        ("factory/+", "factory/" + "ä" * 64, "ä" * 64),
    ],
)
def test_a_result_says_what_the_wildcards_stood_for(wanted: str, topic: str, expected: str) -> None:
    to, _ = lane(topic=wanted, each="window")
    assert source(to, topic) == expected


@pytest.mark.parametrize("level", ["", "x" * (LONGEST_SOURCE + 1), "ä" * 65])
def test_a_source_that_does_not_fit_is_refused_and_counted(level: str) -> None:
    to, model = lane(topic="factory/+", each="window")
    with pytest.raises(ReadingSourceError):
        send(to, WINDOW, f"factory/{level}")
    serving = Serving()
    serving.serve({"c1": to})
    number = serving.deliver(WINDOW, f"factory/{level}")
    assert serving.acknowledged == [number]
    assert serving.health.refused == {"ReadingSourceError": 1}
    assert model.windows == []


def test_the_answer_of_a_model_that_reads_another_s_answers_has_their_source() -> None:
    first, _ = lane(topic="factory/+", each="window")
    second, _ = lane(FakeModel(input=Input(channels=("healthy", "broken"))), channel="c2", topic=None, from_="c1")
    (answered,) = send(first, WINDOW, "factory/press-07")
    stream = next(iter(first._streams._streams.values()))
    above = Job(stream, np.zeros((4, 2), np.float32), [], restart_state=False, redelivered=False, gives_way=False)
    scores = np.array([0.25, 0.75], np.float32)
    jobs = [job for _ in range(4) for job in second.feed(first, above, scores, answered.of)]
    assert [second.decide(job, scores).answer.source for job in jobs] == ["press-07"]
