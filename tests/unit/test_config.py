"""Configuration: everything that fits is taken, everything else is refused with file, key and a way out."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, EdgedError, FormatError, MissingFileError, PermissionsError
from edged.base.names import check_name
from edged.config.board import BoardConfig
from edged.config.load import load_board
from edged.config.model import RESERVED_CHANNELS
from edged.config.secret import read_secret, secret_path
from edged.formats.spec import FEATURES
from edged.model.author import Author

PROJECT = Path(__file__).resolve().parents[2]

LEAST = """
[broker]
url = "mqtt://localhost"
[results]
hubs = ["home.pub"]
"""
MODEL = """
[[model]]
name = "gearbox"
channel = "c1"
topic = "factory/press-07/vibration"
format = "json"
each = "row"
"""
MANIFEST = """
name = "gearbox"
version = 1
[input]
channels = ["a1", "a2"]
[window]
size = 10
[output]
kind = "classifier"
labels = ["healthy", "broken"]
"""


@pytest.fixture
def examples() -> Path:
    return PROJECT.parent / "shared" / "examples"


def write(tmp_path: Path, text: str, **extras: str) -> Path:
    path = tmp_path / "edged.toml"
    path.write_text(text)
    for name, extra in extras.items():
        path.with_name("edged.toml.d").mkdir(exist_ok=True)
        (path.with_name("edged.toml.d") / f"{name}.toml").write_text(extra)
    return path


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_board(path)
    return caught.value


# --- the examples ----------------------------------------------------------------------------


@pytest.mark.real_models
def test_the_example_of_a_board_loads(examples: Path) -> None:
    board = load_board(examples / "edged.toml")

    assert (board.device.name, board.broker.key, board.results.rotate) == ("press-07", "credential:tls-key", "24h")
    assert board.publishers["acme"].models == ("gearbox",)
    (model,) = board.model
    assert (model.channel, model.format, model.each, model.qos, model.sensor) == ("c1", "json", "row", 1, None)
    assert model.fields == {"a1": "/vib/x1", "a2": "/vib/x2", "a3": "/vib/y1", "a4": "/vib/y2"}
    assert (model.calibrate["a3"].scale, model.calibrate["a3"].offset) == (0.981, 0.012)
    assert model.tune == {"decide.enter": 0.85}


@pytest.mark.real_models
def test_the_example_loads_with_all_that_it_leaves_out(examples: Path, tmp_path: Path) -> None:
    text = (examples / "edged.toml").read_text()
    text = text.replace("# [uplink] ", "[uplink] ").replace('# url = "mqtts://hub', 'url = "mqtts://hub')

    board = load_board(write(tmp_path, text))

    assert board.uplink is not None
    assert board.uplink.url == "mqtts://hub.example:8883"


@pytest.mark.real_models
def test_the_example_of_a_manifest_loads(examples: Path) -> None:
    author = Author.read(examples / "gearbox.toml")

    assert (author.name, author.version, str(author.expires)) == ("gearbox", 3, "2027-12-31")
    assert author.features is not None
    assert [feature.name for feature in author.features.all] == ["sum_abs", "std", "max", "kurtosis"]
    assert author.tunable == {"decide.enter": (0.70, 0.95)}


# --- defaults and paths ----------------------------------------------------------------------


def test_defaults(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, LEAST + MODEL))

    assert (board.device.state, board.device.clock, board.keystore.uri) == ("/var/lib/edged", "auto", "file:")
    assert (board.results.prefix, board.results.rotate, board.results.sign) == ("edged", "24h", False)
    assert (board.limits.message, board.runtime.engine, board.runtime.threads) == ("1 MB", "auto", None)
    assert (board.model[0].qos, board.model[0].fields, board.model[0].sensor) == (1, {}, None)


def test_the_device_is_called_like_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Press-07.factory.example")

    assert load_board(write(tmp_path, LEAST)).device.name == "press-07"


def test_relative_paths_start_at_the_main_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of edged.toml.d, and also when the file itself is named by a relative path."""
    text = """
[device]
state = "state"
[broker]
url = "mqtts://localhost"
ca = "tls/ca.crt"
cert = "/etc/board.crt"
key = "credential:tls-key"
[keystore]
wrap = "wrap.secret"
[publishers.acme]
key = "acme.pub"
models = ["gearbox"]
[results]
hubs = ["home.pub", "/etc/other.pub"]
"""
    write(tmp_path, text, model=MODEL + 'sensor = "sensor.key"')
    monkeypatch.chdir(tmp_path)

    board = load_board(Path("edged.toml"))

    assert board.device.state == f"{tmp_path}/state"
    assert (board.broker.ca, board.broker.cert) == (f"{tmp_path}/tls/ca.crt", "/etc/board.crt")
    assert board.broker.key == "credential:tls-key"
    assert board.keystore.wrap == f"{tmp_path}/wrap.secret"
    assert board.publishers["acme"].key == f"{tmp_path}/acme.pub"
    assert board.results.hubs == (f"{tmp_path}/home.pub", "/etc/other.pub")
    assert board.model[0].sensors == (f"{tmp_path}/sensor.key",)


# --- what is refused, by file and key --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (LEAST + "[brokr]", "brokr", "did you mean `broker`?"),
        (LEAST + 'rotat = "1 h"', "results.rotat", "did you mean `rotate`?"),
        (LEAST + 'outbox = { sise = "1 MB" }', "results.outbox.sise", "did you mean `size`?"),
        (LEAST + '[publishers.acme]\nkye = "acme.pub"\nmodels = []', "publishers.acme.kye", "did you mean `key`?"),
        (LEAST + MODEL + 'chanel = "c1"', "model[0].chanel", "did you mean `channel`?"),
        (LEAST + MODEL + MODEL.replace("c1", "c2") + "qso = 1", "model[1].qso", "did you mean `qos`?"),
        (LEAST + MODEL + "[model.calibrate]\na1 = {}\na2 = { scal = 1.0 }", "model[0].calibrate.a2.scal", "did you mean `scale`?"),
        (LEAST + "[log]\nx = 1", "log.x", "known here: level"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest_known(tmp_path: Path, text: str, key: str, hint: str) -> None:
    error = refused(write(tmp_path, text))

    assert (error.message, error.hint) == (f"{tmp_path}/edged.toml: {key}: unknown key", hint)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "broker: is missing", "it has no default"),
        ('[broker]\nurl = "mqtt://localhost"', "results: is missing", "it has no default"),
        (LEAST + MODEL.replace('channel = "c1"', ""), "model[0].channel: is missing", "it has no default"),
        (LEAST + "rotate = 24", "results.rotate: expected `str`, got `int`", "text stands in quotes"),
        (LEAST + 'rotate = "24"', "results.rotate: '24' is not a duration", "a number above 0 and one of us, µs, ms, s, min, h, d"),
        (LEAST + 'outbox = { size = "64" }', "results.outbox.size: '64' is not a size", "a number above 0 and one of B, kB, MB, GB, KiB, MiB, GiB"),
        (LEAST + 'outbox = { age = "7" }', "results.outbox.age: '7' is not a duration", "a number above 0 and one of us, µs, ms, s, min, h, d"),
        (LEAST + 'sign = "yes"', "results.sign: expected `bool`, got `str`", "true or false, without quotes"),
        (LEAST + 'prefix = "Edged/x"', "results.prefix: 'Edged' is not a name", "a-z, 0-9, - and _, at most 64, beginning with a letter or digit"),
        (LEAST.replace('["home.pub"]', '"home.pub"'), "results.hubs: expected `array`, got `str`", "a list stands in brackets"),
        (LEAST.replace('"home.pub"', ""), "results.hubs: nobody could read the results", "name at least one hub's record"),
        (LEAST + "[broker.x]\n", "broker.x: unknown key", "known here: url, ca, cert, key, username, password, session"),
        (LEAST.replace('localhost"', 'localhost"\ncert = "board.crt"'), "broker, uplink: cert and key go together", None),
        (LEAST + '[device]\nname = "Press 07"', "device.name: 'Press 07' is not a name", "a-z, 0-9, - and _, at most 64, beginning with a letter or digit"),
        (LEAST + '[publishers.Acme]\nkey = "a"\nmodels = []', "publishers: 'Acme' is not a name", "a-z, 0-9, - and _, at most 64, beginning with a letter or digit"),
        (LEAST + '[publishers.acme]\nkey = "a"\nmodels = ["Gear"]', "publishers.acme.models: 'Gear' is not a name", "a-z, 0-9, - and _, at most 64, beginning with a letter or digit"),
        (LEAST + '[publishers.a]\nkey = "a"\nmodels = []\n[publishers.b]\nkey = "b"\nmodels = "gearbox"', "publishers.b.models: expected `array`, got `str`", "a list stands in brackets"),
        (LEAST + MODEL + "qos = 2", "model[0].qos: invalid enum value 2", "one of 0, 1"),
        (LEAST + MODEL.replace("json", "yaml"), "model[0].format: invalid enum value 'yaml'", "one of cbor, csv, f32le, jpeg, json, png, raw, text"),
        (LEAST + MODEL.replace('"row"', '"rwo"'), "model[0].each: invalid enum value 'rwo'", "one of row, rows, window"),
        (LEAST + MODEL + "[model.fields]\na1 = 1", "model[0].fields.a1: expected `str`, got `int`", "text stands in quotes"),
        (LEAST + MODEL + "[model.calibrate]\na1 = { scale = nan }", "[[model]] gearbox: calibrate.a1: scale and offset are finite numbers", None),
        (LEAST + MODEL + "[model.tune]\ndecide.enter = 0.85", "model[0].tune.decide: expected `float`, got `object`", "a key that holds a dot stands in quotes"),
        (LEAST + MODEL.replace('"gearbox"', '"Gearbox"'), "model.name: 'Gearbox' is not a name", "a-z, 0-9, - and _, at most 64, beginning with a letter or digit"),
        (LEAST + MODEL + MODEL, "two [[model]] tables use channel 'c1'", "each needs one of its own"),
        ("model = [1]\n" + LEAST, "model[0]: expected `object`, got `int`", "a table: its keys stand below its name in brackets"),
        (LEAST + '[limits]\nmessage = "0 MB"', "limits.message: '0 MB' is not a size", "a number above 0 and one of B, kB, MB, GB, KiB, MiB, GiB"),
        (LEAST + "[runtime]\nthreads = 0", "runtime.threads: at least 1", None),
        (LEAST + "[runtime]\nthreads = true", "runtime.threads: expected `int`, got `bool`", "a whole number, without quotes"),
        (LEAST + '[runtime]\nengine = "onnx"', "runtime.engine: invalid enum value 'onnx'", "one of auto, litert, tflite"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_file_and_key(tmp_path: Path, text: str, said: str, hint: str | None) -> None:
    error = refused(write(tmp_path, text))

    assert (error.message, error.hint) == (f"{tmp_path}/edged.toml: {said}", hint)


@pytest.mark.parametrize("text", ["[broker", "x", "url = ", 'a = "\x00"', LEAST + "[broker]\n"])
def test_what_is_no_toml_is_refused_with_file_and_place(tmp_path: Path, text: str) -> None:
    error = refused(write(tmp_path, text))

    assert error.message.startswith(f"{tmp_path}/edged.toml: not TOML: ")
    assert re.search(r"at (line \d+|end of document)", error.message)


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    with pytest.raises(MissingFileError, match=f"{path} does not exist"):
        load_board(path)
    path.write_bytes(b"\xff\xfe[broker]")
    assert refused(path).message.startswith(f"{path}: not TOML: ")
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(FormatError, match=f"{path} is longer than"):
        load_board(path)


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused_with_one_of_our_errors(text: str) -> None:
    import tempfile  # noqa: PLC0415  a directory a case, not one a test

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edged.toml")
        path.write_text(LEAST + text, encoding="utf-8", errors="replace")
        try:
            load_board(path)
        except EdgedError as error:
            assert str(path) in error.message  # noqa: PT017  most texts are fine


# --- channels and topics ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "sources", "why"),
    [
        ("hall/7", {"7": "Press"}, "'7' is not what the 0 + of its topic stand for"),
        ("hall/+", {"1/7": "Press"}, "'1/7' is not what the 1 + of its topic stand for"),
        ("+/+", {"7": "Press"}, "'7' is not what the 2 + of its topic stand for"),
        ("hall/+", {"7": "Press", "8": "Press"}, "each has a name of its own"),
        ("hall/+", {"7": ""}, "sources.7: between 1 and 64 bytes"),
        ("hall/+", {"7": "p" * 65}, "sources.7: between 1 and 64 bytes"),
        ("hall/+", {str(number): f"p{number}" for number in range(257)}, "257 names, and hubs are told 256 at most"),
    ],
)
def test_names_of_sources_that_cannot_be_are_refused(
    tmp_path: Path, topic: str, sources: dict[str, str], why: str
) -> None:
    table = "\n[model.sources]\n" + "\n".join(f'"{source}" = "{title}"' for source, title in sources.items())
    error = refused(write(tmp_path, LEAST + MODEL.replace("factory/press-07/vibration", topic) + table))

    assert why in error.message


def test_site_names_models_and_their_sources(tmp_path: Path) -> None:
    text = LEAST + MODEL.replace("factory/press-07/vibration", "+/press/+") + 'title = "Presses"\n'
    (model,) = load_board(write(tmp_path, text + '[model.sources]\n"hall/7" = "Press 7"')).model

    assert (model.title, model.sources, model.has_sources) == ("Presses", {"hall/7": "Press 7"}, True)


@pytest.mark.parametrize("channel", sorted(RESERVED_CHANNELS))
def test_a_channel_of_edged_is_refused(tmp_path: Path, channel: str) -> None:
    error = refused(write(tmp_path, LEAST + MODEL.replace('"c1"', f'"{channel}"')))

    assert error.message == f"{tmp_path}/edged.toml: [[model]] gearbox: channel: '{channel}' is edged's own"
    assert error.hint == "choose another name"


@pytest.mark.parametrize("topic", ["a", "/", "a/b", "/a", "a/", "+", "+/+", "factory/+/vibration", "a//b", "größe/m s"])
def test_topic_filter(tmp_path: Path, topic: str) -> None:
    text = LEAST + MODEL.replace("factory/press-07/vibration", topic)

    assert load_board(write(tmp_path, text)).model[0].topic == topic


@pytest.mark.parametrize("topic", ["", "#", "a/#", "a#", "a+", "+a", "a/+b/c", "a/\\u0000", "#/a"])
def test_what_is_no_topic_filter_is_refused(tmp_path: Path, topic: str) -> None:
    error = refused(write(tmp_path, LEAST + MODEL.replace("factory/press-07/vibration", topic)))

    assert "[[model]] gearbox: topic: " in error.message
    assert error.message.endswith("is no topic filter")
    assert error.hint == "+ stands for one whole level; # is not taken"


@pytest.mark.parametrize("name", ["a", "0", "press-07", "a_b", "a" * 64])
def test_name(name: str) -> None:
    assert check_name("device.name", name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "a.b", "ä", "+", "#", "a\n", "a" * 65, "a\x00"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name") as caught:
        check_name("device.name", name)
    assert caught.value.message.startswith("device.name: ")


# --- edged.toml.d ----------------------------------------------------------------------------


def test_files_of_the_directory_merge_in_the_order_of_their_names(tmp_path: Path) -> None:
    board = load_board(
        write(
            tmp_path,
            LEAST + 'rotate = "1 h"\nprefix = "site"\n[log]\nlevel = "debug"',
            **{"20-late": '[results]\nrotate = "3 h"', "10-early": '[results]\nrotate = "2 h"\n[device]\nname = "b"'},
        )
    )

    assert (board.results.rotate, board.results.prefix, board.results.hubs) == (
        "3 h",
        "site",
        (f"{tmp_path}/home.pub",),
    )
    assert (board.log.level, board.device.name) == ("debug", "b")


def test_a_list_is_replaced_as_a_whole(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, LEAST, hubs='[results]\nhubs = ["a.pub", "b.pub"]'))

    assert board.results.hubs == (f"{tmp_path}/a.pub", f"{tmp_path}/b.pub")


def test_a_model_of_a_known_channel_takes_its_place_and_another_is_added(tmp_path: Path) -> None:
    second = MODEL.replace("c1", "c2")
    board = load_board(
        write(tmp_path, LEAST + MODEL + second, a=MODEL.replace("json", "cbor"), b=MODEL.replace("c1", "c3"))
    )

    assert {model.channel: model.format for model in board.model} == {"c1": "cbor", "c2": "json", "c3": "json"}


def test_only_toml_files_of_the_directory_count(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST, a="")
    (path.with_name("edged.toml.d") / "b.toml.dpkg-old").write_text("not toml")

    load_board(path)


def test_the_file_that_holds_the_bad_key_is_the_one_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "edged.toml.d"
    for extra, said in {
        '[log]\nlevle = "info"': "log.levle: unknown key",
        '[log]\nlevel = "infor"': "log.level: invalid enum value 'infor'",
        '[results]\nrotate = "1"': "results.rotate: '1' is not a duration",
        MODEL.replace("c1", "c2") + "qos = 3": "model[1].qos: invalid enum value 3",
        "x =": "not TOML: Invalid value (at end of document)",
    }.items():
        path = write(
            tmp_path, LEAST + 'rotate = "1 h"\n' + MODEL + '[log]\nlevel = "info"', a="", b=extra, c="[device]"
        )
        assert refused(path).message == f"{folder}/b.toml: {said}"
    path = write(tmp_path, LEAST + "x = 1" + MODEL, a="", b="", c="")
    assert refused(path).message == f"{path}: results.x: unknown key"


def test_what_no_file_holds_is_missed_in_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST, a='[[model]]\nname = "gearbox"')

    assert refused(path).message == f"{path} + {path}.d/a.toml: model[0].channel: is missing"


# --- secrets ---------------------------------------------------------------------------------


def test_a_secret_in_a_file_loses_one_line_break(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(0o600)
    for content, secret in ((b"hunter2\n", b"hunter2"), (b"hunter2", b"hunter2"), (b"a\n\n", b"a\n"), (b" a ", b" a ")):
        path.write_bytes(content)
        assert read_secret(str(path)) == secret


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o601])
def test_a_secret_that_others_may_open_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"hunter2")
    path.chmod(mode)

    for read in (read_secret, secret_path):
        with pytest.raises(PermissionsError) as caught:
            read(str(path))
        assert caught.value.message == f"{path} is open to others (mode {mode:04o})"
        assert caught.value.hint == f"chmod 0600 {path}"


def test_an_absent_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=f"{tmp_path}/none cannot be read: No such file"):
        read_secret(f"{tmp_path}/none")


def test_a_credential_comes_from_the_directory_that_systemd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its modes are systemd's business."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "mqtt-password").write_bytes(b"hunter2\n")

    assert read_secret("credential:mqtt-password") == b"hunter2"
    assert secret_path("credential:mqtt-password") == tmp_path / "mqtt-password"


@pytest.mark.parametrize("reference", ["credential:none", "credential:"])
@pytest.mark.parametrize("directory", [True, False])
def test_an_absent_credential_is_named_with_the_line_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, *, directory: bool
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if directory:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    with pytest.raises(MissingFileError) as caught:
        read_secret(reference)

    name = reference.removeprefix("credential:")
    assert caught.value.message == f"there is no credential {name!r}"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"LoadCredentialEncrypted={name}:")


def test_a_credential_does_not_lead_out_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "other").write_bytes(b"x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

    for reference in ("credential:../other", f"credential:{tmp_path}/other"):
        with pytest.raises(MissingFileError, match="there is no credential"):
            read_secret(reference)


# --- the author's manifest -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MANIFEST + "[publsh]", "publsh: unknown key"),
        (MANIFEST + '[publish]\nwhen = "chnge"', "publish.when: invalid enum value 'chnge'"),
        (MANIFEST + '[publish]\nat_least_every = "10"', "publish.at_least_every: '10' is not a duration"),
        (MANIFEST.replace('["a1", "a2"]', '["a1", "a2"]\nrate = "1000"'), "input.rate: '1000' is not a rate"),
        (MANIFEST.replace('["a1", "a2"]', '["a1", "a2"]\ngap = { over = "1" }'), "input.gap.over: '1' is not a duration"),
        (MANIFEST.replace('["a1", "a2"]', '["a1", "a1"]'), "input.channels: at least one, each once"),
        (MANIFEST.replace('["a1", "a2"]', '["a1"]\nrange = [1.0, 1.0]'), "input.range: the first number must be below the second"),
        (MANIFEST.replace("size = 10", "size = 0"), "window.size: between 1 and 1,000,000 rows"),
        (MANIFEST.replace("size = 10", "size = 10\nhop = 11"), "window.hop: above 0 and at most window.size, 10"),
        (MANIFEST + '[features]\nuse = ["medain"]', "features.use: unknown feature 'medain'"),
        (MANIFEST + "[features]\nuse = []", "features.use: at least one feature"),
        (MANIFEST + '[features]\nuse = [{ name = "max", ddof = 1 }]', "features.use: max takes no ddof"),
        (MANIFEST + '[features]\nuse = [{ name = "std", ddof = -1 }]', "features.use: ddof is not below 0"),
        (MANIFEST + '[features]\nuse = [{ name = "std", bias = false }]', "features.use: std takes no bias"),
        (MANIFEST + '[normalise]\nmethod = "zscore"\nmean = 1.0', "normalise.std: wanted with method 'zscore'"),
        (MANIFEST + '[normalise]\nmethod = "minmax"\nmin = 0.0\nmax = 1.0\nstd = 1.0', "normalise.std: not known with method 'minmax'"),
        (MANIFEST.replace('["healthy", "broken"]', "[]"), "output.labels: a classifier has at least one, not 0"),
        (MANIFEST.replace("classifier", "regressor"), "output.labels: a regressor has none, not 2"),
        (MANIFEST.replace('"broken"', '"healthy"'), "output.labels: at most 1024, each once"),
        (MANIFEST.replace('"broken"', f'"{"ä" * 21}"'), f"output.labels: '{'ä' * 21}' is not between 1 and 40 bytes long in UTF-8"),
        (MANIFEST + '[decide]\nwatch = "brokn"', "decide.watch: 'brokn' is none of output.labels"),
        (MANIFEST + '[decide]\nwatch = "broken"\nneeded = { n = 4, of = 3 }', "decide.needed: n between 1 and of, of at most 1000"),
        (MANIFEST + '[decide]\nwatch = "broken"\nenter = 0.5\nleave = 0.6', "decide.leave: 0.6 is above decide.enter, 0.5"),
        (MANIFEST + '[tunable]\n"decide.enter" = [0.5, 0.9]', "tunable: 'decide.enter' cannot be tuned"),
        (MANIFEST + '[decide]\nwatch = "broken"\n[tunable]\n"window.size" = [1, 2]', "tunable: 'window.size' cannot be tuned"),
        (MANIFEST.replace("version = 1", "version = 0"), "version: 0 is not between 1 and 2^32 - 1"),
        (MANIFEST.replace('"gearbox"', '"Gearbox"'), "name: 'Gearbox' is not a name"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_manifest_is_refused_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        Author.read(path)

    assert caught.value.message == f"{path}: {said}"


# --- documentation ---------------------------------------------------------------------------


def keys_of(table: type, prefix: str = "") -> dict[str, None]:
    """Return every key of a structure in dotted form, those of the structures inside it too; ordered and each once."""
    found: dict[str, None] = {}
    for field in msgspec.structs.fields(table):
        key = f"{prefix}{field.encode_name}"
        found[key] = None
        inner = [one for one in walk(field.type) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        named = "NAME." if typing.get_origin(field.type) is dict else ""
        for one in inner:
            found |= keys_of(one, f"{key}.{named}")
    return found


def walk(annotation: object) -> list[object]:
    return [annotation, *(one for argument in typing.get_args(annotation) for one in walk(argument))]


def document(name: str) -> str:
    path = PROJECT / "docs" / name
    if not path.is_file():
        pytest.skip("the tests stand without the project's docs")
    return path.read_text()


@pytest.mark.parametrize(
    ("key", "file"),
    [
        *((key, "configuration.md") for key in keys_of(BoardConfig)),
        *((key, "manifest.md") for key in keys_of(Author) if not re.match(r"tensors\.NAME\.\w+\.", key)),
    ],
)
def test_every_key_is_documented(key: str, file: str) -> None:
    """`key` in the first column of a table."""
    assert f"| `{key}`" in document(file)


def test_every_feature_is_documented() -> None:
    for name in FEATURES:
        assert f"| `{name}`" in document("manifest.md")


def test_the_documented_examples_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", document("configuration.md"), re.DOTALL)
    (whole,) = [block for block in blocks if "[broker]" in block]
    tables = [block for block in blocks if block.startswith("[[model]]")]
    load_board(write(tmp_path, whole))
    assert tables
    for table in tables:
        load_board(write(tmp_path, LEAST + table))
    manifests = re.findall(r"```toml\n(.*?)```", document("manifest.md"), re.DOTALL)
    assert len(manifests) >= 9
    for manifest in manifests:
        (tmp_path / "m.toml").write_text(manifest)
        Author.read(tmp_path / "m.toml")
