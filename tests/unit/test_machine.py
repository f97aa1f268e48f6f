"""What a machine lacks is named, with the way out."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from edged.base import machine, owner
from edged.base.clock import BUILD
from edged.base.errors import MachineError, PermissionsError

_V2, _V1 = (
    "cpuset cpu io memory pids\n",
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t0\t56\t{}\n",
)
_SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def test_a_clock_before_the_release_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not somebody vouches for it."""
    monkeypatch.setattr("edged.base.machine.time.time", lambda: 3600.0)
    for trusted in (True, False):
        with pytest.raises(MachineError, match="the clock is not set: it shows 1970-01-01 01:00 UTC") as caught:
            machine.check_clock(trusted=trusted)
        assert "timedatectl" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("trusted", "synchronised", "said"),
    [(True, False, "vouched for"), (False, True, "synchronised"), (False, False, "NOT known to be right")],
)
def test_a_clock_is_described(monkeypatch: pytest.MonkeyPatch, trusted: bool, synchronised: bool, said: str) -> None:
    monkeypatch.setattr("edged.base.machine.time.time", lambda: float(BUILD))
    monkeypatch.setattr("edged.base.machine.is_synchronised", lambda: synchronised)
    assert said in machine.check_clock(trusted=trusted)


def test_a_kernel_without_randomness_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ready" in machine.check_entropy()

    def none_yet(_size: int, flags: int) -> bytes:
        assert flags == os.GRND_NONBLOCK
        raise BlockingIOError

    monkeypatch.setattr("edged.base.machine.os.getrandom", none_yet)
    with pytest.raises(MachineError, match="no randomness yet") as caught:
        machine.check_entropy()
    assert "rng-tools" in str(caught.value.hint)


def test_state_of_another_user_than_the_services_is_refused(tmp_path: Path) -> None:
    """In the service's own directory; elsewhere a board may run as whoever it belongs to."""
    other = next(one.pw_name for one in pwd.getpwall() if one.pw_uid != os.geteuid())
    with pytest.raises(PermissionsError, match=f"and the service runs as {other}") as caught:
        machine.check_owner(tmp_path, other, default=tmp_path)
    assert caught.value.hint == f"chown -R {other}: {tmp_path}"
    assert "belongs to" in machine.check_owner(tmp_path, other, default=tmp_path / "elsewhere")
    assert "belongs to" in machine.check_owner(tmp_path, "no-such-user", default=tmp_path)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files of others are made by root")
def test_a_file_of_another_user_in_the_state_is_named(tmp_path: Path) -> None:
    inside = tmp_path / "keystore" / "packages"
    inside.mkdir(parents=True)
    package = inside / "gearbox-1.edged"
    package.touch()
    os.chown(package, 54321, 54321)
    with pytest.raises(PermissionsError, match=r"gearbox-1\.edged belongs to user 54321") as caught:
        machine.check_owner(tmp_path)
    assert caught.value.hint == f"chown -R 0 {tmp_path}"


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    assert "MB free" in machine.check_room(tmp_path, 0)
    with pytest.raises(MachineError, match="MB free, 1,000,000,000,000 MB may be needed") as caught:
        machine.check_room(tmp_path, 10**18)
    assert "results.outbox.size" in str(caught.value.hint)


def test_a_little_room_is_wanted_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = type("statvfs", (), {"f_bavail": 1000, "f_frsize": 1000})
    monkeypatch.setattr("edged.base.machine.os.statvfs", lambda _: room)
    with pytest.raises(MachineError, match="1 MB free, 16 MB may be needed"):
        machine.check_room(tmp_path, 0)


def test_swap_on_a_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "swaps").write_text(f"{_SWAPS}/var/swap  file 102396 0 -2\n/dev/zram0 partition 9 0 100\n")
    said = machine.describe_memory(tmp_path, tmp_path)
    assert "swap on /var/swap: " in said
    assert "LimitMEMLOCK=infinity" in said
    (tmp_path / "swaps").write_text(f"{_SWAPS}/dev/zram0 partition 9 0 100\n")
    assert machine.describe_memory(tmp_path, tmp_path) == "no swap on a disk"


@pytest.mark.parametrize(
    ("file", "content", "on"),
    [
        ("cgroup.controllers", _V2, True),
        ("cgroup.controllers", _V2.replace("memory ", ""), False),
        ("cgroups", _V1.format(1), True),
        ("cgroups", _V1.format(0), False),
        ("other", "", True),
    ],
)
def test_a_memory_controller_that_is_off_is_said(tmp_path: Path, file: str, content: str, on: bool) -> None:
    """The firmware of a Raspberry Pi passes cgroup_disable=memory."""
    (tmp_path / file).write_text(content)
    assert ("MemoryMax= and MemorySwapMax= do nothing" in machine.describe_memory(tmp_path, tmp_path)) is not on


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as somebody else")
def test_root_acts_as_a_directorys_owner_with_the_owners_groups_and_is_root_again(tmp_path: Path) -> None:
    """One of those groups may be what opens the TPM; secrets that root alone may read are read before."""
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    groups, read = os.getgroups(), []
    with owner.acting_as_owner(tmp_path, lambda: read.append(os.geteuid())):
        assert (os.geteuid(), os.getegid()) == (nobody.pw_uid, nobody.pw_gid)
        assert set(os.getgroups()) == set(os.getgrouplist("nobody", nobody.pw_gid))
    assert read == [0]
    assert (os.geteuid(), os.getgroups()) == (0, groups)
