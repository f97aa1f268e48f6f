"""hub.toml: everything that fits is taken, everything else is refused with file, key and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.base.errors import ConfigError, MissingFileError
from edged.config.hub import HubConfig
from edged.config.load import load_hub
from edged.hub.upstream import check_addresses

LEAST = """
[upstream.main]
url = "mqtts://between"
[local]
url = "mqtt://home"
"""


def load(tmp_path: Path, text: str) -> HubConfig:
    (tmp_path / "hub.toml").write_text(text)
    return load_hub(tmp_path / "hub.toml")


def test_the_least_has_every_default(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST)
    assert config.upstream["main"].prefix == "edged"
    assert (config.local.prefix, config.local.queue, config.local.plaintext_on_upstream) == (
        "edged-hub",
        100_000,
        False,
    )
    assert (config.hub.state, config.hub.boards) == ("/var/lib/edged-hub", "/etc/edged/boards")
    assert (config.hub.share, config.hub.packages, config.page) == (None, None, None)
    assert (config.home_assistant.discovery, config.home_assistant.prefix) == (True, "homeassistant")


def test_everything_at_once_and_paths_are_of_the_files_directory(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
[hub]
name = "home"
state = "state"
boards = "boards"
packages = "/srv/packages"
share = "group"
[keystore]
wrap = "credential:wrap"
[upstream.one]
url = "mqtts://between"
prefix = "site/edged"
ca = "ca.pem"
[upstream.two]
url = "unix:///run/broker"
[local]
url = "mqtt://home"
prefix = "plain/edged"
queue = 5
plaintext_on_upstream = true
[home_assistant]
discovery = false
prefix = "ha"
[page]
address = "0.0.0.0:80"
token = "token"
[log]
level = "debug"
""",
    )
    assert config.hub.state == str(tmp_path / "state")
    assert config.hub.boards == str(tmp_path / "boards")
    assert config.hub.packages == "/srv/packages"
    assert config.upstream["one"].ca == str(tmp_path / "ca.pem")
    assert config.upstream["one"].prefix == "site/edged"
    assert config.keystore.wrap == "credential:wrap"
    assert config.page is not None
    assert config.page.token == str(tmp_path / "token")


def test_parts_of_a_folder_are_merged_over_it(tmp_path: Path) -> None:
    (tmp_path / "hub.toml.d").mkdir()
    (tmp_path / "hub.toml.d" / "more.toml").write_text('[upstream.more]\nurl = "mqtt://more"\n[local]\nqueue = 7\n')
    config = load(tmp_path, LEAST)
    assert set(config.upstream) == {"main", "more"}
    assert (config.local.url, config.local.queue) == ("mqtt://home", 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "upstream"),
        ('[local]\nurl = "mqtt://home"\n', "upstream"),
        ('[upstream]\n[local]\nurl = "mqtt://home"\n', "upstream"),
        ('[upstream.main]\nurl = "mqtt://between"\n', "local"),
        (LEAST.replace('url = "mqtt://home"', ""), "local"),
        (f"{LEAST}queue = 0\n", "local.queue"),
        (f'{LEAST}queue = "many"\n', "local.queue"),
        (f"{LEAST}qeue = 5\n", "local.qeue"),
        (f'{LEAST}prefix = "a/+"\n', "local.prefix"),
        (f'{LEAST}prefix = ""\n', "local.prefix"),
        (f'{LEAST}plaintext_on_upstream = "yes"\n', "local.plaintext_on_upstream"),
        (f'{LEAST}session = "soon"\n', "session"),
        (LEAST.replace("upstream.main]", 'upstream.main]\nprefix = "#"'), "prefix"),
        (LEAST.replace("upstream.main", 'upstream."Main Street"'), "upstream"),
        (f'{LEAST}[hub]\nname = "The Hub"\n', "hub.name"),
        (f'{LEAST}[hub]\nshare = "a/b"\n', "hub.share"),
        (f"{LEAST}[hub]\nboard = 1\n", "hub.board"),
        (f"{LEAST}[home_assistant]\ndiscovery = 1\n", "home_assistant.discovery"),
        (f"{LEAST}[page]\nport = 80\n", "page.port"),
        (f'{LEAST}[log]\nlevel = "loud"\n', "log.level"),
        (f"{LEAST}[results]\n", "results"),
        ("[local\n", "not TOML"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert said in refused.value.message
    assert "hub.toml" in refused.value.message


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"hub\.toml"):
        load_hub(tmp_path / "hub.toml")


@pytest.mark.parametrize(
    ("local", "upstream"),
    [
        ("mqtt://between", "mqtt://between"),
        ("mqtt://between:1883", "mqtt://between"),
        ("mqtts://between", "mqtts://BETWEEN:8883/"),
        ("mqtt://localhost", "mqtt://127.0.0.1"),
        ("unix:///run/broker", "unix:///run/broker"),
    ],
)
def test_one_broker_under_two_names_is_refused(local: str, upstream: str) -> None:
    with pytest.raises(ConfigError, match=r"local\.url and upstream\.main\.url") as refused:
        check_addresses(local, {"main": upstream})
    assert refused.value.hint is not None
    assert "local.plaintext_on_upstream" in refused.value.hint


def test_two_brokers_are_taken() -> None:
    check_addresses("mqtt://localhost:1883", {"main": "mqtt://127.0.0.1:1884", "other": "unix:///run/broker"})
