"""The hub as an add-on of Home Assistant: what is made of its options is a configuration that the hub takes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edged.config.hub import HubConfig
from edged.config.load import load_hub
from edged.config.secret import read_secret

ADDON = Path(__file__).resolve().parents[2] / "deploy" / "home-assistant" / "edged-hub"
MOSQUITTO = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons", "password": "mosquitto's"}
UPSTREAM = {"upstream_url": "mqtts://broker.example:8883"}


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ADDON))
    monkeypatch.delitem(sys.modules, "configure", raising=False)
    return importlib.import_module("configure")


def made(configure: ModuleType, folder: Path, options: dict[str, object], broker: dict[str, object]) -> HubConfig:
    """Return what the hub reads, with its secrets where it looks for them."""
    text, secrets = configure.hub_toml(options, broker, folder / "hub", folder, folder / "boards")
    for name, secret in secrets.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)
        assert secret not in text
    (folder / "hub.toml").write_text(text)
    return load_hub(folder / "hub.toml")


def test_an_upstream_broker_is_all_that_must_be_said(configure: ModuleType, tmp_path: Path) -> None:
    config = made(configure, tmp_path, dict(UPSTREAM), MOSQUITTO)
    assert config.upstream["main"].url == "mqtts://broker.example:8883"
    assert config.local.url == "mqtt://core-mosquitto:1883"
    assert config.local.password is not None
    assert read_secret(config.local.password) == b"mosquitto's"


def test_the_page_is_for_home_assistant_and_for_others_with_a_token_alone(
    configure: ModuleType, tmp_path: Path
) -> None:
    page = made(configure, tmp_path, dict(UPSTREAM), MOSQUITTO).page
    assert page is not None
    assert (page.address, page.proxy, page.token) == ("0.0.0.0:8099", "172.30.32.2", None)
    page = made(configure, tmp_path, {**UPSTREAM, "page_token": "correct horse battery"}, MOSQUITTO).page
    assert page is not None
    assert page.token is not None
    assert read_secret(page.token) == b"correct horse battery"


def test_a_local_broker_that_is_named_takes_the_place_of_home_assistants(configure: ModuleType, tmp_path: Path) -> None:
    config = made(configure, tmp_path, {**UPSTREAM, "local_url": "mqtts://other.example"}, MOSQUITTO)
    assert (config.local.url, config.local.username, config.local.password) == ("mqtts://other.example", None, None)


def test_what_is_wanted_is_named(configure: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(configure.WantsMore, match="upstream_url"):
        made(configure, tmp_path, {}, MOSQUITTO)
    with pytest.raises(configure.WantsMore, match="local_url"):
        made(configure, tmp_path, dict(UPSTREAM), {})
