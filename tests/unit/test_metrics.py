"""Numbers for Prometheus: the text that it parses, who gets it, and the table that documents it."""

from __future__ import annotations

import http.client
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edged.base.errors import ConfigError
from edged.base.web import prometheus
from edged.base.web.address import Listen
from edged.base.web.prometheus import Family, MetricsServer, one, process_values, render
from edged.board.daemon import reports as board
from edged.config.board import MetricsTable
from edged.hub import status as hub
from support.scrape import UnixConnection, get

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
COUNT = Family("edged_things_total", "counter", "Things.", ("kind",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.sock"


@pytest.fixture
def server(path: Path) -> Iterator[MetricsServer]:
    server = MetricsServer(Listen.parse(str(path)))
    server.show(b"edged_results_total 3.0\n")
    yield server
    server.close()


# --- the text --------------------------------------------------------------------------------


def test_the_text_is_parsed_to_the_same_numbers() -> None:
    odd = 'a "quoted" \\ line\nbreak'
    text = render({COUNT: {(odd,): 2, ("plain",): 0.5}, Family("edged_more", "gauge", "More."): one(1e9)}).decode()
    things, more = text_string_to_metric_families(text)
    assert (things.name, things.type, things.documentation) == ("edged_things", "counter", "Things.")
    assert {one.labels["kind"]: one.value for one in things.samples} == {odd: 2, "plain": 0.5}
    assert [(one.name, one.value) for one in more.samples] == [("edged_more", 1e9)]


def test_a_family_without_values_is_left_out() -> None:
    assert render({COUNT: {}}) == b""


def test_a_process_says_when_it_started_and_what_it_uses() -> None:
    families = {
        one.name: one.samples[0] for one in text_string_to_metric_families(render(process_values("hub")).decode())
    }
    assert families["edged_resident_memory_bytes"].value > 1e6
    assert 0 < families["edged_cpu_seconds"].value < 1e6
    assert families["edged_start_time_seconds"].labels == {"component": "hub"}


@pytest.mark.parametrize("families", [board.FAMILIES, hub.FAMILIES], ids=["board", "hub"])
def test_names_follow_the_conventions_and_are_there_once(families: tuple[Family, ...]) -> None:
    """Counters end in _total, gauges do not; base units; one prefix."""
    names = [one.name for one in families]
    assert len(set(names)) == len(names)
    for family in families:
        assert re.fullmatch(r"edged_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|kb|minutes)\b", family.name)


@pytest.mark.parametrize(("name", "families"), [("board", board.FAMILIES), ("hub", hub.FAMILIES)])
def test_the_documented_table_is_the_code(name: str, families: tuple[Family, ...]) -> None:
    if not DOCUMENT.is_file():
        pytest.skip("the tests stand without the project's docs")
    table = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", DOCUMENT.read_text(), re.DOTALL)
    assert table is not None
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n"
        for one in families
    ]
    assert table[1] == "".join(("| metric | type | labels | meaning |\n", "|---|---|---|---|\n", *rows))


# --- who gets it -----------------------------------------------------------------------------


def test_the_socket_is_for_owner_and_group_and_goes_with_the_process(path: Path) -> None:
    server = MetricsServer(Listen.parse(str(path)))
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert list(path.parent.iterdir()) == [path]
    finally:
        server.close()
    assert not path.exists()


def test_metrics_are_all_that_is_served(server: MetricsServer, path: Path) -> None:
    assert server is not None
    assert get(UnixConnection(path)) == (200, "edged_results_total 3.0\n")
    assert get(UnixConnection(path), "/")[0] == 404
    connection = UnixConnection(path)
    connection.request("POST", "/metrics")
    assert connection.getresponse().status == 405
    connection.close()


def test_the_type_is_the_one_that_prometheus_asks_for(server: MetricsServer, path: Path) -> None:
    assert server is not None
    connection = UnixConnection(path)
    connection.request("GET", "/metrics")
    assert connection.getresponse().headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    connection.close()


def test_numbers_of_a_main_loop_that_stands_still_are_not_served(
    server: MetricsServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "STALE", -1.0)
    assert get(UnixConnection(path))[0] == 503
    monkeypatch.setattr(prometheus, "STALE", 60.0)
    server.show(b"x 1.0\n")
    assert get(UnixConnection(path)) == (200, "x 1.0\n")


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = MetricsServer(Listen.parse(str(path)))
    server.show(b"")
    assert get(UnixConnection(path))[0] == 200
    server.close()


def test_neither_a_file_nor_another_process_gives_way(server: MetricsServer, path: Path, tmp_path: Path) -> None:
    assert server is not None
    with pytest.raises(ConfigError, match=r"metrics\.listen: .* another process listens there"):
        MetricsServer(Listen.parse(str(path)))
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="something else than a socket"):
        MetricsServer(Listen.parse(str(file)))
    assert file.read_text() == "precious"
    with pytest.raises(ConfigError, match="No such file or directory"):
        MetricsServer(Listen.parse(str(tmp_path / "nowhere" / "metrics.sock")))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_on_loopback_only_this_machines_names_are_answered(host: str) -> None:
    """A web page's own name may resolve to 127.0.0.1."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as free:
            free.bind((host.strip("[]"), 0))
            port = free.getsockname()[1]
    except OSError:
        pytest.skip(f"this machine has no {host}")
    server = MetricsServer(Listen.parse(f"{host}:{port}"))
    server.show(b"x 1.0\n")
    try:
        connect = lambda: http.client.HTTPConnection(host.strip("[]"), port, timeout=5)  # noqa: E731
        assert get(connect()) == (200, "x 1.0\n")
        assert get(connect(), Host=f"localhost:{port}")[0] == 200
        assert get(connect(), Host=f"rebound.example:{port}")[0] == 421
    finally:
        server.close()


def test_a_client_that_says_nothing_holds_nobody_up_for_long(
    server: MetricsServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server is not None
    monkeypatch.setattr("edged.base.web.server._READ", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(os.fspath(path))
        assert get(UnixConnection(path))[0] == 200


# --- the configuration -----------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "192.168.1.7:9464", "[::]:9464"])
def test_other_addresses_are_refused_with_the_reason(listen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsTable(listen)
    assert "others than this machine reach" in caught.value.message
    assert "docs/metrics.md" in (caught.value.hint or "")


@pytest.mark.parametrize("listen", ["", "metrics.sock", "localhost:9464", "127.0.0.1", "127.0.0.1:99999", "9464"])
def test_what_is_no_address_is_refused_with_an_example(listen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsTable(listen)
    assert caught.value.message.startswith("metrics.listen: ")
    assert "/run/edged/metrics.sock" in (caught.value.hint or "")
