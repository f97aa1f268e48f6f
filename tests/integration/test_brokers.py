"""Brokers of several makers: `edged check` says what each really does, and no reading is lost on any of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edged.board.check import remarks
from edged.broker import BrokerOptions, ProbeResult, probe
from edged.broker.probe import Behaviour, Redelivery
from support import nats, rabbitmq
from support.broker import DURABLE, Client, PlainBroker, old_broker, password_file, spin
from support.faults import Board, Sensor, World, often
from support.hub import Hub
from support.nats import Nats
from support.rabbitmq import RabbitMq
from support.site import Site, board_name
from support.waiting import wait_until

pytestmark = pytest.mark.broker

_EVERYTHING = Behaviour(
    qos=1,
    wildcards=True,
    retained=True,
    retained_by_wildcard=True,
    at_once=None,
    keeps=True,
    redelivery=Redelivery.MARKED,
)


def _but(**change: object) -> Behaviour:
    return Behaviour(**{**vars(_EVERYTHING), **change})


KNOWN = {
    "mosquitto": ("MQTT 5", _EVERYTHING),
    "mosquitto-3": ("MQTT 3.1.1", _but(at_once=20)),
    "rabbitmq": ("MQTT 3.1.1", _but(at_once=10, retained_by_wildcard=False)),
    "nats": ("MQTT 3.1.1", _but(redelivery=Redelivery.NONE)),
    "nats-in-order": ("MQTT 3.1.1", _but(at_once=1)),
}
"""What docs/brokers.md says of each."""


IN_ORDER = 'ack_wait: "2s"\n max_ack_pending: 1'
"""Options with which NATS hands out again what was not acknowledged before it hands out what was sent later."""


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainBroker]:
    with PlainBroker(tmp_path_factory.mktemp("mosquitto"), options=DURABLE) as broker:
        yield broker


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    if why := rabbitmq.cannot():
        pytest.skip(why)
    with RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="module")
def jetstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    if why := nats.cannot():
        pytest.skip(why)
    with Nats(tmp_path_factory.mktemp("nats")) as broker:
        yield broker


@pytest.fixture(scope="module")
def jetstream_in_order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    if why := nats.cannot():
        pytest.skip(why)
    with Nats(tmp_path_factory.mktemp("nats"), IN_ORDER) as broker:
        yield broker


_FIXTURES = {"mosquitto": "mosquitto", "rabbitmq": "rabbit", "nats": "jetstream", "nats-in-order": "jetstream_in_order"}


def broker_of(name: str, request: pytest.FixtureRequest) -> PlainBroker | RabbitMq | Nats:
    """Return the broker of that name, and start it if nobody has yet."""
    broker: PlainBroker | RabbitMq | Nats = request.getfixturevalue(_FIXTURES[name])
    return broker


@pytest.fixture(params=list(KNOWN))
def known(request: pytest.FixtureRequest, mosquitto: PlainBroker) -> Iterator[tuple[str, str]]:
    """The name and URL of each broker."""
    if request.param == "mosquitto-3":
        with old_broker(mosquitto.port) as broker:
            yield request.param, broker.url
    else:
        yield request.param, broker_of(request.param, request).url


def site_on(broker: str, request: pytest.FixtureRequest) -> Site:
    """A site whose board takes sealed windows; each test has a board of its own, because they share the broker."""
    name = board_name(request.node.nodeid)
    path, models = request.getfixturevalue("tmp_path"), request.getfixturevalue("models")
    site = Site(path, models, broker_of(broker, request).url, name=name)
    site.configure('format = "f32le"\neach = "window"\nsensor = "sensor.key"')
    site.init()
    site.install(site.pack())
    return site


def ask(url: str, name: str = "press-07") -> ProbeResult:
    """Probe a broker as `edged check` does."""
    return probe(BrokerOptions(url=url, client_id=f"edged-{name}"), f"edged/{name}", {"hall/+/a": 1, "hall/b": 0}, 10)


# --- what a broker does ----------------------------------------------------------------------


def test_the_probe_says_what_each_broker_really_does(known: tuple[str, str]) -> None:
    name, url = known
    version, behaviour = KNOWN[name]
    found = ask(url)
    assert found.description.endswith(version)
    assert found.granted == {"hall/+/a": 1, "hall/b": 0}
    assert found.barred == ""
    assert found.behaviour == behaviour


def test_the_probe_leaves_nothing_behind(known: tuple[str, str]) -> None:
    """Neither a retained message nor a session: brokers would keep them for ever."""
    _, url = known
    ask(url, "tidy")
    with talking(url, "") as client:
        hear(client, "edged/tidy/check/retained/one")
        client.publish("edged/tidy/check/retained/one", b"later", qos=1)
        spin(client, until=lambda: b"later" in client.payloads)
    assert client.payloads == [b"later"]
    assert not [one for one in ("edged-tidy-check", "edged-tidy-check-session") if has_session(url, one)]


def has_session(url: str, client_id: str) -> bool:
    """Return whether the broker keeps a session under a client id."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
    )
    found: list[bool] = []
    client.on_connect = lambda _client, _userdata, flags, _code, _info: found.append(flags.session_present)
    client.connect("127.0.0.1", int(url.rpartition(":")[2]))
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        client.loop(0.1)
    client.disconnect()
    return found[0]


@pytest.mark.parametrize("count", [1, 7])
def test_the_probe_counts_what_is_handed_out_at_once(tmp_path: Path, count: int) -> None:
    with PlainBroker(tmp_path, options=[f"max_inflight_messages {count}"]) as broker, old_broker(broker.port) as old:
        behaviour = ask(old.url).behaviour
    assert behaviour == _but(at_once=count)


def test_a_broker_that_ends_the_connection_over_retained_messages_is_asked_the_rest(tmp_path: Path) -> None:
    with PlainBroker(tmp_path, options=["retain_available false"]) as broker:
        assert ask(broker.url).behaviour == _but(retained=False, retained_by_wildcard=False)


def test_nats_redelivers_behind_later_messages_when_its_ack_wait_is_over(tmp_path: Path) -> None:
    if why := nats.cannot():
        pytest.skip(why)
    with Nats(tmp_path, 'ack_wait: "1s"\nmax_ack_pending: 5') as broker:
        assert ask(broker.url).behaviour == _but(at_once=5, redelivery=Redelivery.BEHIND)


# --- what `edged check` says of it -----------------------------------------------------------


def check(site: Site, *of: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code of `edged check`, and what it says about brokers."""
    done = site.run("check", "edged.toml", "--json", check=False)
    found = {one["check"]: one for one in json.loads(done.stdout)}
    return done.returncode, {what: one for what, one in found.items() if what.split()[0] in (of or ("broker",))}


LIMITS = {
    "rabbitmq": {
        "broker retained": "hubs subscribe to each board's announce topic by name",
        "broker at once": "hands out 10 unacknowledged messages at a time: whole windows at a high rate wait",
    },
    "nats": {"broker session": "sealed readings come behind later ones and are refused as replays"},
    "nats-in-order": {"broker at once": "hands out 1 unacknowledged message at a time"},
}


@pytest.mark.parametrize("name", list(LIMITS))
def test_check_says_what_a_limit_means(request: pytest.FixtureRequest, name: str) -> None:
    site = site_on(name, request)
    code, found = check(site)
    assert code == 0
    assert found[f"broker topic {site.topic}"]["detail"] == "granted, QoS 1"
    for what, words in LIMITS[name].items():
        assert words in found[what]["detail"]


@pytest.mark.parametrize(
    ("lacking", "what"),
    [
        (_but(retained=False, retained_by_wildcard=False), "retained"),
        (_but(keeps=False, redelivery=Redelivery.NONE), "session"),
    ],
    ids=["retains nothing", "keeps nothing"],
)
def test_what_a_board_cannot_do_without_is_an_error_where_it_needs_it(lacking: Behaviour, what: str) -> None:
    filters = {"hall/b": 1}
    result = ProbeResult(
        description="", seconds=0.0, base="edged/a", granted={"hall/b": 1}, barred="", behaviour=lacking
    )
    assert [one.what for one in remarks(result, filters, answers=True) if one.error] == [what]
    assert not [one for one in remarks(result, {}, answers=False) if one.error]


# --- what an ACL forbids ---------------------------------------------------------------------

ACLS = {
    "the board may do nothing there": ("topic read factory/#", "not authorised"),
    "the board may only write there": ("topic write edged/press-07/#", "does not come back"),
    "the board may only read there": ("topic read edged/press-07/#", "not authorised"),
}


def guarded(directory: Path, acl: str) -> PlainBroker:
    """A Mosquitto that lets in who has a password, and lets them do what its ACL file says."""
    passwords = password_file(directory / "passwords", press="known")
    (directory / "acl").write_text(f"user press\n{acl}\n")
    (directory / "acl").chmod(0o600)
    return PlainBroker(
        directory, ["allow_anonymous false", f"password_file {passwords}", f"acl_file {directory / 'acl'}"]
    )


def board_of(directory: Path, models: Path, url: str) -> Site:
    """A board without packages that has this broker's password."""
    site = Site(directory, models, url)
    config = site.configure()
    known = '[broker]\nusername = "press"\npassword = "board-password"'
    config.write_text(config.read_text().replace("[broker]", known))
    (directory / "board-password").write_text("known")
    (directory / "board-password").chmod(0o600)
    site.init()
    return site


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("acl", list(ACLS))
def test_check_says_that_the_board_may_not_use_its_own_topics(
    tmp_path: Path, models: Path, acl: str, version: str
) -> None:
    """Mosquitto acknowledges what it does not pass on, where it speaks 3.1.1: nobody else would notice."""
    lines, said = ACLS[acl]
    with guarded(tmp_path, lines) as broker, old_broker(broker.port) as old:
        site = board_of(tmp_path, models, broker.url if version == "5" else old.url)
        _, found = check(site)
    own = found["broker own topics"]
    assert found["broker"]["ok"]
    assert (own["ok"], own["kind"]) == (False, "BrokerError")
    assert "this board cannot use its own topics, edged/press-07/#" in own["detail"]
    assert (said if version == "5" else "does not come back") in own["detail"]
    assert "let this board write and read edged/press-07/#" in own["hint"]


def test_check_is_content_with_an_acl_that_allows_what_a_board_needs(tmp_path: Path, models: Path) -> None:
    with guarded(tmp_path, "topic read factory/#\ntopic readwrite edged/press-07/#") as broker:
        _, found = check(board_of(tmp_path, models, broker.url))
    assert all(one["ok"] for one in found.values())
    assert "may be written and read" in found["broker own topics"]["detail"]


def test_check_says_that_the_board_may_not_subscribe_to_its_sensors(tmp_path: Path, models: Path) -> None:
    """On a broker that says so: Mosquitto grants each subscription, and passes nothing on."""
    if why := nats.cannot():
        pytest.skip(why)
    allowed = '["edged.press-07.>", "$MQTT.>"]'
    user = f"user: press, password: known, permissions: {{ publish: {allowed}, subscribe: {allowed} }}"
    with Nats(tmp_path / "nats", more=f"authorization {{ users = [ {{ {user} }} ] }}") as broker:
        site = board_of(tmp_path, models, broker.url)
        _, found = check(site)
    assert found["broker own topics"]["ok"]
    sensors = found[f"broker topic {site.topic}"]
    assert (sensors["ok"], sensors["kind"]) == (False, "BrokerError")
    assert f"let this board read {site.topic}" in sensors["hint"]


def test_a_separate_uplink_is_asked_about_results_and_the_broker_about_readings(
    tmp_path: Path, models: Path, mosquitto: PlainBroker
) -> None:
    """The sensors' broker need not let the board publish."""
    with guarded(tmp_path, "topic read factory/#") as broker:
        site = board_of(tmp_path, models, broker.url)
        with (tmp_path / "edged.toml").open("a") as config:
            config.write(f'[uplink]\nurl = "{mosquitto.url}"\n')
        code, found = check(site, "broker", "uplink")
    assert code == 66, "no package is installed, and nothing else is wrong"
    assert "which this board does not need here" in found["broker own topics"]["detail"]
    assert "may be written and read" in found["uplink own topics"]["detail"]
    assert all(one["ok"] for one in found.values())


# --- the whole loop --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rabbitmq", "nats"])
def test_sealed_readings_are_answered(request: pytest.FixtureRequest, name: str) -> None:
    site = site_on(name, request)
    source = site.models / "gearbox" / "golden.npz"
    with np.load(source) as golden:
        right = golden["raw_y"]
    with site.daemon() as daemon, site.listener(len(right)) as listener:
        listener.wait_connected()
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "--seal", "sensor.key",
            "-t", site.topic, *site.connection(),
        )  # fmt: skip
        results = listener.results()
        assert daemon.stop() == 0
    assert [result["label"] for result in results] == [("healthy", "broken")[y] for y in right]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rabbitmq", "nats-in-order"])
def test_check_beside_a_daemon_and_kills_of_it_cost_no_reading(
    request: pytest.FixtureRequest, models: Path, name: str
) -> None:
    site = site_on(name, request)
    with np.load(models / "gearbox" / "golden.npz") as golden:
        windows = golden["raw_windows"].astype(np.float32)
    hub = Hub(site, client_id=f"hub-{site.name}", session_expiry=3600)
    hub.client.subscribe(f"edged/{site.name}/announce", 1)  # by name: not every broker retains for wildcards
    board = Board(site.path)
    with board.running(), World(site, Sensor(site, windows, rows=False, sealed=True, rate=30), hub=hub) as world:
        code, found = check(site)
        assert code == 0, found
        for _ in range(often(3, 20)):
            world.wait_sent(random.randint(6, 30))
            board.kill()
            world.wait_sent(15)
            board.start()
        world.finish(60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mosquitto", "rabbitmq", "nats"])
def test_what_a_broker_acknowledged_outlives_its_kill(request: pytest.FixtureRequest, name: str) -> None:
    """With the settings of docs/brokers.md: what waits for a client that is away, and what is retained."""
    broker = broker_of(name, request)
    wanted = [b"%d" % number for number in range(300)]
    with talking(broker.url, "away") as client:
        hear(client, "kill/readings")
    with talking(broker.url, "") as sender:
        sender.publish("kill/announce", b"kept", qos=1, retain=True)
        for payload in wanted:
            sender.publish("kill/readings", payload, qos=1)
        spin(sender, until=lambda: len(sender.delivered) == len(wanted) + 1)
        if name == "rabbitmq":  # it writes retained messages once they have been left alone for two seconds
            wait_until(
                lambda: any(
                    b"kept" in path.read_bytes() for path in (broker.directory / "mnesia").rglob("mqtt_retained*")
                )
            )
        # Mosquitto answers a message first and writes it next: whoever has this answer knows that the others are written
        sender.publish("kill/nobody", b"", qos=1)
        spin(sender, until=lambda: len(sender.delivered) == len(wanted) + 2)
        broker.kill()
    broker.start()

    with talking(broker.url, "away") as client:
        spin(client, until=lambda: len(client.payloads) >= len(wanted), timeout=30)
        assert sorted(client.payloads) == sorted(wanted)
    with talking(broker.url, "") as client:
        hear(client, "kill/announce")
        spin(client, until=lambda: client.payloads)
        assert client.payloads == [b"kept"]


@contextmanager
def talking(url: str, client_id: str) -> Iterator[Client]:
    """Connect; with a session if there is a client id."""
    client = Client(BrokerOptions(url=url, client_id=client_id))
    client.connect()
    spin(client, until=lambda: client.is_up)
    try:
        yield client
    finally:
        client.close()


def hear(client: Client, topic: str) -> None:
    """Subscribe, and wait until the broker has answered."""
    client.subscribe(topic, 1)
    spin(client, until=lambda: client.hears)
