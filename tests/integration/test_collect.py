"""Windows that a board keeps to train with: real broker, real daemon, real models; and nothing of them leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edged.board.examples import Examples, Intake, LoadedExamples, Of, Window
from edged.board.installation import Board
from edged.board.pipeline import like
from edged.config.load import load_board
from edged.formats.package.manifest import Manifest
from support.broker import Client, spin
from support.disk import fill
from support.kept import COLLECT, EACH, OPERATOR, answer, data, features, prepared, send
from support.process import DaemonProcess
from support.scrape import scrape
from support.site import Site
from support.waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
NOBODY = 65534


@pytest.fixture(scope="module")
def golden(models: Path) -> dict[str, np.ndarray]:
    with np.load(models / "gearbox" / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


def listed(site: Site) -> dict[str | None, int]:
    """Return how many windows are kept of each label."""
    return {one["label"]: one["windows"] for one in msgspec.json.decode(data(site, "list", "--json").stdout)}


def manifest_of(board: Board) -> Manifest:
    installed = board.packages.newest(board.config.model[0].name)
    assert installed is not None
    return board.verify_installed(installed).manifest


def loaded(site: Site, shape: tuple[int, ...] = (16,)) -> LoadedExamples:
    """Open what is kept, as the federated client does: in another process than the daemon's."""
    board = Board(load_board(site.path / "edged.toml"))
    with closing(board.examples(board.keystore())) as examples:
        return examples.load(board.config.model[0].name, like(manifest_of(board), shape))


# --- who says what a window is ---------------------------------------------------------------


def test_an_operator_labels_windows_by_their_time_and_erases_them(site: Site, golden: dict[str, np.ndarray]) -> None:
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        results = answer(site)
        assert daemon.stop() == 0
    assert [one["label"] for one in results] == [("healthy", "broken")[y] for y in golden["raw_y"]]
    assert listed(site) == {None: 100}
    assert loaded(site).left_out == {"no label": 100}

    with closing(Examples(site.state, None)) as examples:
        times = [at for (at,) in examples.db.execute("SELECT at FROM example ORDER BY at")]
    first = data(site, "label", "--model", "gearbox", "--from", iso(times[0]), "--to", iso(times[29]), "broken")
    assert first.stdout == "30 windows of gearbox: broken\n"
    data(site, "label", "--model", "gearbox", "--from", iso(times[30]), "healthy")
    data(site, "label", "--model", "gearbox", "--from", iso(times[-1]), "--clear")
    assert listed(site) == {"broken": 30, "healthy": 69, None: 1}
    windows = loaded(site)
    assert windows.x == pytest.approx(features(golden["raw_windows"])[:99], rel=1e-5)
    assert windows.y.argmax(axis=1).tolist() == [1] * 30 + [0] * 69

    refused = data(site, "label", "--model", "gearbox", "--from", "1h", "wobbly", check=False)
    assert (refused.returncode, "it has healthy, broken" in refused.stderr) == (64, True)
    assert data(site, "erase", "--model", "gearbox", check=False).returncode != 0, "it asks first"
    assert data(site, "erase", "--model", "gearbox", "--label", "broken", "--yes").stdout == "erased 30 windows\n"
    assert listed(site) == {"healthy": 69, None: 1}
    assert msgspec.json.decode(site.edged("status", "-c", "edged.toml", "--json").stdout)["examples"][0] | {
        "bytes": 0
    } == {"model": "gearbox", "windows": 70, "labelled": 69, "bytes": 0}
    assert data(site, "erase", "--all", "--yes").stdout == "erased 70 windows\n"
    assert data(site, "list").stdout == "nothing is kept\n"


def iso(microseconds: int) -> str:
    at = np.datetime64(microseconds, "us")
    return f"{np.datetime_as_string(at, unit='us')}Z"


def test_a_rule_labels_windows_by_their_own_rows(site: Site, golden: dict[str, np.ndarray]) -> None:
    """Here: on the largest value of the third accelerometer, calibrated."""
    largest = 2 * golden["raw_windows"][:, :, 2].max(axis=1)
    over = float(np.median(largest)) + 1e-3
    rule = f'{{ column = "a3", of = "max", over = {over}, then = "broken", otherwise = "healthy" }}'
    prepared(site, f'{EACH}calibrate = {{ a3 = {{ scale = 2.0 }} }}\n{COLLECT}label = "rule"\nrule = {rule}\n')
    with site.daemon() as daemon:
        answer(site)
        daemon.stop()
    windows = loaded(site)
    assert windows.y.argmax(axis=1).tolist() == (largest > over).astype(int).tolist()
    assert listed(site) == dict(Counter(np.where(largest > over, "broken", "healthy").tolist()))


def test_a_second_sensors_messages_label_windows(site: Site) -> None:
    """By the newest message; one that is unknown, or of an unknown age, labels nothing."""
    topic = f"{site.topic}/state"
    table = f"""topic = "{site.topic}"\n{EACH}{COLLECT}label = "sensor"
topic = "{topic}"
field = "/machine/state"
within = "1 min"
names = {{ RUN = "healthy", FAULT = "broken" }}
"""
    prepared(site, table, extra=f'[metrics]\nlisten = "{site.path}/metrics.sock"\n')
    said = Client(site.options())
    said.connect()
    spin(said, until=lambda: said.is_up)

    def say(state: str, *, retain: bool = False) -> None:
        said.publish(topic, f'{{"machine": {{"state": "{state}"}}}}'.encode(), qos=1, retain=retain)
        spin(said, until=lambda: not said.pending)

    say("FAULT", retain=True)
    try:
        with site.daemon() as daemon, site.listener(400) as listener:
            listener.wait_connected()
            send(site)  # what is retained may be of last year
            for number, state in enumerate(("FAULT", "RUN", "SMOKE"), 1):
                listener.wait_printed(100 * number)
                say(state)
                send(site)
            listener.wait_printed(400)
            wait_until(lambda: outcomes(site).get("unknown-label") == 100)
            left_out = outcomes(site)
            daemon.stop()
    finally:
        said.publish(topic, b"", qos=1, retain=True)
        spin(said, until=lambda: not said.pending)
        said.close()
    assert (left_out["no-label"], left_out["unknown-label"]) == (100, 100)
    assert listed(site) == {"broken": 100, "healthy": 100}
    assert loaded(site).y.argmax(axis=1).tolist() == [1] * 100 + [0] * 100


def outcomes(site: Site) -> dict[str, float]:
    """Return what became of windows, as the daemon's metrics say."""
    found = scrape(site.path / "metrics.sock")
    return {key[-1]: value for key, value in found.items() if key[0] == "edged_examples_total"}


def test_an_anomaly_detector_keeps_the_windows_themselves(site: Site, golden: dict[str, np.ndarray]) -> None:
    site.configure(f'{EACH}{COLLECT}label = "input"\nevery = 2\n', name="gearbox-anomaly")
    site.init()
    manifest = (EXAMPLES / "anomaly.toml").read_text().partition("[publish]")[0] + '[publish]\nwhen = "window"\n'
    site.install(site.pack_example(manifest, "gearbox/autoencoder.tflite", {"x": golden["raw_windows"]}))
    with site.daemon() as daemon:
        answer(site)
        daemon.stop()
    windows = loaded(site)
    low, high = -0.61986393, 3158.1043774
    expected = (features(golden["raw_windows"]) - low) / (high - low)
    assert windows.x == pytest.approx(expected[::2], rel=1e-4, abs=1e-6), "one of two"
    assert windows.y is windows.x


def test_rows_make_windows_that_are_kept_no_faster_than_wanted(site: Site) -> None:
    prepared(site, 'format = "json"\neach = "row"\n[model.collect]\nlabel = "operator"\nat_most_every = "1 h"\n')
    source = site.models / "gearbox" / "golden.npz"
    with site.daemon() as daemon, site.listener(100) as listener:
        listener.wait_connected()
        names = ("--names", "a1,a2,a3,a4")
        site.edged("send", source, "--array", "raw_windows", *names, "-t", site.topic, *site.connection())
        listener.results()
        daemon.stop()
    assert listed(site) == {None: 1}


@pytest.mark.parametrize(
    ("collect", "said"),
    [
        ('label = "input"', "'input' goes with output.kind 'anomaly', the model's is 'classifier'"),
        ('label = "rule"\nrule = { column = "a9", over = 1.0, then = "broken" }', "the model has no channel 'a9'"),
        ('label = "rule"\nrule = { column = "a1", over = 1.0, then = "hot" }', "'hot' is no label of the model"),
        ('label = "sensor"\ntopic = "state"\nnames = { ON = "hot" }', "'hot' is no label of the model"),
    ],
)
def test_what_the_model_cannot_be_taught_is_refused_by_name(site: Site, collect: str, said: str) -> None:
    prepared(site, f'topic = "{site.topic}"\n{EACH}{COLLECT}{collect}\n')
    found = site.run("check", "edged.toml", "--offline", check=False)
    assert found.returncode == 78
    assert said in found.stdout


# --- what leaves the board, and what stands on its disk --------------------------------------


def test_nothing_about_a_window_is_published_or_stands_on_the_disk(site: Site, golden: dict[str, np.ndarray]) -> None:
    """All that the broker carries is what was sent and what results, reports and announcements are."""
    prepared(site, OPERATOR.replace("label", 'size = "1 MB"\nlabel'))
    spy = Client(site.options())
    spy.subscribe("#", 1)
    spy.connect()
    spin(spy, until=lambda: spy.hears)
    with site.daemon() as daemon:
        answer(site, times=2)
        daemon.stop()
    spin(spy, until=lambda: f"edged/{site.name}/status" in [one.topic for one in spy.deliveries[-5:]])
    data(site, "label", "--model", "gearbox", "--from", "1h", "broken")
    heard = [(one.topic, one.payload) for one in spy.deliveries if site.name in one.topic]
    spy.close()

    windows = loaded(site)
    assert len(windows.x) == 200
    needles = [row.tobytes()[at : at + 8] for row in windows.x for at in (0, 16, 40)]
    with closing(Examples(site.state, None)) as examples:
        sealed = [one for (one,) in examples.db.execute("SELECT sealed FROM example")]
    own = [(topic, payload) for topic, payload in heard if topic != site.topic]
    assert {topic.rsplit("/", 1)[1] for topic, _ in own} <= {"announce", "status", "health", "inventory", "c1"}
    assert sum(topic.endswith("/c1") for topic, _ in own) == 200
    carried = b"\0".join(payload for _, payload in own)
    assert not [one for one in (*needles, *(one[-24:] for one in sealed)) if one in carried]
    raw = [window.tobytes()[:12] for window in golden["raw_windows"]]
    for path in site.state.glob("*.db*"):
        content = path.read_bytes()
        assert not [needle for needle in (*needles, *raw) if needle in content], path


def test_erased_windows_are_on_the_disk_no_more_and_another_board_opens_none(site: Site) -> None:
    """The daemon runs, and goes on collecting."""
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        answer(site)
        wait_until(lambda: listed(site).get(None, 0) >= 64)
        with closing(Examples(site.state, None)) as examples:
            sealed = [one for (one,) in examples.db.execute("SELECT sealed FROM example")]
        assert all(one[-24:] in held(site) for one in sealed)
        data(site, "erase", "--model", "gearbox", "--yes")
        assert not [one for one in sealed if one[-24:] in held(site)]
        answer(site)
        daemon.stop()
    assert listed(site) == {None: 100}, "what waited in RAM while others were erased is gone, too"
    shutil.copytree(site.state, site.path / "copy")
    shutil.rmtree(site.path / "copy" / "keystore" / "keys")
    (site.path / "copy" / "keystore" / "device.enrol").unlink()
    config = site.path / "edged.toml"
    config.write_text(config.read_text().replace(str(site.state), str(site.path / "copy")))
    site.edged("init", "-c", "edged.toml")
    assert loaded(site).left_out == {"unreadable": 100}


def held(site: Site) -> bytes:
    return b"".join(path.read_bytes() for path in site.state.glob("examples.db*"))


# --- trouble ---------------------------------------------------------------------------------


def test_windows_survive_a_kill_and_are_sealed_under_another_key_after_it(site: Site) -> None:
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        answer(site)
        wait_until(lambda: listed(site).get(None, 0) >= 64)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    before = listed(site)[None]
    with site.daemon() as daemon:
        answer(site)
        assert daemon.stop() == 0
    assert listed(site) == {None: before + 100}
    with closing(Examples(site.state, None)) as examples:
        assert len(examples.stored_keys("gearbox")) == 2
    data(site, "label", "--model", "gearbox", "--from", "1h", "healthy")
    assert len(loaded(site).x) == before + 100


def test_a_store_that_cannot_be_opened_costs_no_answer(site: Site, golden: dict[str, np.ndarray]) -> None:
    """And is used as soon as it can be."""
    prepared(site, OPERATOR)
    (site.state / "examples.db").mkdir()
    with site.daemon() as daemon:
        results = answer(site)
        assert [one["label"] for one in results] == [("healthy", "broken")[y] for y in golden["raw_y"]]
        daemon.wait_for("DEGRADED: examples")
        (site.state / "examples.db").rmdir()
        wait_until(lambda: listed(site).get(None, 0) >= 100)
        assert daemon.stop() == 0
    assert listed(site) == {None: 100}
    assert "examples works again" in daemon.log
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("names", [("",), ("", "-wal", "-shm"), ("-wal",)], ids=["file", "all", "log"])
def test_a_store_that_is_removed_is_begun_anew(site: Site, names: tuple[str, ...]) -> None:
    """What is kept after that is not written where nobody finds it."""
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        answer(site)
        wait_until(lambda: listed(site).get(None, 0) >= 64)
        for name in names:
            (site.state / f"examples.db{name}").unlink()
        assert len(answer(site)) == 100
        wait_for_line(daemon, "examples.db was removed or replaced")
        assert daemon.stop() == 0
    assert listed(site)[None] >= 100
    assert set(loaded(site).left_out) == {"no label"}, "all can be read, by the keys beside them"


def test_a_damaged_store_is_begun_anew(site: Site) -> None:
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        answer(site)
        daemon.stop()
    with (site.state / "examples.db").open("r+b") as file:
        file.write(os.urandom(8192))
    with site.daemon() as daemon:
        assert len(answer(site)) == 100
        wait_until((site.state / "examples.db.damaged").exists)
        daemon.stop()
    assert listed(site) == {None: 100}
    data(site, "erase", "--all", "--yes")
    assert not (site.state / "examples.db.damaged").exists()


@pytest.mark.root
def test_answers_go_on_while_the_disk_is_full(site: Site, small_disk: Path) -> None:
    site.state = small_disk / "state"
    prepared(site, OPERATOR)
    with site.daemon() as daemon:
        answer(site)
        wait_until(lambda: listed(site).get(None, 0) >= 64)
        fill(small_disk)
        assert len(answer(site, times=2)) == 200
        wait_for_line(daemon, "degraded: examples")
        (small_disk / "filler").unlink()
        wait_for_line(daemon, "examples works again")
        assert len(answer(site)) == 100
        assert daemon.stop() == 0
    assert listed(site) == {None: 400}
    assert "Traceback" not in daemon.log


@pytest.mark.root
def test_answers_go_on_while_the_disk_is_read_only(site: Site, small_disk: Path) -> None:
    site.state = small_disk / "state"
    prepared(site, OPERATOR)
    with site.daemon():
        pass
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with site.daemon() as daemon:
        assert len(answer(site)) == 100
        wait_for_line(daemon, "degraded: examples")
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        wait_for_line(daemon, "examples works again")
        assert daemon.stop() == 0
    assert listed(site) == {None: 100}


def wait_for_line(daemon: DaemonProcess, line: str) -> None:
    wait_until(lambda: line in daemon.log)


@pytest.mark.root
def test_root_changes_the_store_as_its_owner(models: Path) -> None:
    """A file of root's own would stop the daemon."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = Path(tempfile.mkdtemp())  # pytest's own are root's alone
    folder.chmod(0o755)
    try:
        site = prepared(Site(folder, models, "mqtt://127.0.0.1:1"), OPERATOR)
        board = Board(load_board(folder / "edged.toml"))
        with closing(board.examples(board.keystore())) as examples:
            of = Of("gearbox", like(manifest_of(board), (16,)).chain)
            Intake(examples).add(of, [Window(None, time.time_ns() // 1000, bytes(64))] * 100, 10**6)
        for path in (site.state, *site.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        data(site, "label", "--model", "gearbox", "--from", "1h", "broken")
        data(site, "erase", "--model", "gearbox", "--before", "1h", "--yes")
        assert listed(site) == {"broken": 100}
        assert {path.stat().st_uid for path in site.state.rglob("*")} == {NOBODY}
    finally:
        shutil.rmtree(folder)
