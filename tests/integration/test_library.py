"""docs/library.md: each snippet runs as it stands there, but for the broker's address, and does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edged
import edged.demo.model
from edged.broker import BrokerOptions
from edged.formats.channel.reading import ReadingOpener
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from support.broker import Client, PlainBroker, spin
from support.parties import Board, Hub, seal
from support.site import Site

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
PASSPHRASE = b"correct horse battery staple"
DAY = 86_400

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the tests stand without the project's docs")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainBroker]:
    with PlainBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def client(broker: PlainBroker) -> Iterator[Client]:
    client = Client(BrokerOptions(url=broker.url))
    client.connect()
    yield client
    client.close()


def snippet(name: str, broker: PlainBroker | None = None) -> str:
    """Return the code below ``<!-- run: NAME -->``, for a broker."""
    (code,) = re.findall(rf"<!-- run: {name} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if broker is not None:
        assert '"broker.local"' in code
        code = code.replace('"broker.local"', '"127.0.0.1"').replace("1883", str(broker.port))
    return str(code)


@pytest.mark.parametrize(("name", "most"), [("hub", 20), ("sensor", 10), ("pack", 15), ("verify", 5)])
def test_a_snippet_is_as_short_as_the_page_says(name: str, most: int) -> None:
    """Lines of code; a manifest is none."""
    code = re.sub(r"^manifest = \{.*?^\}\n", "", snippet(name), flags=re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= most


def test_each_name_of_the_library_stands_in_the_pages_table() -> None:
    table = PAGE.read_text().partition("## All names")[2]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))) == set(edged._PLACE)


@pytest.mark.broker
def test_a_hub_in_twenty_lines_opens_refuses_and_asks(tmp_path: Path, broker: PlainBroker, client: Client) -> None:
    board, late, keys = Board(), Board("press-08"), Hub()
    (tmp_path / "boards").mkdir()
    for one in (board, late):
        (tmp_path / "boards" / f"{one.name}.enrol").write_bytes(one.record.encode(one.sign))
    (tmp_path / "home.key").write_bytes(edged.write_keys(edged.Keys(keys.sign, keys.key), PASSPHRASE))
    announcer, lapsed = board.announcer(keys), late.announcer(keys)
    client.subscribe("edged/press-08/nonce", 1)
    client.publish("edged/press-07/announce", announcer.announcement(time.time()), qos=1, retain=True)
    client.publish("edged/press-08/announce", lapsed.announcement(time.time() - 3 * DAY), qos=1, retain=True)
    with (tmp_path / "printed").open("wb") as printed:
        command = [sys.executable, "-c", snippet("hub", broker)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=printed, stderr=subprocess.STDOUT)

    def said() -> str:
        return (tmp_path / "printed").read_text()

    try:
        spin(client, until=lambda: client.deliveries, timeout=60)
        lapsed.asked(*cbor.decode(client.payloads[0]))
        client.publish("edged/press-07/c1", seal(announcer), qos=1)
        client.publish("edged/press-08/c1", seal(lapsed), qos=1)
        client.publish("edged/press-08/announce", lapsed.announcement(time.time() - 3 * DAY + 1), qos=1, retain=True)
        client.publish("edged/press-07/c1", b"no result", qos=1)
        spin(
            client, until=lambda: said().count("'label': 'broken'") == 2 and "edged/press-07/c1: " in said(), timeout=60
        )
        assert process.poll() is None, said()
    finally:
        process.kill()
        process.wait()
    assert "the announcement of press-08 lapsed" in said()
    assert all(f"'device': '{name}'" in said() for name in ("press-07", "press-08"))
    assert "Traceback" not in said()


@pytest.mark.broker
def test_a_sensor_in_ten_lines_seals_what_its_board_opens(tmp_path: Path, broker: PlainBroker, client: Client) -> None:
    key, topic = edged.ContentKey.generate(Aead.A256GCM), "factory/press-07/vibration"
    (tmp_path / "press-07.key").write_bytes(key.encode())
    client.subscribe(topic, 1)
    spin(client, until=lambda: client.hears)
    subprocess.run([sys.executable, "-c", snippet("sensor", broker)], cwd=tmp_path, check=True, timeout=60)
    spin(client, until=lambda: client.deliveries)
    assert b"x1" in ReadingOpener(key, topic, "c1").open(client.payloads[0], 1024).payload


def test_a_package_from_a_notebook_is_installed_on_its_board(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `edged install` does it: verified, decrypted, and its self-test answered by the runtime."""
    tmp_path.chmod(0o700)
    site = Site(tmp_path, models, "mqtt://127.0.0.1:1")
    site.configure(name="pump")
    (tmp_path / "press-07.enrol").write_bytes(site.init().read_bytes())
    acme = edged.read_keys((tmp_path / "acme.key").read_bytes())
    (tmp_path / "acme.key").write_bytes(edged.write_keys(acme, PASSPHRASE))
    folder = Path(edged.demo.model.__file__).parent
    with np.load(folder / "pump-selftest.npz") as known:
        notebook: dict[str, Any] = {name: known[name] for name in ("windows", "scores")}
    notebook["tflite"] = (folder / "pump.tflite").read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("pack", "verify"):
        exec(snippet(name), notebook)
    assert capsys.readouterr().out == "pump 1 ('healthy', 'imbalance', 'bearing')\n"
    site.install(tmp_path / "pump-1.edged")
