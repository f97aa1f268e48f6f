"""Commands of root act as the daemon's user where they touch its files."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def acting_as_owner(directory: Path, before: Callable[[], object]) -> Iterator[None]:
    """Act as the owner of a directory in the block, groups included, if root calls and the owner is another user.

    :param before: called as root, ahead of that.
    """
    owner = directory.stat() if directory.exists() else None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    before()
    groups = os.getgroups()
    os.setgroups(_groups_of(owner.st_uid, owner.st_gid))
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _groups_of(user: int, group: int) -> list[int]:
    """Return the groups that a user is in."""
    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]
