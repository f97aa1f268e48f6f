"""Ansible action: a record from a board, hub or aggregator, checked before it is stored."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.edged.fleet.plugins.plugin_utils.revoked import revoked
from ansible_collections.edged.fleet.plugins.plugin_utils.words import NAME, plain

_MOST = 12_288
"""Bytes that a record may have: a node record holds an enrolment record and two more signatures."""

_PATIENCE = 60
_ROLES = {".enrol": ("device",), ".node": ("device",), ".pub": ("hub", "aggregator")}


class _RefusedError(Exception):
    """The record is not stored; why."""


class ActionModule(ActionBase):
    """The class that Ansible looks for."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: ANN401  Ansible's
        """Read the record where the task runs, check it here, and store it if it is new."""
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "src": {"type": "path", "required": True},
                "dest": {"type": "path", "required": True},
                "name": {"type": "str", "required": True},
                "command": {"type": "list", "elements": "str", "required": True},
                "replace": {"type": "bool", "default": False},
            }
        )
        said = self._execute_module("ansible.builtin.slurp", {"src": given["src"]}, task_vars=task_vars)
        if said.get("failed"):
            if self._task.check_mode:
                return {"changed": True, "msg": "there is no record yet: a run without --check makes it"}
            return {"failed": True, "msg": plain(said.get("msg", "the record cannot be read"))}
        try:
            data = _decoded(said.get("content"))
            return {"changed": self._store(data, Path(given["dest"]), given)}
        except _RefusedError as why:
            return {"failed": True, "msg": str(why)}

    def _store(self, data: bytes, path: Path, given: dict[str, Any]) -> bool:
        name = given["name"]
        if not NAME.fullmatch(name):
            raise _RefusedError(f"{plain(name)} is not a name: a-z, 0-9, - and _, at most 64")
        if path.suffix != ".pub" and name in revoked(path.parent):
            raise _RefusedError(f"{name} was revoked")
        there = path.read_bytes() if path.exists() else None
        if there == data:
            return False
        if there is not None and not given["replace"]:
            raise _RefusedError(
                f"{name} has other keys than {path}: if it was set up anew, say so with -e edged_replace_record=true;"
                " if not, somebody else answers in its place"
            )
        _check(data, path.suffix, name, given["command"])
        if path.suffix == ".node":
            _check_vouched(data, path.with_suffix(".enrol"), name)
        if not self._task.check_mode:
            _write(path, data)
        return True


def _decoded(content: object) -> bytes:
    if not isinstance(content, str) or len(content) > _MOST * 4 // 3 + 4:
        raise _RefusedError(f"what came is no record: it has more than {_MOST} bytes, or is no text")
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise _RefusedError("what came is no record: it is not base64") from error


def _check(data: bytes, suffix: str, name: str, command: list[str]) -> None:
    """Check shape and signature with edged, in a file that no inventory is near; compare role and name."""
    with tempfile.TemporaryDirectory(prefix="edged-record-") as folder:
        path = Path(folder) / f"record{suffix}"
        path.write_bytes(data)
        try:
            done = subprocess.run(  # noqa: S603  the operator's own command
                [*command, "inspect", str(path), "--json"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _RefusedError(f"{command[0]} cannot check the record on this machine: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").replace(str(path), name)
        raise _RefusedError(f"what came is no record: {plain(said)}")
    found = json.loads(done.stdout)
    if found["role"] not in _ROLES[suffix] or found["id"] != name:
        raise _RefusedError(f"the record is that of {found['role']} {plain(found['id'])}, and not of {name}")


def _check_vouched(data: bytes, enrolled: Path, name: str) -> None:
    """Check that a node record stands on the enrolment record that was collected before."""
    if not enrolled.is_file() or not data.startswith(enrolled.read_bytes()):
        raise _RefusedError(
            f"the node record of {name} does not stand on {enrolled}: if the board has new keys, remove"
            " /var/lib/edged/federated/node.key there, and run edged.fleet.enrol and edged.fleet.federate again"
        )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(0o644)
    new.replace(path)
