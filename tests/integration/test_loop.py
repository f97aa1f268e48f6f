"""The whole loop as users run it: real broker with TLS and client certificates, daemon and listener as processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.broker import Client, spin
from support.engines import ENGINES
from support.promises import DECIDED, NOTHING_READ, SWAPS
from support.site import Site

NAMES = "a1,a2,a3,a4"
OWN_MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module")
def golden(models: Path) -> dict[str, np.ndarray]:
    with np.load(models / "gearbox" / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


@DECIDED
@pytest.mark.parametrize("whose", ["own", pytest.param("real", marks=pytest.mark.real_models)])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_every_gearbox_window_is_decided_right_row_by_row(site: Site, engine: str, whose: str, *, sealed: bool) -> None:
    if whose == "own":
        site.models = OWN_MODELS
    sensor = 'sensor = "sensor.key"' if sealed else ""
    site.configure(f'format = "json"\neach = "row"\n{sensor}', engine=engine)
    site.init()
    site.install(site.pack())
    source = site.models / "gearbox" / "golden.npz"
    with np.load(source) as archive:
        right = archive["raw_y"]
    with site.daemon() as daemon, site.listener(len(right)) as listener:
        listener.wait_connected()
        seal = ["--seal", "sensor.key"] if sealed else []
        site.run(
            "send", source, "--array", "raw_windows", "--names", NAMES, "-t", site.topic, *seal, *site.connection()
        )
        # Where the board is slow, the acknowledgement of a result waits behind thousands of rows: it is then sent late.
        results = sorted(listener.results(), key=lambda result: result["count"])
        assert daemon.stop() == 0
    assert [result["label"] for result in results] == [("healthy", "broken")[y] for y in right]
    assert len({result["count"] for result in results}) == len(right)
    assert all(result["model"] == "gearbox" for result in results)
    assert all(abs(sum(result["scores"]) - 1) < 1e-3 for result in results)
    assert "Traceback" not in daemon.log
    if sealed:
        assert all(result["input"]["first"] < result["input"]["last"] for result in results)


@pytest.mark.parametrize("format_", ["json", "cbor", "f32le", "csv", "text"])
def test_whole_windows_are_answered_in_every_format(site: Site, golden: dict[str, np.ndarray], format_: str) -> None:
    site.configure(f'format = "{format_}"\neach = "window"')
    site.init()
    site.install(site.pack())
    with site.daemon(), site.listener(100) as listener:
        listener.wait_connected()
        names = ["--names", NAMES] if format_ == "json" else []
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", format_, *names,
            "-t", site.topic, *site.connection(),
        )  # fmt: skip
        results = listener.results()
    assert [result["label"] for result in results] == [("healthy", "broken")[y] for y in golden["raw_y"]]


def test_signed_results_open_and_say_so(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"', extra="")
    config = site.path / "edged.toml"
    config.write_text(config.read_text().replace("[results]", "[results]\nsign = true"))
    site.init()
    site.install(site.pack())
    with site.daemon(), site.listener(5) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send",
            source,
            "--array",
            "raw_windows",
            "--each",
            "window",
            "--format",
            "f32le",
            "-t",
            site.topic,
            *site.connection(),
        )
        results = listener.results()
    assert len(results) == 5
    assert all(result["signed"] for result in results)


@NOTHING_READ
def test_the_broker_in_between_reads_nothing(site: Site, golden: dict[str, np.ndarray]) -> None:
    """Neither readings, nor what they came to, nor by which model: not even by the size of a result."""
    site.configure('format = "f32le"\neach = "window"\nsensor = "sensor.key"')
    site.init()
    site.install(site.pack())
    spy = Client(site.options())
    spy.subscribe("#", 1)
    spy.connect()
    spin(spy, until=lambda: spy.hears)
    with site.daemon(), site.listener(100) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        site.run(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic,
            "--seal", "sensor.key", *site.connection(),
        )  # fmt: skip
        assert {result["label"] for result in listener.results()} == {"healthy", "broken"}
    results = f"edged/{site.name}/c1"
    heard = lambda: [one for one in spy.deliveries if site.name in one.topic]  # noqa: E731
    spin(spy, until=lambda: sum(one.topic == results for one in heard()) == 100)
    spy.close()

    carried = b"\0".join(one.payload for one in heard())
    rows = (row.astype("<f4").tobytes() for row in golden["raw_windows"][:, ::100].reshape(-1, 4))
    assert not [needle for needle in (b"gearbox", b"healthy", b"broken", *rows) if needle in carried]
    assert len({len(one.payload) for one in heard() if one.topic == results}) == 1


@SWAPS
def test_a_new_version_takes_over_while_readings_flow(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack(version=1))
    source = site.models / "gearbox" / "golden.npz"
    send = (
        "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "--rate", "50",
        "-t", site.topic, *site.connection(),
    )  # fmt: skip
    second = site.pack(version=2)
    with site.daemon() as daemon, site.listener(200) as listener:
        listener.wait_connected()
        site.edged(*send)
        site.install(second)
        daemon.wait_ready()
        site.edged(*send)
        results = listener.results()
    versions = [result["version"] for result in results]
    assert versions == [1] * 100 + [2] * 100
    assert len({(result["kid"], result["count"]) for result in results}) == 200


def test_sighup_serves_a_changed_configuration(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack())
    source = site.models / "gearbox" / "golden.npz"
    with site.daemon() as daemon, site.listener(100) as listener:
        listener.wait_connected()
        site.configure('format = "json"\neach = "window"')
        daemon.reload()
        site.edged(
            "send",
            source,
            "--array",
            "raw_windows",
            "--each",
            "window",
            "--names",
            NAMES,
            "-t",
            site.topic,
            *site.connection(),
        )
        assert len(listener.results()) == 100


def test_sigterm_says_goodbye_and_leaves_with_zero(site: Site) -> None:
    site.configure('format = "json"\neach = "row"')
    site.init()
    site.install(site.pack())
    with site.daemon() as daemon:
        daemon.wait_for("STATUS=")
        assert daemon.stop() == 0
    assert "stops" in daemon.log
    assert site.retained(f"edged/{site.name}/status") == b"offline"


def test_a_board_without_a_clock_is_believed_once_it_echoes_the_hubs_nonce(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack())
    in_1970 = (
        "import edged.board.installation;"
        "edged.board.installation.Clock.read = classmethod(lambda cls, **_: cls(1000.0, False));"
        "from edged.cli import main; main()"
    )
    source = site.models / "gearbox" / "golden.npz"
    send = ("send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic)
    with site.daemon(program=("-c", in_1970)), site.listener(100) as listener:
        listener.wait_connected()
        site.edged(*send, *site.connection())
        assert len(listener.results()) == 100


def test_systemd_hears_of_progress_a_reload_and_the_end(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack())
    with site.daemon(environment={"WATCHDOG_USEC": "600000"}) as daemon:
        for _ in range(3):
            daemon.wait_for("WATCHDOG=1")
        daemon.reload()
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le",
            "-t", site.topic, *site.connection(),
        )  # fmt: skip
        assert "100 messages, 100 results" in daemon.wait_for("100 results", timeout=15)
        daemon.process.terminate()
        daemon.wait_for("STOPPING=1")
