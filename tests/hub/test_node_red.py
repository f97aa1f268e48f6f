"""examples/node-red in a real Node-RED, with a real board: the flow opens its results and refuses what is bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.broker import Client, PlainBroker, spin
from support.node import NodeRed, cannot_node, lay_out
from support.process import DaemonProcess
from support.site import Site

SEND = ("--array", "raw_windows", "--each", "window", "--format", "f32le")
LABELS = ("healthy", "broken")

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(cannot_node("cbor-x", "node-red") is not None, reason=str(cannot_node("cbor-x", "node-red"))),
]


class Flow:
    """The example flow in a running Node-RED, and what its outputs say: nodes beside it publish that to the broker.

    :ivar site: whose board runs, as ``daemon``.
    :ivar red: the Node-RED.
    :ivar client: connected to the same broker, where it hears the board and the flow.
    """

    def __init__(self, site: Site, daemon: DaemonProcess, red: NodeRed, client: Client) -> None:
        self.site = site
        self.daemon = daemon
        self.red = red
        self.client = client

    def said(self, what: str) -> list[dict[str, Any]]:
        """Return what the flow has said of a kind: opened, refused, shown or status."""
        return [json.loads(one.payload) for one in self.client.deliveries if one.topic == f"flow/{what}"]

    def sealed(self) -> list[bytes]:
        """Return the board's results as the broker carried them."""
        return [one.payload for one in self.client.deliveries if one.topic == f"edged/{self.site.name}/c1"]

    def send(self) -> None:
        """Send 100 windows."""
        source = self.site.models / "gearbox" / "golden.npz"
        self.site.edged("send", source, *SEND, "-t", self.site.topic, *self.site.connection())

    def wait_said(self, what: str, count: int) -> list[dict[str, Any]]:
        """Wait until the flow has said so many of a kind."""
        spin(self.client, until=lambda: len(self.said(what)) >= count, timeout=30)
        return self.said(what)

    def wait_status(self, text: str) -> None:
        """Wait until the node counts what it should."""
        spin(self.client, until=lambda: self.said("status")[-1:] == [{"text": text}])


def with_witnesses(flows: list[dict[str, Any]], site: Site, broker: PlainBroker) -> list[dict[str, Any]]:
    """Return the example as a user sets it up, with nodes beside it that publish what it says."""
    nodes = {node["id"]: node for node in flows}
    nodes["edged-broker"] |= {"broker": "127.0.0.1", "port": str(broker.port)}
    nodes["edged-open"] |= {"hubKey": str(site.path / site.hub_key), "records": str(site.path / "boards")}
    opened, refused, _ = nodes["edged-open"]["wires"]
    for wires, what in ((opened, "opened"), (refused, "refused"), (nodes["edged-show"]["wires"][0], "shown")):
        wires.append(f"as-{what}")
    publishes = {"type": "mqtt out", "z": "edged-tab", "qos": "1", "broker": "edged-broker", "wires": []}
    # An `mqtt out` with a topic of its own still follows msg.topic: each gets a function before it.
    functions = {
        "opened": "return { payload: { topic: msg.topic, ...msg.payload } }",
        "refused": "return { payload: msg.payload }",
        "shown": "return { payload: { text: msg.payload } }",
        "status": "return { payload: { text: msg.status.text } }",
    }
    witnesses: list[dict[str, Any]] = [
        {"id": "of-status", "type": "status", "z": "edged-tab", "scope": ["edged-open"], "wires": [["as-status"]]}
    ]
    for what, function in functions.items():
        witnesses += [
            {"id": f"as-{what}", "type": "function", "z": "edged-tab", "func": function, "outputs": 1}
            | {"libs": [], "wires": [[f"to-{what}"]]},
            publishes | {"id": f"to-{what}", "topic": f"flow/{what}"},
        ]
    return [*flows, *witnesses]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Flow]:
    """A board whose daemon runs, and the example flow that hears it."""
    with ExitStack() as stack:
        broker = stack.enter_context(PlainBroker(tmp_path_factory.mktemp("broker")))
        path = tmp_path_factory.mktemp("site")
        path.chmod(0o700)
        site = Site(path, models, broker.url)
        config = site.configure('format = "f32le"\neach = "window"')
        config.write_text(config.read_text().replace(f"factory/{site.name}/", "factory/+/"))
        boards = path / "boards"
        boards.mkdir()
        site.init().rename(boards / "press-07.enrol")
        (path / "board.enrol").symlink_to(boards / "press-07.enrol")
        site.install(site.pack())
        examples = lay_out(tmp_path_factory.mktemp("node"))
        red = stack.enter_context(NodeRed(tmp_path_factory.mktemp("node-red") / "user", examples / "node-red"))
        client = Client(site.options())
        stack.callback(client.close)
        client.subscribe(f"edged/{site.name}/+", 1)
        client.subscribe("flow/+", 1)
        client.connect()
        spin(client, until=lambda: client.hears)
        flows = json.loads((examples / "node-red" / "flows.json").read_text())
        red.deploy(with_witnesses(flows, site, broker))
        client.publish("edged/nobody/announce", b"?", qos=1, retain=True)
        spin(client, until=lambda: any(one.topic == "flow/refused" for one in client.deliveries))  # it hears the broker
        heard = Flow(site, stack.enter_context(site.daemon()), red, client)
        heard.send()
        heard.wait_said("opened", 100)
        yield heard


def test_the_node_loads_and_says_nothing_bad(flow: Flow) -> None:
    assert [node["types"] for node in flow.red.nodes() if node["module"] == "node-red-contrib-edged"] == [
        ["edged open"]
    ]
    assert not any(node.get("err") for node in flow.red.nodes())
    assert "[error]" not in flow.red.log
    assert "[warn] [edged open" not in flow.red.log


def test_results_of_a_running_board_are_seen(flow: Flow, models: Path) -> None:
    import numpy as np  # noqa: PLC0415  only here

    with np.load(models / "gearbox" / "golden.npz") as archive:
        right = [LABELS[y] for y in archive["raw_y"]]
    opened = flow.said("opened")[:100]
    assert [one["label"] for one in opened] == right
    assert {tuple(one[key] for key in ("topic", "device", "channel", "source", "model")) for one in opened} == {
        ("edged/press-07/c1", "press-07", "c1", "press-07", "gearbox")
    }
    shown = flow.wait_said("shown", 100)
    assert shown[0]["text"] == f"press-07 c1 press-07: {right[0]} {opened[0]['score']:.2f}"


def test_what_somebody_at_the_broker_alters_replays_or_moves_is_refused(flow: Flow) -> None:
    before = {(one["topic"], one["error"]) for one in flow.said("refused")}
    assert before <= {("edged/nobody/announce", "UnknownSignerError"), ("edged/press-07/announce", "ExpiredError")}
    opened, refused = len(flow.said("opened")), len(flow.said("refused"))
    result = flow.sealed()[-1]  # of the newest epoch: another test restarts the board
    flipped = bytearray(result)
    flipped[len(flipped) // 2] ^= 8
    attacks = [
        ("edged/press-07/c1", bytes(flipped), "DecryptionError"),
        ("edged/press-07/c1", result, "ReplayError"),
        ("edged/press-07/c2", result, "DecryptionError"),
        ("edged/press-08/c1", result, "UnknownSignerError"),
        ("edged/press-07/announce", result, "FormatError"),
    ]
    for topic, payload, _ in attacks:
        flow.client.publish(topic, payload, qos=1)
    said = flow.wait_said("refused", refused + len(attacks))[refused:]
    assert [(one["topic"], one["error"]) for one in said] == [(topic, error) for topic, _, error in attacks]
    assert all(one["message"] for one in said)
    assert len(flow.said("opened")) == opened
    flow.wait_status(f"{opened} opened, {refused + len(attacks)} refused")


def test_a_restarted_board_is_believed_again(flow: Flow) -> None:
    """Results of its new epoch may come before the announcement: they are held until then."""
    opened = len(flow.said("opened"))
    flow.daemon.stop()
    with flow.site.daemon():
        flow.send()
        said = flow.wait_said("opened", opened + 100)
    assert len({(one["kid"], one["count"]) for one in said}) == len(said)
