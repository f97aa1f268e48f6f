"""Retained messages at the local broker, whatever goes down in between: the right ones in the end, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.broker import Broker
from edged.config.hub import HomeAssistantTable
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.receiver import Opened
from edged.formats.channel.result import Plain, Result
from edged.hub.boards import BoardView
from edged.hub.sinks import AcceptedResult
from edged.hub.sinks.latest import LatestResults
from edged.hub.sinks.retained import RetainedState
from edged.hub.state import HubState
from edged.hub.topics import MOST_SOURCES, Place, Topics
from support.parties import Board

BOARDS = {name: Board(name) for name in ("press", "saw")}
BY_SOURCE = "presses"
"""A channel whose results name the source of their readings."""
CONFIG = "homeassistant/device/edged_{}/config"


class Home:
    """A local broker, and a Home Assistant that hears configurations there while it is up.

    :ivar retained: messages by topic.
    :ivar said: publications in order.
    :ivar entities: components that Home Assistant has, by topic: it forgets one only where it is told to.
    """

    def __init__(self) -> None:
        self.is_up = self.assistant_is_up = True
        self.retained: dict[str, bytes] = {}
        self.said: list[tuple[str, bytes]] = []
        self.entities: dict[str, set[str]] = {}
        self.unacknowledged: list[int] = []

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        assert (self.is_up, qos, retain) == (True, 1, True)
        self.said.append((topic, payload))
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)
        if self.assistant_is_up:
            self.hears(topic, payload)
        self.unacknowledged.append(len(self.said))
        return len(self.said)

    def hears(self, topic: str, payload: bytes) -> None:
        """Have Home Assistant hear a message."""
        if not topic.endswith("/config"):
            return
        if not payload:
            self.entities.pop(topic, None)
            return
        known = self.entities.setdefault(topic, set())
        for key, component in json.loads(payload)["components"].items():
            (known.discard if set(component) == {"platform"} else known.add)(key)

    def loses_all(self) -> None:
        """Forget all that was retained."""
        self.retained.clear()


class World:
    """A hub's retained state, its views, and a home."""

    def __init__(self, directory: Path) -> None:
        self.state = HubState(directory)
        self.home = Home()
        self.views: dict[str, BoardView] = {}
        self.now = 0.0
        self.count = 0
        self.start()

    def start(self) -> None:
        """Start the hub's process."""
        self.home.unacknowledged.clear()
        broker = cast("Broker", self.home)
        self.shown = RetainedState(broker, self.state, self.views, "edged-hub", HomeAssistantTable(), lambda _: 0)
        self.shown.open = True
        self.shown.begin()

    def enrol(self, name: str) -> None:
        """Enrol a board, also one whose removal has not reached the broker yet."""
        self.views.setdefault(name, BoardView(BOARDS[name].record))

    def remove(self, name: str) -> None:
        if self.views.pop(name, None) is not None:
            with self.state.batch():
                self.state.forget(name)
            self.shown.forget(name)

    def serve(self, name: str, *channels: str) -> None:
        if name in self.views:
            served = tuple(
                ServedModel(
                    channel, "gearbox", 1, 1, "classifier", labels=("a",), sources={} if channel == BY_SOURCE else None
                )
                for channel in channels
            )
            view = self.views[name]
            view.inventory = Inventory("1", 30.0, served)
            LatestResults(self.views, self.state).forget_unserved(view)
            self.shown.update(view)

    def accept(self, name: str, place: Place) -> None:
        """Accept a result of a channel that is served: the queue publishes it."""
        view = self.views.get(name)
        if view is None or not self.home.is_up or place.channel not in {model.channel for model in view.models}:
            return
        self.count += 1
        answer = Result("gearbox", 1, bytes(32), 0.0, self.count, late=False, input=Plain(bytes(32)), label="a")
        result = msgspec.structs.replace(answer, source=place.source)
        opened = Opened(name, place.channel, bytes(8), self.count, 1, signed=False, result=result)
        payload = json.dumps(view_of(opened), separators=(",", ":")).encode()
        topic = Topics.of("edged-hub", name).result(place)
        with self.state.batch():
            self.state.note_published(topic)
            self.state.show(name, place, 1, self.count, payload)
        view.show(place, view_of(opened))
        self.home.retained[topic] = payload
        self.shown.deliver(AcceptedResult(opened, place, payload, newest=True))

    def turn(self) -> None:
        self.now += 1
        for view in self.views.values():
            self.shown.check(view)
        self.shown.turn(self.now)

    def acknowledge(self) -> None:
        tokens, self.home.unacknowledged = self.home.unacknowledged, []
        for token in tokens:
            self.shown.on_delivered(token)

    def down(self) -> None:
        self.home.is_up = False

    def up(self) -> None:
        if not self.home.is_up:
            self.home.is_up = True
            self.shown.begin()

    def lose(self) -> None:
        """Have the broker lose its retained messages, as when it is killed."""
        self.down()
        self.home.loses_all()

    def assistant_stops(self) -> None:
        self.home.assistant_is_up = False

    def assistant_starts(self) -> None:
        if not self.home.assistant_is_up:
            self.home.assistant_is_up = True
            for topic, payload in self.home.retained.items():
                self.home.hears(topic, payload)
            self.shown.home_assistant_started(self.now)

    def settle(self) -> None:
        """Have everything come up, and each board say what it serves; check what stands there."""
        for name, view in self.views.items():
            if view.inventory is None:
                self.serve(name)
        self.up()
        self.turn()
        self.assistant_starts()
        for _ in range(10):
            self.acknowledge()
            self.turn()
            self.shown.sweep()
        assert self.home.retained == self.wanted()
        assert set(self.state.published()) == set(self.wanted())
        assert self.home.entities == {
            topic: set(json.loads(payload)["components"])
            for topic, payload in self.home.retained.items()
            if topic.endswith("/config")
        }

    def wanted(self) -> dict[str, Any]:
        """Return what is to be retained, configurations and updates as they stand there."""
        wanted: dict[str, bytes | None] = {"edged-hub/status": b"online"}
        for name, view in self.views.items():
            wanted[f"edged-hub/{name}/availability"] = b"offline"
            if view.inventory is None:
                continue
            wanted[CONFIG.format(name)] = self.home.retained.get(CONFIG.format(name))
            for model in view.models:
                topic = f"edged-hub/{name}/{model.channel}/update"
                wanted[topic] = self.home.retained.get(topic)
            for place, last in view.last.items():
                topic = Topics.of("edged-hub", name).result(place)
                wanted[topic] = json.dumps(last, separators=(",", ":")).encode()
        return wanted


def view_of(opened: Opened) -> dict[str, Any]:
    """Return a result as a view keeps it."""
    return json.loads(json.dumps(opened.to_json()))  # type: ignore[no-any-return]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with closing(world.state):
        yield world


NAMES = st.sampled_from(sorted(BOARDS))
CHANNELS = st.sampled_from([("c1",), ("c1", "c2"), ("c2",), ("c1", BY_SOURCE), (BY_SOURCE,), ()])
PLACES = st.sampled_from([Place("c1"), Place("c2"), *(Place(BY_SOURCE, source) for source in ("a", "b/late", "late"))])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["enrol", "remove"]), NAMES),
    st.builds(lambda name, channels: ("serve", name, *channels), NAMES, CHANNELS),
    st.tuples(st.just("accept"), NAMES, PLACES),
    st.tuples(
        st.sampled_from(["turn", "acknowledge", "down", "up", "lose", "start", "assistant_stops", "assistant_starts"])
    ),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=40))
def test_the_right_messages_are_retained_in_the_end_and_no_others_whatever_happens(
    steps: list[tuple[Any, ...]],
) -> None:
    with TemporaryDirectory() as directory:
        world = World(Path(directory))
        with closing(world.state):
            for name, *arguments in steps:
                getattr(world, name)(*arguments)
            world.settle()


def test_states_follow_a_configuration_at_once_and_twice_more(world: World) -> None:
    """Home Assistant subscribes to them once it has read it, and may have missed the first."""
    world.enrol("press")
    world.serve("press", "c1")
    world.turn()
    topics = [topic for topic, _ in world.home.said if "press" in topic]
    assert topics[0] == CONFIG.format("press")
    assert topics[1:] == ["edged-hub/press/availability", "edged-hub/press/c1/update"]
    world.home.said.clear()
    assert world.shown.due_in(world.now) == 1
    for _ in range(10):
        world.turn()
    assert [topic for topic, _ in world.home.said] == topics[1:] * 2
    assert world.shown.due_in(world.now) == float("inf")


def test_a_message_that_stays_as_it_is_is_not_published_again(world: World) -> None:
    world.enrol("press")
    world.serve("press", "c1")
    for _ in range(10):
        world.turn()
    world.home.said.clear()
    world.shown.sweep()
    world.serve("press", "c1")
    world.shown.check(world.views["press"])
    world.turn()
    assert world.home.said == []
    view = world.views["press"]
    assert view.inventory is not None
    newer = msgspec.structs.replace(view.models[0], version=2)
    view.inventory = msgspec.structs.replace(view.inventory, models=(newer,))
    world.shown.update(view)
    world.turn()
    assert [topic for topic, _ in world.home.said] == ["edged-hub/press/c1/update"]


def test_a_board_that_is_removed_goes_from_home_assistant_before_its_states_do(world: World) -> None:
    """An empty state is an error to whoever still subscribes to it."""
    world.enrol("press")
    world.serve("press", "c1")
    world.turn()
    world.home.said.clear()
    world.remove("press")
    world.turn()
    assert [payload for _, payload in world.home.said] == [b""] * 3
    assert world.home.said[0][0] == CONFIG.format("press")


def test_a_component_that_came_and_went_while_home_assistant_was_down_is_removed_there(world: World) -> None:
    """Of two configurations that were removed only the older was kept, and a component of the other stayed for ever."""
    world.enrol("press")
    for channel in ("c2", "c1"):
        world.serve("press", channel)
        world.turn()
    world.assistant_stops()
    world.serve("press", "c2")
    world.settle()


def test_a_source_beyond_the_bound_takes_the_place_of_the_one_that_was_silent_for_longest(world: World) -> None:
    world.enrol("press")
    world.serve("press", BY_SOURCE)
    for number in (*range(MOST_SOURCES), 0, MOST_SOURCES):
        world.accept("press", Place(BY_SOURCE, f"p{number}"))
    world.settle()

    assert len(world.views["press"].places) == MOST_SOURCES
    shown = {place.source for _, place, _ in world.state.shown()}
    assert {place.source for place in world.views["press"].places} == shown
    assert {"p0", f"p{MOST_SOURCES}"} <= shown
    assert "p1" not in shown
