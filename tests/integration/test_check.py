"""`edged check` looks at the machine, too: what would go wrong later is said before, with the way out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.bench import Bench, make_bench

OSERR, NOPERM = 71, 77


@pytest.fixture(scope="module")
def model_bench(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("check") / "bench", models)


@pytest.fixture
def bench(model_bench: Bench, tmp_path: Path) -> Bench:
    """A board on a machine to break."""
    return model_bench.copy(tmp_path / "bench")


def check(bench: Bench, **options: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code and the findings by what was looked at."""
    done = bench.run("check", "edged.toml", "--offline", "--json", check=False, **options)
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}


def test_a_machine_that_has_what_is_needed_is_described(bench: Bench) -> None:
    code, found = check(bench)
    assert code == 0, found
    assert list(found)[:6] == ["configuration", "clock", "entropy", "memory", "owner", "disk"]
    assert "UTC, vouched for by device.clock" in found["clock"]["detail"]
    assert "MB free" in found["disk"]["detail"]


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime, of Debian's package of that name")
def test_a_board_that_woke_up_in_1970_is_told(bench: Bench) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAKETIME": "@1970-01-02 00:00:00"}
    code, found = check(bench, env=environment)
    assert code == OSERR
    assert found["clock"]["kind"] == "MachineError"
    assert "the clock is not set" in found["clock"]["detail"]
    assert "timedatectl" in found["clock"]["hint"]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[results]", 'outbox = { size = "900000000 GB" }'),
        ("[[model]]", 'collect = { label = "operator", size = "900000000 GB" }'),
    ],
)
def test_a_disk_that_is_too_small_for_what_may_be_kept_is_told(bench: Bench, table: str, key: str) -> None:
    config = bench.path / "edged.toml"
    config.write_text(config.read_text().replace(table, f"{table}\n{key}"))
    code, found = check(bench)
    assert code == OSERR
    assert "900,000,000,0" in found["disk"]["detail"]
    assert "may be needed" in found["disk"]["detail"]
    assert "results.outbox.size, model.collect.size" in found["disk"]["hint"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files of others are made by root")
@pytest.mark.parametrize("name", ["state.db", "keystore/keys/sign.key", "keystore"])
def test_what_belongs_to_another_user_is_named_with_the_chown_that_mends_it(bench: Bench, name: str) -> None:
    """As after a copy by root, or an `edged` of before that ran as another user."""
    path = bench.state / name
    assert path.exists(), sorted(bench.state.rglob("*"))
    os.chown(path, 54321, 54321)
    code, found = check(bench)
    assert code == NOPERM
    assert f"{path} belongs to user 54321" in found["owner"]["detail"]
    assert found["owner"]["hint"] == f"chown -R 0 {bench.state}"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files of others are made by root")
def test_what_root_wrote_into_the_daemons_state_is_named(bench: Bench) -> None:
    """Root's check acts as the owner of the state, and sees what the daemon would see."""
    for path in (bench.state, *bench.state.rglob("*")):
        os.chown(path, 65534, 65534)
    for path in (bench.path, *bench.path.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o111)
    os.chown(bench.state / "state.db", 0, 0)
    code, found = check(bench)
    assert code == NOPERM
    assert "state.db belongs to root, and the state directory to" in found["owner"]["detail"]
    assert found["owner"]["hint"] == f"chown -R 65534 {bench.state}"


def test_a_package_for_another_board_names_this_one(bench: Bench, models: Path, tmp_path: Path) -> None:
    other = make_bench(tmp_path / "other", models, name="press-99")
    package = bench.path / "next.edged"
    package.write_bytes(other.pack_fast())
    shutil.copy(other.path / "acme.pub", bench.path / "acme.pub")
    done = bench.install(package, check=False)
    assert done.returncode == NOPERM
    assert f"of this board, {bench.name}" in done.stderr
    assert f"`edged grant` adds one (--to {bench.name}.enrol)" in done.stderr
