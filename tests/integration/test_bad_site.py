"""What is wrong with a site is said in two lines: the file and key, and the way out; exit codes are those of sysexits.h."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from edged.base.files import write_atomically
from support.bench import GOOD, Bench, live_bench, make_bench
from support.broker import PlainBroker, PrivateBroker
from support.hub import Hub
from support.packages import SHAPE
from support.promises import BAD_SITE
from support.site import GEARBOX

pytestmark = BAD_SITE

USAGE, DATAERR, NOINPUT, UNAVAILABLE, SOFTWARE, CANTCREAT, TEMPFAIL, NOPERM, CONFIG = 64, 65, 66, 69, 70, 73, 75, 77, 78
ERROR, HINT = "edged: error: ", "edged: hint: "


class Said(NamedTuple):
    """What a command that failed said."""

    code: int
    error: str
    hint: str


def failure(done: subprocess.CompletedProcess[str]) -> Said:
    """Return what was said, which must have the form that people and scripts rely on."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edged: ")]
    assert "Traceback" not in done.stderr
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == ["error", "hint"], done.stderr
    error, hint = lines[0].removeprefix(ERROR), lines[1].removeprefix(HINT)
    assert not error.endswith(".")
    assert not re.match("[A-Z][a-z]", error)
    return Said(done.returncode, error, hint)


@pytest.fixture(scope="module")
def model_bench(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("site") / "bench", models)


@pytest.fixture
def bench(model_bench: Bench, tmp_path: Path) -> Bench:
    """A board to break."""
    return model_bench.copy(tmp_path / "bench")


@pytest.fixture(scope="module")
def model_live(models: Path, tmp_path_factory: pytest.TempPathFactory, tls_broker: PrivateBroker) -> Bench:
    return live_bench(tmp_path_factory.mktemp("site") / "bench", models, tls_broker, "press-bad-site")


@pytest.fixture
def live(model_live: Bench, tmp_path: Path) -> Bench:
    """A board to break, whose broker is there."""
    return model_live.copy(tmp_path / "bench")


def change(bench: Bench, old: str, new: str) -> None:
    """Edit the board's configuration."""
    config = bench.path / "edged.toml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))


def run(bench: Bench) -> Said:
    """Start the daemon, which must leave at once."""
    return failure(bench.run("run", "-c", "edged.toml", check=False))


def check(bench: Bench, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code and what `edged check` finds wrong."""
    done = bench.run("check", "edged.toml", "--json", *options, check=False)
    found = json.loads(done.stdout)
    return done.returncode, {one["check"]: one for one in found if not one["ok"]}


def same_everywhere(bench: Bench, code: int, what: str, said: str, hint: str) -> None:
    """Check that `edged run` refuses to start, and `edged check` says the same without starting."""
    now = run(bench)
    assert (now.code, said in now.error, hint in now.hint) == (code, True, True), now
    assert "s3cret" not in str(now)
    found_code, found = check(bench, "--offline")
    assert found_code == code
    assert said in found[what]["detail"]
    assert hint in found[what]["hint"]


# --- the configuration -----------------------------------------------------------------------

MISTAKES = {
    "misspelt key": ("topic =", "topc =", "model[0].topc: unknown key", "did you mean `topic`?"),
    "misspelt table": ("[runtime]", "[runtme]", "runtme: unknown key", "did you mean `runtime`?"),
    "misspelt key in a table": ("state =", "stat =", "device.stat: unknown key", "did you mean `state`?"),
    "misspelt key of a publisher": (
        "[publishers.acme]\nkey", "[publishers.acme]\nkee", "publishers.acme.kee: unknown key", "did you mean `key`?"
    ),
    "unknown key": ("[runtime]", "[runtime]\nzebra = 1", "runtime.zebra: unknown key", "known here: engine, xnnpack, threads"),
    "unknown table": ("[runtime]", "[downlink]\n[runtime]", "downlink: unknown key", "known here: "),
    "number for text": ("url =", "url = 7 #", "broker.url: expected `str`, got `int`", "quotes"),
    "text for a number": ("[runtime]", '[runtime]\nthreads = "1"', "runtime.threads: expected `int`", "without quotes"),
    "unknown format": ('"f32le"', '"f32"', "model[0].format: ", "f32le"),
    "unknown engine": ('engine = "auto"', 'engine = "onnx"', "runtime.engine: ", "litert"),
    "missing key": ("url =", "# url =", "broker.url: is missing", "no default"),
    "no hub": ('hubs = ["home.pub"]', "hubs = []", "results.hubs: nobody could read the results", "at least one hub"),
    "two models on one channel": (
        "[[model]]", '[[model]]\nname="b"\nchannel="c1"\ntopic="b"\nformat="csv"\neach="row"\n[[model]]',
        "two [[model]] tables use channel 'c1'", "one of its own"
    ),
    "reserved channel": ('"c1"', '"status"', "'status' is edged's own", "another name"),
    "topic filter": ("factory/", "factory/#/", "is no topic filter", "+ stands for one whole level"),
    "capital in a name": ('"press-07"', '"Press 07"', "device.name: 'Press 07' is not a name", "a-z"),
    "size without a unit": ("[runtime]", '[limits]\nmessage = "1000"\n[runtime]', "'1000' is not a size", "MB"),
    "not TOML": ("[broker]", "[broker", "not TOML", "brackets"),
    "broker's url": ("mqtt://", "http://", "broker url", "mqtt://host[:port]"),
    "password in the url": ("mqtt://", "mqtt://me:s3cret@", "the broker's url holds a user name", "broker.password"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_configuration_is_named_with_its_key(
    bench: Bench, old: str, new: str, said: str, hint: str
) -> None:
    change(bench, old, new)
    same_everywhere(bench, CONFIG, "configuration", said, hint)


def test_a_mistake_in_a_file_that_is_merged_in_is_named(bench: Bench) -> None:
    folder = bench.path / "edged.toml.d"
    folder.mkdir()
    (folder / "10-site.toml").write_text('[borker]\nurl = "mqtt://localhost"\n')
    said = run(bench)
    assert said.code == CONFIG
    assert "borker: unknown key" in said.error
    assert "did you mean `broker`?" in said.hint


def test_no_configuration_at_all(bench: Bench) -> None:
    for command in ("run", "models", "init"):
        said = failure(bench.run(command, "-c", "nowhere.toml", check=False))
        assert said.code == NOINPUT
        assert "nowhere.toml" in said.error
        assert "--config" in said.hint


def test_a_channel_that_the_model_does_not_have(bench: Bench) -> None:
    config = bench.path / "edged.toml"
    config.write_text(config.read_text() + '[model.fields]\nb1 = "/x"\n')
    same_everywhere(bench, CONFIG, "model gearbox", "fields.b1", "a1, a2, a3, a4")


def test_a_runtime_that_is_not_installed(bench: Bench, tmp_path: Path) -> None:
    for name in ("tflite_runtime", "ai_edge_litert"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = bench.run("run", "-c", "edged.toml", check=False, env={**os.environ, "PYTHONPATH": path})
    said = failure(done)
    assert said.code == CONFIG
    assert "runtime.engine" in said.error
    assert "pip install" in said.hint


# --- keys and permissions --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "mode", "wanted"),
    [
        ("state/keystore/keys/sign.key", 0o640, "0600"),
        ("state/keystore/keys/ecdh.key", 0o604, "0600"),
        ("state/keystore/keys", 0o755, "0700"),
        ("state/keystore/packages", 0o750, "0700"),
        ("state", 0o711, "0700"),
    ],
)
def test_what_others_may_open_is_refused_with_the_chmod_that_mends_it(
    bench: Bench, path: str, mode: int, wanted: str
) -> None:
    opened = bench.path / path
    opened.chmod(mode)
    said = run(bench)
    assert said == (NOPERM, f"{opened} is open to others (mode {mode:04o})", f"chmod {wanted} {opened}")
    assert check(bench, "--offline")[0] == NOPERM
    subprocess.run(said.hint.split(), check=True)
    assert check(bench, "--offline") == (0, {})


@pytest.mark.parametrize("name", ["acme.key", "fleet.key", "home.key", "sensor.key"])
def test_peoples_key_files_are_refused_too(bench: Bench, name: str) -> None:
    commands = {
        "acme.key": ("pack", "m.tflite", "--manifest", "m.toml", "--sign", name, "--to", "board.enrol"),
        "fleet.key": ("grant", "first.edged", "--to", "board.enrol", "--operator-key", name),
        "home.key": ("listen", "--hub-key", name, "--board", "board.enrol"),
        "sensor.key": ("send", "readings.csv", "-t", "a/b", "--seal", name),
    }
    (bench.path / "readings.csv").write_text("1,2,3,4\n")
    manifest_for_pack(bench)
    (bench.path / name).chmod(0o644)
    said = failure(bench.run(*commands[name], check=False))
    assert said == (NOPERM, f"{name} is open to others (mode 0644)", f"chmod 0600 {name}")


def manifest_for_pack(bench: Bench) -> None:
    """Put a manifest and weights there that would pack."""
    (bench.path / "m.toml").write_text(GEARBOX.format(version=2).replace("size = 300", f"size = {SHAPE[0]}"))
    shutil.copy(bench.workshop.path / "selftest.npz", bench.path / "selftest.npz")
    (bench.path / "m.tflite").write_bytes(bench.weights)


def test_a_sensor_key_that_others_may_read(bench: Bench) -> None:
    change(bench, 'each = "window"', 'each = "window"\nsensor = "sensor.key"')
    key = bench.path / "sensor.key"
    key.chmod(0o660)
    same_everywhere(bench, NOPERM, "sensors", f"{key} is open to others (mode 0660)", f"chmod 0600 {key}")


def test_a_tls_key_that_others_may_read(live: Bench) -> None:
    key = Path(live.tls["key"])
    copy = live.path / "tls.key"
    shutil.copy(key, copy)
    copy.chmod(0o644)
    change(live, str(key), "tls.key")
    assert run(live) == (NOPERM, f"{copy} is open to others (mode 0644)", f"chmod 0600 {copy}")
    code, found = check(live)
    assert (code, found["broker"]["hint"]) == (NOPERM, f"chmod 0600 {copy}")


def test_a_board_without_keys(bench: Bench) -> None:
    shutil.rmtree(bench.state / "keystore" / "keys")
    same_everywhere(bench, NOINPUT, "keys", "there is no key store at", "`edged init`")


def test_a_board_without_its_record(bench: Bench) -> None:
    (bench.state / "keystore" / "device.enrol").unlink()
    same_everywhere(bench, NOINPUT, "keys", "device.enrol", "`edged init`")


@pytest.mark.parametrize("name", ["sign", "ecdh"])
def test_a_key_file_that_is_cut_short(bench: Bench, name: str) -> None:
    path = bench.state / "keystore" / "keys" / f"{name}.key"
    path.write_bytes(path.read_bytes()[:-1])
    same_everywhere(bench, NOINPUT, "keys", f"{path} cannot be opened", "restore")


def test_keys_of_another_board(bench: Bench, models: Path, tmp_path: Path) -> None:
    """A record and keys that do not belong together would announce what no hub believes."""
    other = make_bench(tmp_path / "other", models)
    for name in ("sign.key", "ecdh.key"):
        shutil.copy(other.state / "keystore" / "keys" / name, bench.state / "keystore" / "keys" / name)
    code, found = check(bench, "--offline")
    assert code == NOPERM
    assert "does not belong to the keys" in found["keys"]["detail"]
    assert run(bench).code == NOPERM


def test_init_does_not_write_over_keys(bench: Bench) -> None:
    before = bench.snapshot()
    said = failure(bench.run("init", "-c", "edged.toml", check=False))
    assert said.code == CANTCREAT
    assert "exists already" in said.error
    assert bench.snapshot() == before


# --- the wrapping credential -----------------------------------------------------------------


@pytest.fixture
def wrapped(model_bench: Bench, tmp_path: Path) -> tuple[Bench, dict[str, str]]:
    """A board whose keys are encrypted under a systemd credential, and the environment that has it."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "edged").write_text("a wrapping secret\n")
    bench = model_bench.copy(tmp_path / "bench")
    shutil.rmtree(bench.state)
    change(bench, "[results]", '[keystore]\nwrap = "credential:edged"\n[results]')
    environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(credentials)}
    bench.run("init", "-c", "edged.toml", "-o", "board.enrol", env=environment)
    first = bench.path / "first.edged"
    first.write_bytes(bench.pack_fast(version=1))
    bench.run("install", first, "-c", "edged.toml", env=environment)
    return bench, environment


def test_wrapped_keys_open_under_their_credential_only(wrapped: tuple[Bench, dict[str, str]]) -> None:
    bench, environment = wrapped
    assert bench.run("check", "edged.toml", "--offline", env=environment).returncode == 0
    for key in (bench.state / "keystore" / "keys").iterdir():
        assert b"a wrapping secret" not in key.read_bytes()
    Path(environment["CREDENTIALS_DIRECTORY"], "edged").write_text("another wrapping secret\n")
    said = failure(bench.run("run", "-c", "edged.toml", check=False, env=environment))
    assert said.code == NOINPUT
    assert "sign.key cannot be opened" in said.error
    assert "keystore.wrap" in said.hint


def test_wrapped_keys_without_a_credential(wrapped: tuple[Bench, dict[str, str]]) -> None:
    bench, environment = wrapped
    del environment["CREDENTIALS_DIRECTORY"]
    said = failure(bench.run("run", "-c", "edged.toml", check=False, env=environment))
    assert said.code == NOINPUT
    assert "there is no credential 'edged'" in said.error
    assert "LoadCredentialEncrypted=edged" in said.hint


def test_plain_keys_where_a_credential_is_configured(bench: Bench, tmp_path: Path) -> None:
    """Somebody put keys there that are not under the credential: not taken for the board's own."""
    secret = tmp_path / "secret"
    secret.write_text("another secret of some length")
    secret.chmod(0o600)
    change(bench, "[results]", f'[keystore]\nwrap = "{secret}"\n[results]')
    same_everywhere(bench, NOINPUT, "keys", "sign.key cannot be opened", "keystore.wrap")


# --- the broker ------------------------------------------------------------------------------


def test_without_a_broker_the_daemon_is_ready_and_serves_when_it_comes(bench: Bench, tmp_path: Path) -> None:
    broker = PlainBroker(tmp_path)
    change(bench, bench.url, broker.url)
    bench.url = broker.url
    with bench.daemon() as daemon:
        status = daemon.wait_for("not connected")
        assert "nothing listens there" in status
        code, found = check(bench)
        assert (code, list(found)) == (UNAVAILABLE, ["broker"])
        assert found["broker"]["detail"].endswith("nothing listens there")
        assert "start the broker" in found["broker"]["hint"]
        with broker:
            ask(bench)
            assert check(bench) == (0, {})
    assert "Traceback" not in daemon.log


def ask(bench: Bench) -> None:
    """Have a reading answered."""
    with Hub(bench) as hub:
        hub.ask(GOOD.tobytes())


def test_without_a_broker_the_daemon_leaves_when_it_is_told(bench: Bench) -> None:
    with bench.daemon() as daemon:
        assert daemon.stop() == 0


def test_a_broker_under_another_name_than_its_certificates(live: Bench) -> None:
    change(live, "mqtts://localhost", "mqtts://127.1")
    wrong_broker(live, "its certificate is not for '127.1'", "stands in the broker's certificate")


def test_a_broker_of_an_unknown_ca(live: Bench, tmp_path: Path) -> None:
    other = PrivateBroker(tmp_path / "other").client("x")
    change(live, str(live.tls["ca"]), str(other.ca))
    wrong_broker(live, "its certificate is from an unknown CA", "broker.ca")


def test_a_client_certificate_that_the_broker_does_not_know(live: Bench, tmp_path: Path) -> None:
    other = PrivateBroker(tmp_path / "other").client("x")
    change(live, str(live.tls["cert"]), str(other.cert))
    change(live, str(live.tls["key"]), str(other.key))
    wrong_broker(live, "refuses this client's certificate", "broker.cert")


def test_a_broker_without_tls_where_tls_is_configured(live: Bench, tmp_path: Path) -> None:
    with PlainBroker(tmp_path) as broker:
        change(live, live.url, f"mqtts://localhost:{broker.port}")
        wrong_broker(live, "TLS fails", "TLS port")


def test_a_broker_with_tls_where_none_is_configured(live: Bench) -> None:
    change(live, "mqtts://", "mqtt://")
    wrong_broker(live, "without an answer", "mqtts://")


def wrong_broker(bench: Bench, said: str, hint: str) -> None:
    """What does not mend itself by waiting: check and the tools say it and leave; the daemon says it and goes on trying."""
    code, found = check(bench)
    assert (code, list(found)) == (UNAVAILABLE, ["broker"])
    assert said in found["broker"]["detail"]
    assert hint in found["broker"]["hint"]
    with bench.daemon() as daemon:
        assert said in daemon.wait_for("not connected")
        assert daemon.stop() == 0
    assert said in daemon.log


@pytest.mark.parametrize("command", ["listen", "send"])
def test_tools_leave_where_no_broker_is(bench: Bench, command: str) -> None:
    (bench.path / "readings.csv").write_text("1,2,3,4\n")
    options = {"listen": ("--hub-key", "home.key", "--board", "board.enrol"), "send": ("readings.csv", "-t", "a/b")}
    said = failure(bench.run(command, *options[command], "-L", "mqtt://127.0.0.1:9", check=False))
    assert said.code == UNAVAILABLE
    assert said.error == "broker 127.0.0.1:9: nothing listens there"


# --- the state -------------------------------------------------------------------------------


def test_two_daemons_on_one_state(bench: Bench) -> None:
    with bench.daemon():
        said = run(bench)
        assert said == (TEMPFAIL, f"another edged already runs on {bench.state}", "one daemon to one state directory")
        bench.install(bench.path / "first.edged")  # the commands share it


def test_a_lock_does_not_outlive_its_daemon(bench: Bench) -> None:
    with bench.daemon() as daemon:
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    with bench.daemon() as daemon:
        assert daemon.stop() == 0


def test_a_state_that_is_no_database_is_put_aside_and_begun_anew(bench: Bench) -> None:
    """A board in the field has nobody who would do it."""
    junk = b"not a database" * 1000
    for file in bench.state.glob("state.db*"):
        file.unlink()
    write_atomically(bench.state / "state.db", [junk], mode=0o600, replace=True)
    with bench.daemon() as daemon:
        assert daemon.stop() == 0
    assert "a damaged state.db was put aside and a new one begun" in daemon.log
    assert (bench.state / "state.db.damaged").read_bytes() == junk


def test_a_model_that_is_not_installed(bench: Bench) -> None:
    shutil.rmtree(bench.state / "keystore" / "packages")
    same_everywhere(
        bench,
        NOINPUT,
        "model gearbox",
        "no package of model 'gearbox' is installed",
        "edged install gearbox-VERSION.edged",
    )


def test_an_installed_package_that_was_damaged(bench: Bench) -> None:
    path = bench.state / "keystore" / "packages" / "gearbox-1.edged"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    same_everywhere(
        bench, NOPERM, "model gearbox", f"{path}: part 'self_test': the AEAD tag", "fetch the package again"
    )


# --- the command line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("instal",), "instal"),
        (("install",), "PACKAGE"),
        (("run", "--confg", "x"), "--confg"),
        (("keygen", "publisher"), "--id"),
        (("keygen", "publisher", "--id", "Acme!"), "'Acme!' is not a name"),
        (("keygen", "publisher", "--id", "new"), "needs a passphrase"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_meant(bench: Bench, arguments: tuple[str, ...], said: str) -> None:
    found = failure(bench.run(*arguments, check=False))
    assert found.code in (USAGE, CONFIG)
    assert said in found.error
