"""Start the hub as an add-on: the Supervisor's options and its broker become a configuration, keys stand in /data."""
# ruff: noqa: INP001, S310, S603, S606, T201  a script; it asks the Supervisor, starts and then becomes the hub

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from configure import WantsMore, hub_toml

STATE, SECRETS, RUNTIME = Path("/data/hub"), Path("/data/secrets"), Path("/run/edged-hub")
OWN, BOARDS = Path("/etc/edged/hub.toml"), Path("/etc/edged/boards")
USER = "edged-hub"
AS_USER = ("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
AS_USER += ("--inh-caps=-all", "--bounding-set=-all")


def main() -> None:
    """Write what is to be written as root; go on as the hub's user."""
    BOARDS.mkdir(parents=True, exist_ok=True)
    for directory in (STATE, SECRETS, RUNTIME):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        shutil.chown(directory, USER, USER)
    config = OWN if OWN.exists() else _configured()
    hub = (*AS_USER, "/usr/bin/edged", "hub", f"--config={config}")
    # the Supervisor's token is not handed on
    environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(RUNTIME)}
    if not (STATE / "hub.pub").exists():
        subprocess.run((*hub, "init"), env=environment, check=True)
    shutil.copy(STATE / "hub.pub", OWN.with_name("hub.pub"))
    os.execve(hub[0], hub, environment)


def _configured() -> Path:
    options = json.loads(Path("/data/options.json").read_text(encoding="utf-8"))
    try:
        text, secrets = hub_toml(options, _broker(), STATE, SECRETS, BOARDS)
    except WantsMore as wanted:
        sys.exit(f"error: {wanted}")
    for name, secret in secrets.items():
        path = SECRETS / name
        path.touch(mode=0o600)
        path.write_text(secret, encoding="utf-8")
        shutil.chown(path, USER, USER)
    path = Path("/data/hub.toml")
    path.write_text(text, encoding="utf-8")
    return path


def _broker() -> dict[str, object]:
    """Return what the Supervisor knows of its broker; nothing where there is none."""
    request = urllib.request.Request(
        "http://supervisor/services/mqtt", headers={"Authorization": f"Bearer {os.environ.get('SUPERVISOR_TOKEN', '')}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer)["data"])
    except (OSError, ValueError, KeyError) as error:
        print(f"the Supervisor names no broker: {error}")
        return {}


if __name__ == "__main__":
    main()
