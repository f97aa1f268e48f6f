"""The hub's page in a real browser: what it shows, in which light, and that nothing a board says becomes markup."""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from edged.hub.page.server import Page
from edged.hub.sinks.history import History
from support.ports import quiet_port
from support.proxy import Nginx, nginx

_SECONDS = 20
_LONGEST = 900
"""Seconds after which a browser ends by itself, should the test be killed."""
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
DESKTOP, PHONE = (1200, 900), (360, 780)


class Browser:
    """Headless Chromium, driven over WebDriver. Give it any address: the page of a real hub is one.

    :param size: of its window, in CSS pixels.
    """

    def __init__(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        if not (shutil.which("chromium") and shutil.which("chromedriver")):
            pytest.skip("no chromium with chromedriver here: apt-get install chromium chromium-driver")
        command = ["timeout", str(_LONGEST), "chromedriver", "--port=0"]
        self._chromium = Path("/proc/none")
        self._url = "http://127.0.0.1:9"  # until it is known
        self._folder = TemporaryDirectory(prefix="edged-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": self._folder.name},
        )
        try:
            self._begin()
            self.set_look(size, dark=dark)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        assert self._process.stdout is not None
        port = next(line.rstrip(".\n").split()[-1] for line in self._process.stdout if "successfully on port" in line)
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        arguments.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        self._url = f"http://127.0.0.1:{port}/session"
        session = self._call("", {"capabilities": {"alwaysMatch": options}})
        self._chromium = Path(f"/proc/{session['capabilities']['goog:processID']}")
        self._url += f"/{session['sessionId']}"

    def _call(self, path: str, content: object = None, method: str = "POST") -> Any:  # noqa: ANN401  whatever JSON holds
        content = json.dumps(content).encode() if content else None
        request = urllib.request.Request(f"{self._url}{path}", content, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def tell(self, command: str, **parameters: object) -> Any:  # noqa: ANN401  whatever JSON holds
        """Send a command of Chromium's own protocol."""
        return self._call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def set_look(self, size: tuple[int, int], *, dark: bool) -> None:
        """Take the size of a window or of a phone, by day or in the dark."""
        is_phone = size == PHONE
        look = {"width": size[0], "height": size[1], "deviceScaleFactor": 1 + is_phone, "mobile": is_phone}
        self.tell("Emulation.setDeviceMetricsOverride", **look)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to an address."""
        self._call("/url", {"url": url})

    def enter_frame(self) -> None:
        """Go on within the first frame of the page."""
        self._call("/frame", {"id": 0})

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401  whatever JSON holds
        """Return what JavaScript returns."""
        return self._call("/execute/sync", {"script": script, "args": arguments})

    def wait(self, script: str, *arguments: object) -> Any:  # noqa: ANN401  whatever JSON holds
        """Wait until an expression holds, and return its value."""
        until = time.monotonic() + _SECONDS
        while not (found := self.run(f"return {script}", *arguments)):
            assert time.monotonic() < until, f"never: {script}\n{self.text}"
            time.sleep(0.05)
        return found

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        text = {"text": "\r"} if key == "Enter" else {}
        self.tell("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        self.tell("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("return document.body.innerText"))

    def complaints(self) -> list[str]:
        """Return what the console holds since it was asked last, violated policies included."""
        return [str(entry["message"]) for entry in self._call("/se/log", {"type": "browser"})]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save a PNG, of the whole page or of what the window shows."""
        shown = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shown["data"]))

    def close(self) -> None:
        """End it, with all that it started."""
        with suppress(OSError):
            self._call("", method="DELETE")
        until = time.monotonic() + _SECONDS
        while self._chromium.exists() and time.monotonic() < until:
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()


def _at(now: float, found: dict[str, Any]) -> dict[str, Any]:
    times = {"time", "started", "last_seen"} & found.keys()
    return found | {name: now + found[name] for name in times}


class MadeUp:
    """A hub that is not there: a snapshot to change, a history, and the page that shows them.

    Three boards: ``press-1`` is well, ``press-2`` is silent, ``press-3`` has a version on trial.
    """

    def __init__(self) -> None:
        self.history = History()
        now = time.time()
        self.snapshot = json.loads(SNAPSHOT, object_hook=lambda found: _at(now, found))
        self._note_hour(now)
        self.snapshot["strangers"]["press-9"] = now - 4000
        self.age = 0.0  # of the snapshot, in seconds
        self.page = self.serve("127.0.0.1:0")

    def serve(self, address: str, token: str | None = None, proxy: str | None = None) -> Page:
        """Serve it at an address."""
        self.page = Page(address, token, self._data, self.history, proxy)
        return self.page

    def _data(self) -> bytes:
        return json.dumps({**self.snapshot, "time": time.time() - self.age}).encode()

    def board(self, device: str) -> dict[str, Any]:
        """Return what the snapshot says of a board, to change it."""
        return next(board for board in self.snapshot["boards"] if board["device"] == device)

    def _note_hour(self, now: float) -> None:
        """An hour of a gearbox that wears, of a temperature that swings, and of noises that are mostly none."""
        chance = random.Random(6)
        for second in range(-3590, 1, 10):
            at = now + second
            worn = second > -700 or -2100 < second < -1900
            score = chance.gauss(0.86, 0.04) if worn else chance.gauss(0.96, 0.015)
            self.history.note("press-1", "c1", at, min(score, 0.999), "worn" if worn else "normal")
            heat = 68 + 4 * math.sin(second / 500) + chance.gauss(0, 0.25)
            self.history.note("press-1", "c2", at, heat, None)
            if second < -750:
                alarm = -2500 < second < -2300
                self.history.note(
                    "press-2", "c1", at, chance.gauss(1.9 if alarm else 0.4, 0.06), "odd" if alarm else "normal"
                )
            heard = chance.choices(["silence", "speech", "knock"], [14, 3, 1])[0] if second else "speech"
            self.history.note("press-3", "keywords", at, chance.uniform(0.7, 0.99), heard)


SNAPSHOT = """
{"version": "0.6.0", "time": 0, "started": -264000, "hub": "home",
 "upstreams": [{"name": "plant", "url": "mqtts://broker.example:8883", "state": "connected to broker.example:8883, MQTT 5 over TLS 1.3", "up": true}],
 "local": {"url": "mqtt://127.0.0.1:1883", "state": "connected to 127.0.0.1:1883, MQTT 5", "up": true, "queued": 0},
 "counts": {"opened": 24372, "published": 24390, "repeated": 2, "dropped": 0, "held": 0, "refused": {"DecryptionError": 1, "ReplayError": 5, "UnknownSignerError": 2}},
 "refused_lately": [
  {"time": -4000, "topic": "edged/press-9/announce", "kind": "UnknownSignerError", "message": "press-9 announces with a key that is not enrolled"},
  {"time": -1800, "topic": "edged/press-2/c1", "kind": "DecryptionError", "message": "the tag does not hold, for the key and the topic at hand"},
  {"time": -300, "topic": "edged/press-2/c1", "kind": "ReplayError", "message": "count 1041 of epoch 1763700000 was accepted before"}],
 "strangers": {}, "problems": {},
 "boards": [
  {"device": "press-1", "fingerprint": "3f1c88d0", "state": "online", "last_seen": -3, "edged": "0.6.0", "epoch": 1763700000, "opened": 16248, "repeated": 0, "refused": {},
   "report": {"time": -3, "uptime": 264000, "messages": 81240, "results": 16248, "rate": 4.167, "refused": 0, "repeated": 2, "dropped": 0, "lost": 0, "waiting": 0, "stored": 0,
    "set_aside": 0, "error": "", "models": {}, "degraded": [], "temperature": 48.2, "throttled": []},
   "models": [
    {"channel": "c1", "model": "gearbox", "name": "gearbox", "version": 7, "installed": 7, "trial": false, "kind": "classifier", "labels": ["normal", "worn", "broken"], "unit": "",
     "results": [{"place": "c1", "source": "", "name": "gearbox", "last": {"device": "press-1", "channel": "c1", "time": 0, "late": false, "label": "worn", "score": 0.8712}}]},
    {"channel": "c2", "model": "bearing-heat", "name": "Bearing heat", "version": 3, "installed": 3, "trial": false, "kind": "regressor", "labels": [], "unit": "°C",
     "results": [{"place": "c2", "source": "", "name": "Bearing heat", "last": {"device": "press-1", "channel": "c2", "time": 0, "late": false, "value": 68.04}}]}]},
  {"device": "press-2", "fingerprint": "91ab7e02", "state": "silent", "last_seen": -752, "edged": "0.6.0", "epoch": 1763700000, "opened": 8110, "repeated": 2, "refused": {"ReplayError": 5},
   "report": {"time": -752, "uptime": 264000, "messages": 81240, "results": 8124, "rate": 0, "refused": 0, "repeated": 2, "dropped": 3, "lost": 0, "waiting": 214, "stored": 66340,
    "set_aside": 0, "error": "broker: connection lost: [Errno 104] Connection reset by peer", "models": {},
    "degraded": ["input vibration: nothing came for 300 s", "clock: not synchronised"], "temperature": 71.0, "throttled": ["under-voltage"]},
   "models": [
    {"channel": "c1", "model": "gearbox-anomaly", "name": "gearbox-anomaly", "version": 11, "installed": 12, "trial": false, "kind": "anomaly", "labels": ["normal", "odd"], "unit": "",
     "results": [{"place": "c1", "source": "", "name": "gearbox-anomaly", "last": {"device": "press-2", "channel": "c1", "time": -760, "late": false, "label": "normal", "score": 0.41}}]}]},
  {"device": "press-3", "fingerprint": "5d20c4e7", "state": "online", "last_seen": -8, "edged": "0.6.0", "epoch": 1763700000, "opened": 14, "repeated": 0, "refused": {},
   "report": {"time": -8, "uptime": 5200, "messages": 2600, "results": 14, "rate": 0.5, "refused": 0, "repeated": 0, "dropped": 0, "lost": 0, "waiting": 0, "stored": 0,
    "set_aside": 0, "error": "", "models": {}, "degraded": [], "temperature": null, "throttled": []},
   "models": [
    {"channel": "keywords", "model": "keywords", "name": "keywords", "version": 8, "installed": 8, "trial": true, "kind": "classifier", "labels": ["silence", "speech", "knock"], "unit": "",
     "results": [{"place": "keywords", "source": "", "name": "keywords", "last": {"device": "press-3", "channel": "keywords", "time": 0, "late": false, "label": "speech", "score": 0.93}}]},
    {"channel": "c2", "model": "gearbox", "name": "gearbox", "version": 6, "installed": 7, "trial": false, "kind": "classifier", "labels": ["normal", "worn", "broken"], "unit": "", "results": [{"place": "c2", "source": "", "name": "gearbox", "last": null}]}]}]}
"""
"""What a hub says of itself; its times are seconds from now."""


SHOWN = "document.querySelector('main')?.hidden === false && document.getElementById('link').dataset.kind === 'good'"
LOOKS = {
    "hub-page": (DESKTOP, False),
    "hub-page-dark": (DESKTOP, True),
    "hub-page-phone": (PHONE, False),
    "hub-page-dark-phone": (PHONE, True),
}


@pytest.fixture(scope="module")
def started_browser() -> Iterator[Browser]:
    with closing(Browser()) as browser:
        yield browser


@pytest.fixture
def browser(started_browser: Browser) -> Iterator[Browser]:
    """A window of the usual size; the console is empty at first, and must be at the end."""
    started_browser.set_look(DESKTOP, dark=False)
    started_browser.open("about:blank")
    started_browser.complaints()
    yield started_browser
    assert started_browser.complaints() == []


@pytest.fixture
def hub() -> Iterator[MadeUp]:
    made_up = MadeUp()
    yield made_up
    made_up.page.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures are put: a folder that is named, for those who want to look."""
    return Path(os.environ.get("EDGED_PICTURES", tmp_path))


def open_page(browser: Browser, hub: MadeUp) -> None:
    browser.open(hub.page.url)
    browser.wait(SHOWN)


def fits(browser: Browser) -> bool:
    """Whether nothing is wider than the window."""
    return bool(browser.run("return document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("look", LOOKS)
def test_it_is_readable_by_day_in_the_dark_and_on_a_phone(
    browser: Browser, hub: MadeUp, pictures: Path, look: str
) -> None:
    size, dark = LOOKS[look]
    browser.set_look(size, dark=dark)
    open_page(browser, hub)
    browser.picture(pictures / f"{look}.png", whole=size == DESKTOP)
    assert fits(browser)
    text = browser.text
    for said in ("worn", "68.04 °C", "silent", "seen 12 min ago", "on trial", "11 → 12 waits", "input vibration"):
        assert said in text, said
    contrasts = browser.run(CONTRASTS)
    assert min(contrasts["text"].values()) >= 4.5, contrasts
    assert min(contrasts["bands"].values()) >= 3, contrasts
    assert (contrasts["ground"] < 0.2) == dark


CONTRASTS = """
const style = getComputedStyle(document.documentElement);
const brightness = (name) => {
  const parts = style.getPropertyValue(name).trim().slice(1).match(/../g).map((part) => parseInt(part, 16) / 255);
  const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [brightness(one), brightness(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const found = { text: {}, bands: {}, ground: brightness("--ground") };
for (const ground of ["--ground", "--panel", "--warn-ground"])
  for (const ink of ["--ink", "--quiet", "--accent", "--good", "--warn", "--bad"])
    found.text[ink + ground] = contrast(ink, ground);
for (let number = 0; number < 8; number += 1) found.bands[number] = contrast(`--colour-${number}`, "--panel");
return found;
"""


def test_it_works_within_the_page_of_a_proxy_that_serves_it_below_a_path(
    browser: Browser, hub: MadeUp, tmp_path: Path
) -> None:
    """As Home Assistant's ingress does: /api/hassio_ingress/SECRET/ is taken off, and the rest is asked of the hub."""
    if nginx() is None:
        pytest.skip("no nginx here: apt-get install nginx")
    port = quiet_port()
    with closing(hub.serve("0.0.0.0:0", proxy="127.0.0.2")) as page:
        behind = page.url.rstrip("/").rpartition(":")[2]
        with Nginx(tmp_path, port, INGRESS.format(port=port, behind=behind)) as proxy:
            browser.open(f"http://127.0.0.1:{port}/")
            browser.enter_frame()
            browser.wait(SHOWN)
            assert "68.04 °C" in browser.text
            asked = {request.partition("?")[0] for status, _, request in proxy.log if status == 200}
            below = "GET /api/hassio_ingress/secret/"
            assert {"GET /", below, f"{below}page.css", f"{below}words.js", f"{below}data.json"} <= asked
            assert asked == {"GET /"} | {one for one in asked if one.startswith(below)}


INGRESS = """
server {{
    listen 127.0.0.1:{port};
    location = / {{
        default_type text/html;
        return 200 '<!doctype html><link rel="icon" href="data:,"><iframe src="/api/hassio_ingress/secret/"></iframe>';
    }}
    location /api/hassio_ingress/secret/ {{
        proxy_bind 127.0.0.2;
        proxy_pass http://127.0.0.1:{behind}/;
    }}
}}
"""


def test_states_differ_in_word_shape_and_colour(browser: Browser, hub: MadeUp) -> None:
    hub.board("press-1")["state"] = "offline"
    hub.snapshot["boards"].append(
        {**hub.board("press-3"), "device": "press-4", "state": "unknown", "last_seen": None, "report": None}
    )
    open_page(browser, hub)
    states = browser.run("""
        return [...document.querySelectorAll(".board")].map((board) => [
          board.querySelector(".device").textContent,
          board.querySelector(".word").textContent,
          board.querySelector(".mark path").getAttribute("d"),
          getComputedStyle(board.querySelector(".mark")).fill,
        ])""")
    assert [state[:2] for state in states] == [
        ["press-1", "offline"],  # the troubled ones first
        ["press-2", "silent"],
        ["press-4", "unknown"],
        ["press-3", "online"],
    ]
    assert len({state[2] for state in states}) == len({state[3] for state in states}) == 4
    assert "never seen" in browser.text


def test_board_that_is_online_and_complains_counts_as_troubled(browser: Browser, hub: MadeUp) -> None:
    hub.board("press-3")["report"]["throttled"] = ["under-voltage"]
    open_page(browser, hub)
    assert "3 boards: 1 silent, 1 degraded, 1 online" in browser.text
    assert browser.run("return document.title") == "(2) home \u2013 edged hub"


def test_versions_and_refusals_stand_in_tables(browser: Browser, hub: MadeUp) -> None:
    open_page(browser, hub)
    rows = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    assert browser.run(rows, "#versions") == [
        ["gearbox", "7", "press-1", "\u2013"],
        ["gearbox", "6", "press-3", "7 waits"],
        ["gearbox-anomaly", "11", "press-2", "12 waits"],
        ["keywords", "8", "press-3", "on trial"],
    ]
    refused = browser.run(rows, "#refused")
    assert [row[:2] for row in refused] == [["ReplayError", "5"], ["UnknownSignerError", "2"], ["DecryptionError", "1"]]
    assert refused[0][3:] == ["edged/press-2/c1", "count 1041 of epoch 1763700000 was accepted before"]
    hub.snapshot["counts"]["refused"], hub.snapshot["refused_lately"] = {}, []
    hub.snapshot["boards"] = hub.snapshot["boards"][:1]
    browser.wait(
        "!document.querySelector('#refused .none').hidden && !document.querySelector('#versions .none').hidden"
    )
    assert browser.run("return document.querySelectorAll('table:not([hidden])').length") == 0


def test_each_source_of_a_model_has_a_name_an_answer_and_a_chart(browser: Browser, hub: MadeUp) -> None:
    model = hub.board("press-1")["models"][0]
    last = model["results"][0]["last"]
    model["results"] = [
        {"place": f"c1/source/{number}", "source": f"{number}", "name": f"gearbox Press {number}", "last": last}
        for number in (1, 2)
    ]
    hub.history.note("press-1", "c1/source/2", time.time(), 0.9, "worn")
    open_page(browser, hub)
    shown = "[...document.querySelectorAll('.model')].map((one) => [one.querySelector('h4').textContent, one.querySelector('.chart').hidden])"
    assert [one for one in browser.run(f"return {shown}") if "Press" in one[0]] == [
        ["gearbox Press 1", True],
        ["gearbox Press 2", False],
    ]


def test_what_boards_and_brokers_say_is_never_markup(browser: Browser, hub: MadeUp) -> None:
    """Labels come from models, errors and topics from anybody."""
    board, model = hub.board("press-1"), hub.board("press-1")["models"][0]
    hub.history.note("press-1", "c1", time.time(), 0.9, HOSTILE)
    model["results"][0]["last"]["label"] = model["results"][0]["name"] = model["labels"][2] = HOSTILE
    hub.board("press-1")["models"][1]["unit"] = HOSTILE
    board["report"].update(error=HOSTILE, degraded=[HOSTILE], throttled=[HOSTILE])
    hub.snapshot["refused_lately"].append({"time": time.time(), "topic": HOSTILE, "kind": HOSTILE, "message": HOSTILE})
    hub.snapshot["counts"]["refused"][HOSTILE] = 1
    hub.snapshot["strangers"][HOSTILE] = time.time()
    hub.snapshot["problems"] = {HOSTILE: HOSTILE}
    hub.snapshot["hub"] = hub.snapshot["version"] = HOSTILE
    hub.snapshot["upstreams"][0].update(name=HOSTILE, state=HOSTILE, up=False)
    for size in (DESKTOP, PHONE):
        browser.set_look(size, dark=False)
        open_page(browser, hub)
        assert fits(browser)
        assert browser.text.count(HOSTILE) >= 12
        assert browser.run("return document.querySelectorAll('img, body script').length") == 0
        assert browser.run("return document.title").startswith("(2) <img")


def test_changes_are_made_in_place_and_states_are_told(browser: Browser, hub: MadeUp) -> None:
    """A page that is built anew loses the reader's place, the focus, and memory."""
    open_page(browser, hub)
    browser.run("for (const node of document.querySelectorAll('main *')) node.known = true")
    assert browser.run("return document.getElementById('news').textContent") == ""
    hub.board("press-1")["models"][0]["results"][0]["last"].update(label="broken", score=0.5)
    hub.history.note("press-1", "c1", time.time() + 0.1, 0.5, "broken")
    hub.board("press-2")["state"] = "online"
    hub.board("press-2")["report"].update(degraded=[], throttled=[])
    browser.wait("document.body.innerText.includes('broken')")
    assert browser.run("return document.getElementById('news').textContent") == "press-2 is online."
    new = browser.run(
        "return [...document.querySelectorAll('main *')].filter((node) => !node.known).map((node) => node.textContent)"
    )
    assert set(new) <= {"", "broken"}  # an entry of a legend


def test_focus_stays_when_boards_change_places(browser: Browser, hub: MadeUp) -> None:
    open_page(browser, hub)
    browser.run("[...document.querySelectorAll('.fold')].at(-1).focus()")
    hub.board("press-3")["state"] = "offline"
    browser.wait("document.querySelector('.device').textContent === 'press-3'")
    assert browser.run("return document.activeElement.textContent") == "press-3"


def test_chart_is_read_with_pointer_and_keys(browser: Browser, hub: MadeUp) -> None:
    open_page(browser, hub)
    left, top = browser.run("""
        const plot = [...document.querySelectorAll(".model")].find((model) => model.textContent.includes("Bearing heat")).querySelector(".plot");
        plot.scrollIntoView();
        plot.id = "heat";
        const box = plot.getBoundingClientRect();
        return [box.left + box.width / 2, box.top + 20]""")
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)
    readout = "document.querySelector('#heat').closest('figure').querySelector('.readout').textContent"
    assert browser.wait(readout).endswith(" °C")
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.wait(f"{readout} === ''")
    browser.run("document.querySelector('#heat').focus()")
    said = "document.querySelector('#heat').getAttribute('aria-valuetext')"
    newest = browser.wait(said)
    for key in ("ArrowLeft", "Home", "End"):
        before = browser.run(f"return {said}")
        browser.press(key)
        browser.wait(f"{said} !== arguments[0]", before)
        assert browser.run(f"return {readout}") == browser.run(f"return {said}")
    assert browser.run(f"return {said}") == newest


def test_without_readings_for_long_the_line_is_parted(browser: Browser, hub: MadeUp) -> None:
    hub.history.forget("press-1")
    now = time.time()
    for second in [*range(-3000, -2000, 10), *range(-1000, 0, 10)]:
        hub.history.note("press-1", "c2", now + second, 20.0, None)
    open_page(browser, hub)
    lines = browser.run("return [...document.querySelectorAll('.line')].map((line) => line.getAttribute('d') ?? '')")
    assert max(line.count("M") for line in lines) == 2


@pytest.mark.slow
def test_away_hub_is_told_and_found_again(browser: Browser, hub: MadeUp) -> None:
    open_page(browser, hub)
    address = hub.page.url.removeprefix("http://").rstrip("/")
    hub.page.close()
    browser.wait("/^not reached since [0-9:]{8}$/.test(document.getElementById('link').textContent)")
    assert "worn" in browser.text  # what was known stays
    hub.serve(address)
    browser.wait(SHOWN)
    assert all("ERR_CONNECTION_REFUSED" in complaint for complaint in browser.complaints())


def test_old_snapshot_is_not_shown_as_if_it_were_new(browser: Browser, hub: MadeUp) -> None:
    """Nothing is prepared while nobody looks: the first snapshot may be hours old."""
    hub.age = 3600
    browser.open(hub.page.url)
    browser.wait("document.getElementById('link').textContent.startsWith('the hub has said nothing new since')")
    hub.age = 0
    browser.wait(SHOWN)


def test_hundred_boards_are_rows_that_unfold(browser: Browser, hub: MadeUp, pictures: Path) -> None:
    well, silent = hub.board("press-1"), hub.board("press-2")
    hub.snapshot["boards"] = [
        {**(silent if number == 70 else well), "device": f"press-{number}"} for number in range(1, 101)
    ]
    for size in (DESKTOP, PHONE):
        browser.set_look(size, dark=False)
        open_page(browser, hub)
        assert fits(browser)
        rows = browser.run(
            "return [...document.querySelectorAll('.board')].map((board) => [board.querySelector('.device').textContent, board.offsetHeight])"
        )
        assert [name for name, _ in rows[:4]] == ["press-70", "press-1", "press-2", "press-3"]
        assert max(height for _, height in rows) < 80
        browser.picture(pictures / f"hub-page-many-{size[0]}.png", whole=False)
    browser.run("document.querySelectorAll('.fold')[0].focus()")
    browser.press("Enter")
    browser.wait("document.querySelector('.board .body').offsetHeight > 100")
    assert browser.run("return document.querySelector('.fold').getAttribute('aria-expanded')") == "true"
    browser.run("document.querySelector('#filter-text').focus()")
    browser.tell("Input.insertText", text="NORMAL press")
    browser.wait("document.getElementById('filter-count').textContent === '1 of 100'")
    assert (
        browser.run("return [...document.querySelectorAll('.board')].filter((board) => board.offsetHeight).length") == 1
    )


def test_without_scripts_it_says_what_is_needed(browser: Browser, hub: MadeUp) -> None:
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(hub.page.url)
        assert (
            "This page needs JavaScript"
            in browser.tell("DOM.getOuterHTML", nodeId=browser.tell("DOM.getDocument")["root"]["nodeId"])["outerHTML"]
        )
        spoken = [
            node["name"]["value"] for node in browser.tell("Accessibility.getFullAXTree")["nodes"] if "name" in node
        ]
        assert any("This page needs JavaScript" in name for name in spoken)
    finally:
        browser.tell("Emulation.setScriptExecutionDisabled", value=False)


def test_token_leaves_the_address_and_is_out_of_reach_for_scripts(browser: Browser, hub: MadeUp) -> None:
    hub.page.close()
    hub.serve("127.0.0.1:0", "a token of some length")
    browser.open(hub.page.url)
    assert "wants the hub's token" in browser.text
    assert any("401" in complaint for complaint in browser.complaints())
    browser.open(f"{hub.page.url}?token=a+token+of+some+length")
    browser.wait(SHOWN)
    assert browser.run("return [location.search, document.cookie]") == ["", ""]
    # Chromium asks for an icon of the page that it was refused, and may hear only now that it does not get that either.
    assert all("favicon.ico" in complaint for complaint in browser.complaints())


def test_screen_readers_find_landmarks_names_and_headers(browser: Browser, hub: MadeUp) -> None:
    browser.set_look(PHONE, dark=False)  # where tables are laid out as something else
    open_page(browser, hub)
    nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
    spoken = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    roles = {role for role, _ in spoken}
    assert {"banner", "main", "contentinfo", "region", "heading", "table", "rowheader", "cell", "slider"} <= roles
    assert all(
        name for role, name in spoken if role in {"button", "slider", "table", "region", "textbox", "searchbox", "link"}
    )
    assert ("button", "press-2") in spoken
    live = browser.run(
        "return [...document.querySelectorAll('[aria-live], [role=status], [role=alert], output')].map((node) => node.id)"
    )
    assert live == ["news"]
