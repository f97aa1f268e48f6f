"""A real Home Assistant of a test's own: on a free loopback port, onboarded, its mqtt integration on the test's broker.

It comes from an environment of its own (`make test-hub`), or from the Python that EDGED_HOMEASSISTANT names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from support.ports import quiet_port
from support.process import Server

_ROOT = Path(__file__).resolve().parents[2]
_CLIENT = Path(__file__).with_name("homeassistant_client.py")
_PYTHON = Path(os.environ.get("EDGED_HOMEASSISTANT", _ROOT / ".venv" / "homeassistant" / "bin" / "python"))

# No `default_config`: it looks for devices in the network. The parts that Home Assistant cannot start without come anyway.
_CONFIGURATION = """
homeassistant:
  name: Test
  unit_system: metric
  time_zone: UTC
http:
  server_host: 127.0.0.1
  server_port: {port}
logger:
  default: warning
  logs:
    homeassistant.components.mqtt: info
"""

_CLASSES = """
import json
from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.sensor.const import DEVICE_CLASS_UNITS

units = {name: [unit for unit in units if unit] for name, units in DEVICE_CLASS_UNITS.items()}
print(json.dumps({"units": units, "binary": list(BinarySensorDeviceClass)}))
"""

_CLIENT_NAME = "tests"
_TROUBLE = re.compile(r"^\S+ \S+ (WARNING|ERROR|CRITICAL) ")


def cannot() -> str:
    """Return why there is no Home Assistant here; empty if there is."""
    if _PYTHON.exists():
        return ""
    return f"no Home Assistant: `make test-hub`, or name its Python in EDGED_HOMEASSISTANT (looked at {_PYTHON})"


def device_classes() -> dict[str, Any]:
    """Return Home Assistant's own: ``units``, by the sensors' classes that have any; ``binary``, of binary sensors."""
    done = subprocess.run([_PYTHON, "-c", _CLASSES], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class HomeAssistant(Server):
    """One Home Assistant with an empty configuration under ``directory``.

    :param port: of the broker on the loopback that its mqtt integration is set up with.

    :ivar took: seconds from its first start until mqtt was set up.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._broker = port
        self._port = quiet_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._token = ""
        self.took = 0.0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "configuration.yaml").write_text(_CONFIGURATION.format(port=self._port))
        arguments = ("--config", directory, "--skip-pip", "--log-no-color")
        super().__init__((_PYTHON, "-m", "homeassistant", *arguments), {}, self._serves, directory / "output.log")

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            super().__enter__()
            self._onboard()
            self.wait(self._is_running)
            self._add_mqtt()
            self.wait(self._has_stored)
        except BaseException:
            self.stop()
            raise
        self.took = time.monotonic() - began
        return self

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the state object of each entity, by entity id."""
        return {state["entity_id"]: state for state in self._request("GET", "/api/states")}

    def entities(self) -> dict[str, dict[str, Any]]:
        """Return what the registry says of mqtt's entities, by unique id."""
        entries = self.ask({"type": "config/entity_registry/list"})
        return {entry["unique_id"]: entry for entry in entries if entry["platform"] == "mqtt"}

    def devices(self) -> list[dict[str, Any]]:
        """Return mqtt's devices as the registry has them."""
        devices = self.ask({"type": "config/device_registry/list"})
        return [device for device in devices if any(domain == "mqtt" for domain, _ in device["identifiers"])]

    def ask(self, command: dict[str, Any]) -> Any:  # noqa: ANN401  JSON
        """Return the result of a command of the websocket API."""
        url = f"{self._url}/api/websocket"
        done = subprocess.run(
            [_PYTHON, _CLIENT],
            input=json.dumps({"url": url, "token": self._token, "command": command}),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def trouble(self) -> list[str]:
        """Return the lines that it logged as warnings or worse."""
        return [line for line in self.log.splitlines() if _TROUBLE.match(line)]

    def _serves(self) -> object:
        """Return whether it runs; before it knows us, whether it asks who we are."""
        return self._is_running() if self._token else self._request("GET", "/api/onboarding")

    def _is_running(self) -> bool:
        return self._request("GET", "/api/config")["state"] == "RUNNING"

    def _has_stored(self) -> bool:
        """Tell whether token and broker stand on disk: ended sooner, it may have forgotten either."""
        auth, entries = (
            json.loads((self._directory / ".storage" / name).read_text())["data"]
            for name in ("auth", "core.config_entries")
        )
        return any(token["client_name"] == _CLIENT_NAME for token in auth["refresh_tokens"]) and any(
            entry["domain"] == "mqtt" for entry in entries["entries"]
        )

    def _onboard(self) -> None:
        """Make the owner and log in for good.

        The later steps of onboarding are left: they only set up integrations that want the Internet.
        """
        client = f"{self._url}/"
        owner = {"name": "Owner", "username": "owner", "password": "loopback-only"}
        code = self._request("POST", "/api/onboarding/users", {**owner, "client_id": client, "language": "en"})
        form = {"grant_type": "authorization_code", "code": code["auth_code"], "client_id": client}
        self._token = self._send("POST", "/auth/token", urllib.parse.urlencode(form).encode())["access_token"]
        asked = {"type": "auth/long_lived_access_token", "client_name": _CLIENT_NAME, "lifespan": 1}
        self._token = self.ask(asked)

    def _add_mqtt(self) -> None:
        flows = "/api/config/config_entries/flow"
        flow = self._request("POST", flows, {"handler": "mqtt"})
        broker = {"broker": "127.0.0.1", "port": self._broker}
        done = self._request("POST", f"{flows}/{flow['flow_id']}", broker)
        assert done["type"] == "create_entry", done

    def _request(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  JSON
        return self._send(method, path, json.dumps(body).encode() if body is not None else None, "application/json")

    def _send(self, method: str, path: str, body: bytes | None, kind: str = "application/x-www-form-urlencoded") -> Any:  # noqa: ANN401  JSON
        headers = {"Content-Type": kind, "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self._url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
