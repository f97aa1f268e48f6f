"""The proxy before the aggregator: boards reach the ten calls that they need, and nothing of what leads a fleet.

Flower serves all of that on one port, and its node authentication is about nodes alone: whoever reaches the rest leads.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edged.base.errors import EdgedError
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.pem import private_openssh, public_pem
from support.ports import quiet_port
from support.proxy import CONFIGURATION, Proxy, listens, nginx, write_certificate
from support.waiting import wait_until

pytest.importorskip("flwr", reason="Flower is not installed here: it has an environment of its own")

from edged.federated.flower.processes import Child, Secret
from edged.federated.flower.superlink import FLEET, Control

pytestmark = [
    pytest.mark.skipif(nginx() is None, reason="no nginx: apt install nginx"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.verify=<str>. is deprecated:DeprecationWarning"),  # how Flower calls httpx
]

PROTOBUF = "application/protobuf"
LISTS_NODES = "/v1/control/list-nodes"
"""An empty message is all that this call wants: whoever reaches it gets an answer."""
OTHERS = [
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    LISTS_NODES,
    "/v1/control/register-node",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/runtime/get-nodes",
    "/health",
    "/docs",
    "/openapi.json",
    "/",
]
TRICKS = [
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/activate-node/../../control/list-nodes",
    "//v1/control/list-nodes",
    "/v1//control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/..%2fcontrol%2flist-nodes",
    "/v1%2fcontrol%2flist-nodes",
    "/v1/fleet/activate-node%2f..%2f..%2fcontrol%2flist-nodes",
    "/v1/fleet/activate-node;/../../control/list-nodes",
    "/v1/control/list-nodes?/v1/fleet/activate-node",
    "/v1/control/list-nodes#/../../fleet/activate-node",
    "/v1/fleet/activate-node/",
    "/v1/fleet/activate-nodes",
    "/V1/FLEET/REGISTER-NODE",
    "/v1/fleet/register-node%0a",
]
ENDS_AS_A_CALL = [
    "/v1/control/list-nodes/../../fleet/activate-node",
    "/v1/control/list-nodes%3f/../../fleet/activate-node",
    "/v1/control/list-nodes%23/../../fleet/activate-node",
    "/v1/fleet/%61ctivate-node",
    "/v1/fleet/activate-node%0a",
    "/v1/fleet/activate-node?/../../control/list-nodes",
]
"""The proxy reads these as calls of a board's; another program might read them otherwise."""


class Link:
    """A SuperLink on loopback, as the aggregator starts it; it serves once it was entered."""

    def __init__(self, folder: Path) -> None:
        self.ca = write_certificate(folder)
        self.port = quiet_port()
        self.log = folder / "link.log"
        files = (("certfile", "cert.pem"), ("keyfile", "key.pem"), ("ca-certfile", "ca.pem"))
        self.child = Child(
            "flower-superlink",
            [
                *(part for option, name in files for part in (f"--ssl-{option}", str(folder / name))),
                *("--host", "127.0.0.1", "--port", str(self.port), "--enable-supernode-auth"),
                *("--isolation", "process", "--database", str(folder / "link.db")),
            ],
            folder / "link",
            self.log,
        )

    def serves(self) -> bool:
        assert self.child.running, self.log.read_text()
        return listens(self.port)


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    link = Link(tmp_path_factory.mktemp("link"))
    with link.child:
        wait_until(link.serves, told=link.log.read_text)
        yield link


@pytest.fixture(scope="module")
def proxy(link: Link, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy") / "nginx", link.port, link.ca) as proxy:
        yield proxy


def ask(port: int, ca: Path, path: str, method: str = "POST") -> int:
    """Send an empty message to a path, just as it is written; return the status."""
    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    headers = {"content-type": PROTOBUF, "accept": PROTOBUF, "connection": "close"}
    connection.request(method, path, b"", headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def ask_through(proxy: Proxy, path: str, method: str = "POST") -> tuple[int, str]:
    """Send the same to the proxy; return the status and the server that it asked, which it logs after it has answered."""
    before = len(proxy.log)
    answer = ask(proxy.port, proxy.ca, path, method)
    (line,) = wait_until(
        lambda: [one for one in proxy.log[before:] if one[2] == f"{method} {path}"], told=lambda: proxy.log
    )
    assert line[0] == answer
    return answer, line[1]


def asked(link: Link) -> list[str]:
    """Return the paths that the SuperLink was asked for, as it read them."""
    return re.findall(r'"[A-Z]+ (\S+) HTTP', link.log.read_text())


def test_the_proxy_knows_the_calls_that_boards_make() -> None:
    names = re.search(r"\(\?<call>([a-z|-]+)\)", CONFIGURATION.read_text())
    assert names is not None
    assert {f"/v1/fleet/{name}" for name in names[1].split("|")} == set(FLEET)


def test_a_registered_board_connects_through_it_and_no_other(link: Link, proxy: Proxy, tmp_path: Path) -> None:
    known, stranger = PrivateKey.generate(), PrivateKey.generate()

    def board(name: str, key: PrivateKey) -> Child:
        arguments = [
            *("--superlink", proxy.address, "--root-certificates", str(proxy.ca), "--isolation", "process"),
            *("--host", "127.0.0.1", "--port", str(quiet_port()), "--max-retries", "0"),
            *("--auth-supernode-private-key", Secret("node-key", private_openssh(key))),
        ]
        return Child("flower-supernode", arguments, tmp_path / name, tmp_path / f"{name}.log")

    with closing(Control(f"127.0.0.1:{link.port}", link.ca)) as control:
        control.register(known.public, "press-07")
        registered = {*control.nodes()}
        with board("known", known) as supernode:
            wait_until(lambda: control.nodes()[public_pem(known.public)][1] == "online")
            wait_until(lambda: (200, "POST /v1/fleet/pull-messages") in passed(proxy))
            assert supernode.running
        wait_until(lambda: (200, "POST /v1/fleet/deactivate-node") in passed(proxy))
        with board("stranger", stranger) as supernode:
            wait_until(lambda: not supernode.running)
        assert {*control.nodes()} == registered
    assert {(200, f"POST /v1/fleet/{name}") for name in ("activate-node", "send-node-heartbeat")} <= passed(proxy)


def passed(proxy: Proxy) -> set[tuple[int, str]]:
    """Return what the proxy asked the SuperLink, with what that said."""
    return {(status, request) for status, behind, request in proxy.log if behind != "-"}


@pytest.mark.parametrize("path", FLEET)
def test_each_call_of_a_board_reaches_the_superlink(link: Link, proxy: Proxy, path: str) -> None:
    """It answers an empty, unsigned one with a refusal of its own."""
    answer = ask_through(proxy, path)[0]
    assert answer == ask(link.port, link.ca, path) == http.client.UNAUTHORIZED
    assert asked(link)[-2:] == [path, path]


@pytest.mark.parametrize("path", [*OTHERS, *TRICKS])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_everything_else_is_refused(link: Link, proxy: Proxy, method: str, path: str) -> None:
    before = asked(link)
    assert ask_through(proxy, path, method) == (http.client.FORBIDDEN, "-")
    assert asked(link) == before


@pytest.mark.parametrize("path", FLEET)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_a_call_is_made_in_one_way_only(proxy: Proxy, method: str, path: str) -> None:
    assert ask_through(proxy, path, method) == (http.client.FORBIDDEN, "-")


@pytest.mark.parametrize("path", ENDS_AS_A_CALL)
def test_a_path_that_can_be_read_in_two_ways_goes_on_as_the_proxy_read_it(link: Link, proxy: Proxy, path: str) -> None:
    assert ask_through(proxy, path)[0] == http.client.UNAUTHORIZED
    assert asked(link)[-1] == "/v1/fleet/activate-node"


def test_without_it_whoever_reaches_the_port_leads_the_fleet(link: Link, proxy: Proxy) -> None:
    """Node authentication is on, and asks nothing here: this is why there is a proxy."""
    assert ask(link.port, link.ca, LISTS_NODES) == http.client.OK
    key, before = PrivateKey.generate().public, len(proxy.log)
    with closing(Control(proxy.address, proxy.ca)) as through, pytest.raises(EdgedError):
        through.register(key, "nobody")
    assert wait_until(lambda: proxy.log[before:])[0][:2] == (http.client.FORBIDDEN, "-")
    with closing(Control(f"127.0.0.1:{link.port}", link.ca)) as behind:
        assert behind.register(key, "nobody")
