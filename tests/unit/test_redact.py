"""Secrets never show; names show as the same word throughout, or as they are where that was asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.board.redact import Redactor, learn_board, learn_gathered, shown

_CONFIG = """
[device]
name = "press-07"
state = "state"
[broker]
url = "mqtts://broker.plant.example:8883"
username = "anna"
password = "password"
ca = "ca.crt"
[keystore]
wrap = "hunter2-in-the-wrong-place"
[publishers.acme]
key = "acme.pub"
models = ["gearbox"]
[results]
hubs = ["home.pub"]
prefix = "plant/edge"
[runtime.delegates.tpu]
library = "libtpu.so"
options = { license = "delegate-s3cret" }
[[model]]
name = "gearbox"
channel = "c1"
topic = "factory/+/vibration"
format = "json"
each = "row"
delegate = "tpu"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "edged.toml"
    path.write_text(_CONFIG)
    (tmp_path / "password").write_text("pässw0rd-of-anna\n")
    return path


def test_names_of_a_board_are_masked_alike_wherever_they_stand(config: Path) -> None:
    redactor = Redactor()
    assert learn_board(redactor, config) is not None
    said = redactor.text("BROKER.plant.example:8883 as Anna: factory/press 9/vibration, edged-press-07, plant/edge/c1")
    assert re.fullmatch(r"(<host-\d>):8883 as <user-\d>: <topic-\d>, edged-<board-1>, <topic-\d>/c1", said)
    for name in ("plant", "anna", "factory", "press"):
        assert name not in said.lower()
    assert redactor.text("broker.plant.example") == redactor.text("Broker.Plant.Example")


def test_what_strangers_chose_is_masked_where_else_it_stands(config: Path) -> None:
    redactor = Redactor()
    learn_board(redactor, config)
    gathered = {"status.json": {"found": {"set_aside": [{"topic": "lab/x y/z"}]}}, "j": [{"EDGED_DEVICE": "pump-3"}]}
    learn_gathered(redactor, gathered)
    said = redactor.text("on lab/x y/z by pump-3")
    assert "lab" not in said
    assert "pump" not in said


@pytest.mark.parametrize("with_names", [True, False])
def test_secrets_are_masked_in_every_spelling(config: Path, with_names: bool) -> None:
    redactor = Redactor(with_names=with_names)
    learn_board(redactor, config)
    secret = "pässw0rd-of-anna".encode()
    said = redactor.text(
        f'{secret.decode()} {secret.hex()} mqtt://me:too@host/ pin=1234 PASSWORD="a b" hunter2-in-the-wrong-place'
        "\n-----BEGIN PRIVATE KEY-----\nMIGH\nAgEA\n-----END PRIVATE KEY-----\nend"
    )
    for canary in ("ssw0rd", secret.hex(), "too@", "1234", "a b", "hunter2", "MIGH"):
        assert canary not in said
    assert said.endswith("\n<masked>\nend")


def test_the_configuration_shows_where_secrets_are_and_not_what_they_are(config: Path) -> None:
    found = learn_board(Redactor(), config)
    assert found is not None
    tables = shown(found)
    assert tables["broker"]["password"] == str(config.parent / "password")
    assert tables["keystore"]["wrap"] == "<masked>"
    assert tables["runtime"]["delegates"]["tpu"]["options"] == {"license": "<masked>"}


def test_a_configuration_that_cannot_be_used_is_masked_whole(config: Path) -> None:
    config.write_text(_CONFIG.replace("[broker]", "[broker]\npasswort = 's3cret-typo'"))
    redactor = Redactor()
    assert learn_board(redactor, config) is None
    said = redactor.text("s3cret-typo broker.plant.example factory/+/vibration")
    for name in ("s3cret", "plant", "factory"):
        assert name not in said


def test_names_are_left_where_that_was_asked_for(config: Path) -> None:
    redactor = Redactor(with_names=True)
    learn_board(redactor, config)
    text = "broker.plant.example 192.0.2.7 factory/a/vibration"
    assert redactor.text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to 192.0.2.7:1883.", "to <address>:1883."),
        ("at 2001:db8::17, fe80::1", "at <address>, <address>"),
        ("[2001:db8::17]:8883", "[<address>]:8883"),
        ("127.0.0.1 ::1 0.0.0.0", "127.0.0.1 ::1 0.0.0.0"),
        ("2026-11-21 15:48:20 v6.1.0-18 1.2.3 std::x", None),
    ],
)
def test_addresses_are_masked_but_for_this_machines_own(text: str, masked: str | None) -> None:
    assert Redactor().text(text) == (text if masked is None else masked)


def test_a_short_name_is_masked_where_it_stands_alone() -> None:
    redactor = Redactor()
    redactor.add_names("host", ["mq"])
    assert redactor.text("mq: mqtt on mq.") == "<host-1>: mqtt on <host-1>."


def test_names_that_everybody_has_are_left() -> None:
    redactor = Redactor()
    redactor.add_names("user", ["debian", "pi", "localhost", ""])
    assert redactor.text("Debian on a Raspberry Pi, localhost") == "Debian on a Raspberry Pi, localhost"
