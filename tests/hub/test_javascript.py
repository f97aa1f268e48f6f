"""examples/javascript, which was written after docs/formats.md: it opens and refuses what edged does, as edged does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edged.broker import Delivery
from edged.formats.channel.receiver import Opened, Receiver
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record
from support.broker import Client, spin
from support.commands import run_edged
from support.node import cannot_node, lay_out, listening
from support.site import Site

Vector = dict[str, Any]
VECTORS = Path(__file__).parents[1] / "vectors"
SCRIPTS = Path(__file__).parent / "node"
KINDS = ("cbor", "sign1", "encrypt0", "encrypt", "record", "announcement", "result")
FILES = {kind: json.loads((VECTORS / f"{kind}.json").read_text()) for kind in (*KINDS, "keys")}
COMPARED = {"sign1": ["payload"], "encrypt0": ["iv", "plaintext"], "encrypt": ["plaintext"], "record": ["id", "role"]}
SEND = ("--array", "raw_windows", "--each", "window", "--format", "f32le")
LISTENING = "announces epoch"

pytestmark = pytest.mark.skipif(cannot_node("cbor-x", "mqtt") is not None, reason=str(cannot_node("cbor-x", "mqtt")))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("node"))


Node = Callable[[str, Path], Any]


@pytest.fixture(scope="module")
def node(examples: Path) -> Node:
    """What runs a script beside this file on a folder of vectors, and returns the JSON that it prints."""
    modules = examples.parent / "node_modules"
    modules.mkdir()
    (modules / "edged-results").symlink_to(examples / "javascript")

    def run(script: str, folder: Path) -> Any:  # noqa: ANN401  JSON
        copy = examples.parent / script
        copy.write_text((SCRIPTS / script).read_text())
        done = subprocess.run(["node", copy, folder], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


# --- vectors ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def came_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node("vectors.mjs", VECTORS)
    return found


ALL = [pytest.param(kind, one, id=f"{kind}-{one['name']}") for kind in KINDS for one in FILES[kind]["vectors"]]


@pytest.mark.parametrize(("kind", "vector"), ALL)
def test_vector(kind: str, vector: Vector, came_of: dict[str, Any]) -> None:
    found = came_of[kind]["vectors"][vector["name"]]
    assert found["outcome"] == vector["expect"], found["value"]
    if vector["expect"] != "opens":
        return
    for name in COMPARED.get(kind, ()):
        assert name not in vector or found["value"][name] == vector[name]
    if kind == "result":
        assert found["value"] == open_with_edged(vector)


def open_with_edged(vector: Vector) -> dict[str, Any]:
    """Return what `edged listen` prints of the last step of a vector."""
    hub = PrivateKey.from_scalar(bytes.fromhex(FILES["keys"]["keys"][vector["hub"]]["d"]))
    name = bytes.fromhex(FILES["keys"]["keys"][f"{vector['hub']} sign"]["kid"])
    receiver = Receiver(hub, name, [Record.parse(bytes.fromhex(FILES["announcement"]["enrolled"]))])
    opened: Opened | None = None
    for step in vector["steps"]:
        data = bytes.fromhex(step["data"])
        if "now" in step:
            receiver.announce(step["topic"].split("/")[-2], data, step["now"])
        else:
            opened = receiver.open(step["topic"], data, vector["steps"][0]["now"])
    assert opened is not None
    names = {"device": opened.device, "channel": opened.channel, "kid": opened.kid.hex(), "signed": opened.signed}
    return {**names, **opened.result.to_json()}


@pytest.mark.parametrize("kind", ["sign1", "encrypt0", "record", "announcement", "result"])
def test_a_flipped_bit_at_any_byte_of_a_good_vector_is_refused(kind: str, came_of: dict[str, Any]) -> None:
    assert came_of[kind]["unseen"] == 0


def test_traps(node: Node, tmp_path: Path) -> None:
    """What JavaScript, cbor-x or a short memory would get wrong: node/traps.py says what."""
    environment = {**os.environ, "PYTHONPATH": str(VECTORS)}
    command = [sys.executable, SCRIPTS / "traps.py"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    vectors = json.loads(made.stdout)
    (tmp_path / "keys.json").write_text((VECTORS / "keys.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**FILES["result"], "vectors": vectors}))
    found = node("vectors.mjs", tmp_path)["result"]["vectors"]
    assert {name: one["outcome"] for name, one in found.items()} == {one["name"]: one["expect"] for one in vectors}
    for one in vectors:
        assert one["expect"] != "opens" or found[one["name"]]["value"] == open_with_edged(one)


def test_results_wait_for_their_announcement_within_a_bound(node: Node) -> None:
    """A retained result is none; 1,000 others are held; each beyond that pushes out the oldest."""
    said = node("holds.mjs", VECTORS)
    assert said[:1001] == [[0, ["FormatError"]]] + [[0, []]] * 1000
    assert said[1001] == [1, []], "the one that was held opens"
    assert said[1002:] == [[0, []], [0, ["UnknownKeyError"]], [0, ["UnknownKeyError"]]]


# --- with a real board ------------------------------------------------------------------------------


def configure(site: Site, *, sign: bool, aead: str = "A256GCM") -> None:
    config = site.configure('format = "f32le"\neach = "window"')
    table = f'[results]\nsign = {str(sign).lower()}\naead = "{aead}"'
    text = config.read_text().replace("[results]", table)
    config.write_text(text.replace(f"factory/{site.name}/", "factory/+/"))


def send(site: Site) -> None:
    """Send 100 windows."""
    source = site.models / "gearbox" / "golden.npz"
    site.edged("send", source, *SEND, "-t", site.topic, *site.connection())


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("sign", [False, True], ids=["bare", "signed"])
@pytest.mark.parametrize("aead", ["A256GCM", "ChaCha20/Poly1305"])
def test_it_prints_what_edged_listen_prints(examples: Path, site: Site, aead: str, *, sign: bool) -> None:
    configure(site, sign=sign, aead=aead)
    site.init()
    site.install(site.pack())
    with site.daemon(), site.listener(100) as ours, listening(examples, site, "--count", "100") as theirs:
        ours.wait_connected()
        theirs.wait_said(LISTENING)
        send(site)
        printed = ours.results()
        assert theirs.wait_left() == 0
    assert theirs.printed == printed
    assert len(printed) == 100
    assert {(result["signed"], result["source"]) for result in printed} == {(sign, site.name)}


@pytest.mark.broker
@pytest.mark.slow
def test_a_board_without_a_clock_is_asked_and_believed(examples: Path, site: Site) -> None:
    """By the hub's clock its announcements have lapsed since long; the next one echoes the hub's question."""
    configure(site, sign=False)
    site.init()
    site.install(site.pack())
    in_1970 = (
        "import edged.board.installation;"
        "edged.board.installation.Clock.read = classmethod(lambda cls, **_: cls(1000.0, False));"
        "from edged.cli import main; main()"
    )
    with site.daemon(program=("-c", in_1970)), listening(examples, site, "--count", "100") as theirs:
        theirs.wait_said("ExpiredError")
        theirs.wait_said(LISTENING)
        send(site)
        assert theirs.wait_left() == 0
    assert len(theirs.printed) == 100


@pytest.mark.broker
@pytest.mark.slow
def test_what_somebody_at_the_broker_alters_replays_or_moves_is_refused(examples: Path, site: Site) -> None:
    configure(site, sign=False)
    site.init()
    site.install(site.pack())
    twin = site.path / "twin"
    twin.mkdir(mode=0o700)
    (site.path / "twin.toml").write_text(
        (site.path / "edged.toml").read_text().replace(f'"{site.name}"', '"twin"').replace(str(site.state), str(twin))
    )
    site.edged("init", "-c", "twin.toml", "-o", "twin.enrol")
    attacker = Client(site.options())
    attacker.subscribe(f"edged/{site.name}/+", 1)
    boards = ("board.enrol", "twin.enrol")
    with site.daemon(), listening(examples, site, boards=boards) as theirs:
        theirs.wait_said(LISTENING)
        attacker.connect()
        spin(attacker, until=lambda: attacker.hears)
        send(site)
        theirs.wait_printed(100)
        result = last(attacker, f"edged/{site.name}/c1")
        announcement = last(attacker, f"edged/{site.name}/announce")
        flipped = bytearray(result)
        flipped[-1] ^= 1
        attacks = [
            (f"edged/{site.name}/c1", bytes(flipped), "DecryptionError"),
            (f"edged/{site.name}/c1", result, "ReplayError"),
            (f"edged/{site.name}/c2", result, "DecryptionError"),
            ("edged/twin/announce", announcement, "UnknownSignerError"),
            ("edged/twin/c1", result, None),  # held: that board may yet announce the key
            (f"edged/{site.name}/c1", result[:-1], "FormatError"),
        ]
        for topic, payload, _ in attacks:
            attacker.publish(topic, payload, qos=1)
        spin(attacker, until=lambda: any("FormatError" in line for line in theirs.said))
        refused = [line for line in theirs.said if LISTENING not in line and "ExpiredError" not in line]
        attacker.close()
    assert [line.split(": ")[:2] for line in refused] == [[topic, kind] for topic, _, kind in attacks if kind]
    assert len(theirs.printed) == 100


def last(client: Client, topic: str) -> bytes:
    """Return the newest payload that ``client`` has heard on ``topic``, once there is one."""

    def heard() -> list[Delivery]:
        return [delivery for delivery in client.deliveries if delivery.topic == topic]

    spin(client, until=heard)
    return heard()[-1].payload


# --- the command line -------------------------------------------------------------------------------


def listen(examples: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = ["node", examples / "javascript" / "listen.mjs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_help_shows_each_option_and_leaves_with_zero(examples: Path) -> None:
    done = listen(examples, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(option in done.stdout for option in ("--hub-key", "--board", "--url", "--prefix", "--count"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 64, "--hub-key and --board are needed"),
        (("--nonsense",), 64, "--nonsense"),
        (("--hub-key", "absent.key", "--board", "."), 66, "absent.key"),
    ],
)
def test_a_wrong_command_line_is_explained(
    examples: Path, tmp_path: Path, arguments: Sequence[str], code: int, said: str
) -> None:
    done = listen(examples, *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_key_files_that_are_encrypted_or_open_to_others_are_refused(examples: Path, tmp_path: Path) -> None:
    keygen = ("keygen", "hub", "--id", "home", "--passphrase-file", "passphrase")
    (tmp_path / "passphrase").write_text("a passphrase of some length\n")
    (tmp_path / "passphrase").chmod(0o600)
    tmp_path.chmod(0o700)
    run_edged(*keygen, cwd=tmp_path)
    done = listen(examples, "--hub-key", "home.key", "--board", ".", cwd=tmp_path)
    assert (done.returncode, "has a passphrase" in done.stderr) == (66, True), done.stderr
    (tmp_path / "home.key").chmod(0o640)
    done = listen(examples, "--hub-key", "home.key", "--board", ".", cwd=tmp_path)
    assert (done.returncode, "open to others" in done.stderr) == (66, True), done.stderr
