"""The model that the demo seals: what is in the wheel works as its README says, on each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edged.demo.model
from edged.demo.machine import CHANNELS, RATE, Condition, simulate
from edged.model.author import Author
from edged.model.dry_run import open_model
from edged.model.known_answers import to_floats
from edged.model.live import Model
from edged.model.runtime import choose
from support.engines import ENGINES

FOLDER = Path(edged.demo.model.__file__).parent
WINDOWS = 100  # for each condition


@pytest.fixture(scope="module")
def author() -> Author:
    return Author.read(FOLDER / "pump.toml")


@pytest.fixture(params=ENGINES)
def model(request: pytest.FixtureRequest, author: Author) -> Iterator[Model]:
    model = open_model(author, author.weights_path(FOLDER, None), choose(request.param))
    yield model
    model.close()


def test_manifest_names_what_the_simulation_makes(author: Author) -> None:
    assert tuple(author.input.channels) == CHANNELS
    assert tuple(author.output.labels) == tuple(Condition)


def test_self_test_holds(author: Author, model: Model) -> None:
    model.self_test(author.read_self_test(FOLDER))


def test_self_test_would_notice(author: Author) -> None:
    """At least one of its answers is unsure of itself, so that a small mistake anywhere in the chain moves it."""
    scores = [to_floats(case.scores) for case in author.read_self_test(FOLDER).cases]
    assert min(max(answer) for answer in scores) < 0.9


@pytest.mark.parametrize("condition", Condition)
def test_conditions_are_told_apart(author: Author, model: Model, condition: Condition) -> None:
    rng = np.random.default_rng(11)
    right = tuple(Condition).index(condition)
    seconds = author.window.size / RATE
    windows = [simulate(rng, condition, rng.uniform(0.25, 1.0), seconds) for _ in range(WINDOWS)]
    assert sum(int(np.argmax(model.scores(rows))) == right for rows in windows) >= 0.98 * WINDOWS
