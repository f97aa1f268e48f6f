"""A new version's first windows: what goes wrong in them is answered by the version before, at once."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from edged.base.errors import ModelError, TrialError
from edged.board.pipeline import Lane
from edged.config.model import TrialTable
from edged.formats.spec import Window
from edged.model.live import LiveModel
from support.lanes import FakeModel, lane, send

ROW = np.zeros((1, 2), "<f4").tobytes()


def on_trial(windows: int = 3) -> tuple[Lane, FakeModel, FakeModel]:
    """Return a lane whose second version is on trial, with both versions."""
    serving, old = lane(FakeModel(1, window=Window(size=1)), trial=TrialTable(windows=windows))
    new = FakeModel(2, window=Window(size=1))
    serving.swap(cast("LiveModel", new))
    return serving, old, new


def test_a_version_that_errs_in_its_trial_is_followed_by_the_one_before() -> None:
    serving, old, new = on_trial()
    send(serving, ROW)
    new.fails = True

    with pytest.raises(TrialError, match="its trial ended with an error: the runtime fails"):
        send(serving, ROW)
    assert serving.roll_back()

    assert (serving.model, new.closed, old.closed) == (old, True, False)
    assert send(serving, ROW)
    assert serving.probation is None


def test_a_failed_trial_stays_failed_until_it_is_rolled_back() -> None:
    """A slow model's queue holds more windows: the failed version answers none of them."""
    serving, _, new = on_trial()
    new.fails = True
    with pytest.raises(TrialError):
        send(serving, ROW)
    new.fails = False

    with pytest.raises(TrialError):
        send(serving, ROW)

    assert new.windows == []


def test_after_its_trial_a_version_stays_though_it_errs() -> None:
    serving, old, new = on_trial(windows=2)
    for _ in range(2):
        send(serving, ROW)
    assert serving.probation is not None
    assert serving.probation.passed
    serving.end_trial()
    new.fails = True

    with pytest.raises(ModelError) as caught:
        send(serving, ROW)

    assert not isinstance(caught.value, TrialError)
    assert (old.closed, serving.roll_back(), serving.model) == (True, False, new)


def test_a_third_version_falls_back_on_the_first_while_the_second_is_not_proven() -> None:
    serving, first, second = on_trial()
    third = FakeModel(3, window=Window(size=1))
    serving.swap(cast("LiveModel", third))
    assert (first.closed, second.closed) == (False, True)

    assert serving.roll_back()

    assert (serving.model, third.closed) == (first, True)


def test_a_version_that_had_its_trial_before_has_no_second_one() -> None:
    """It comes back where a newer one was taken back, whose trial may not be over."""
    serving, first, second = on_trial()
    back = FakeModel(1, window=Window(size=1))

    serving.swap(cast("LiveModel", back), proven=True)

    assert (first.closed, second.closed, serving.probation) == (True, True, None)
    assert send(serving, ROW)


def test_a_version_that_takes_too_long_three_times_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "edged.board.pipeline.lane.time.perf_counter", lambda: now.__setitem__(0, now[0] + 0.06) or now[0]
    )
    serving, old = lane(FakeModel(1, window=Window(size=1)), trial=TrialTable(windows=10, latency="50 ms"))
    serving.swap(cast("LiveModel", FakeModel(2, window=Window(size=1))))
    send(serving, ROW)
    send(serving, ROW)

    with pytest.raises(TrialError, match="3 windows of its trial took over 50 ms"):
        send(serving, ROW)

    assert serving.roll_back()
    assert serving.model is cast("LiveModel", old)


def test_without_a_trial_nothing_is_judged() -> None:
    serving, _, new = on_trial(windows=0)
    new.fails = True

    with pytest.raises(ModelError) as caught:
        send(serving, ROW)

    assert not isinstance(caught.value, TrialError)


def test_closing_a_lane_wipes_both_versions() -> None:
    serving, old, new = on_trial()

    serving.close()

    assert old.closed
    assert new.closed
