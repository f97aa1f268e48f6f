"""A stream engine behind the hub: NATS takes its results over MQTT and keeps them as a stream, to be read again."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edged.broker import Broker
from support.broker import DURABLE, PlainBroker
from support.hub_process import HubProcess
from support.nats import Nats, cannot
from support.site import Site

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(cannot()), reason=cannot()),
]

COUNT = 20


class NatsClient:
    """As much of NATS's own protocol as it takes to ask JetStream something."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._file = self._socket.makefile("rwb")
        self._file.readline()
        self._file.write(b'CONNECT {"verbose":false}\r\nSUB answers 1\r\n')

    def ask(self, subject: str, question: object) -> dict[str, object]:
        """Return the answer to a request."""
        payload = json.dumps(question).encode()
        self._file.write(b"PUB %s answers %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        self._file.flush()
        while not (line := self._file.readline()).startswith(b"MSG "):
            assert line, "NATS hangs up"
        answer: dict[str, object] = json.loads(self._file.read(int(line.split()[-1])))
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_results_stand_in_a_stream_of_nats_and_are_read_again(tmp_path: Path, models: Path) -> None:
    for name in ("upstream", "site"):
        (tmp_path / name).mkdir()
    with np.load(models / "gearbox" / "golden.npz") as golden:
        windows = golden["raw_windows"].astype("<f4")
    with PlainBroker(tmp_path / "upstream", options=DURABLE) as upstream, Nats(tmp_path / "nats") as nats:
        found = re.search(r"^listen: 127\.0\.0\.1:(\d+)", (tmp_path / "nats" / "nats.conf").read_text(), re.MULTILINE)
        assert found is not None
        client = NatsClient(int(found[1]))
        made = client.ask("$JS.API.STREAM.CREATE.EDGED", {"name": "EDGED", "subjects": ["edged-hub.>"]})
        assert "error" not in made
        site = Site(tmp_path / "site", models, upstream.url)
        hub = HubProcess(tmp_path / "hub", upstream.url, local=nats.url)
        config = site.configure('format = "f32le"\neach = "window"\n')
        config.write_text(config.read_text().replace('"home.pub"', f'"{hub.state}/hub.pub"'))
        site.init()
        site.install(site.pack())
        hub.boards.joinpath("press-07.enrol").write_bytes((site.path / "board.enrol").read_bytes())
        sensor = Broker(site.options())
        with closing(hub), closing(sensor), site.daemon():
            hub.start()
            sensor.connect()
            for number in range(COUNT):
                sensor.publish(site.topic, windows[number].tobytes(), qos=1)
            until = time.monotonic() + 60
            results: dict[int, dict[str, object]] = {}
            while len(results) < COUNT and time.monotonic() < until:
                sensor.run_once(0.05)
                state = client.ask("$JS.API.STREAM.INFO.EDGED", {})["state"]
                results = _results(client, state["last_seq"])  # type: ignore[index]
        client.close()
    assert len(results) == COUNT
    assert {one["label"] for one in results.values()} <= {"healthy", "broken"}


def _results(client: NatsClient, last: int) -> dict[int, dict[str, object]]:
    """Return the results of the stream, by count."""
    found: dict[int, dict[str, object]] = {}
    for number in range(1, last + 1):
        message = client.ask("$JS.API.STREAM.MSG.GET.EDGED", {"seq": number}).get("message")
        if isinstance(message, dict) and message["subject"] == "edged-hub.press-07.c1":
            result = json.loads(base64.b64decode(message["data"]))
            found[result["count"]] = result
    return found
