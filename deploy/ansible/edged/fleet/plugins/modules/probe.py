"""Ansible module: what must be known of a machine before anything is done to it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: probe
short_description: Say what must be known of a board or hub before anything is done to it
description:
  - Nothing is changed.
options:
  state:
    description: The directory of the daemon's state.
    type: path
    required: true
  user:
    description: Whom it has to belong to.
    type: str
    required: true
  record:
    description: The public record that is there once there are keys.
    type: path
    required: true
author:
  - The edged project
attributes:
  check_mode:
    support: full
    description: It only looks.
"""

EXAMPLES = """
- name: Look at the board
  edged.fleet.probe:
    state: /var/lib/edged
    user: edged
    record: /var/lib/edged/keystore/device.enrol
  register: probe
"""

RETURN = """
architecture:
  description: Debian's name of it, which may be 32-bit under a 64-bit kernel.
  returned: always
  type: str
installed:
  description: Version of the package edged, empty for none.
  returned: always
  type: str
federated:
  description: Version of the package edged-federated, empty for none.
  returned: always
  type: str
apt:
  description: Whether Ansible can install packages there (python3-apt).
  returned: always
  type: bool
random:
  description: Whether the kernel hands out random numbers already.
  returned: always
  type: bool
clock:
  description: Unix seconds by its clock.
  returned: always
  type: float
free:
  description: Bytes free for the state.
  returned: always
  type: int
misowned:
  description: Files of the state that belong to somebody else, or are open to others.
  returned: always
  type: list
  elements: str
record:
  description: SHA-256 of the record, empty for none.
  returned: always
  type: str
packages:
  description: Whether a model is installed.
  returned: always
  type: bool
"""


def main() -> None:
    """Do what the documentation says."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    state, record = Path(module.params["state"]), Path(module.params["record"])
    module.exit_json(
        changed=False,
        architecture=module.run_command(["dpkg", "--print-architecture"], check_rc=True)[1].strip(),
        installed=_installed(module, "edged"),
        federated=_installed(module, "edged-federated"),
        apt=importlib.util.find_spec("apt") is not None,
        random=_random(),
        clock=time.time(),
        free=_free(state),
        misowned=_misowned(state, module.params["user"]),
        record=hashlib.sha256(record.read_bytes()).hexdigest() if record.exists() else "",
        packages=any(state.glob("keystore/packages/*.edged")),
    )


def _installed(module: AnsibleModule, package: str) -> str:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]
    status, _, version = module.run_command(query)[1].partition(" ")
    return version if status == "installed" else ""


def _random() -> bool:
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return False
    return True


def _free(state: Path) -> int:
    """Return the bytes that are free where the state is, or will be."""
    found = os.statvfs(next(path for path in (state, *state.parents) if path.exists()))
    return found.f_bavail * found.f_frsize


def _misowned(state: Path, user: str) -> list[str]:
    try:
        owner = pwd.getpwnam(user).pw_uid
    except KeyError:
        return []
    return [str(path) for path in (state, *state.rglob("*")) if _is_misowned(path, owner, private=path == state)][:5]


def _is_misowned(path: Path, owner: int, *, private: bool) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:  # the daemon works on
        return False
    return status.st_uid != owner or (private and bool(status.st_mode & 0o077))


if __name__ == "__main__":
    main()
