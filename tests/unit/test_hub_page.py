"""The hub's page, without a browser: whom it is served to, what a request may be, and how much of the past is kept."""

from __future__ import annotations

import http.client
import json
import logging
import math
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from threading import Event, Semaphore

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import ConfigError
from edged.base.web import server as web_server
from edged.hub.page.server import Page
from edged.hub.sinks.history import MOST_POINTS, SPAN, STEP, History, Point
from support.waiting import wait_until

TOKEN = "correct horse battery staple"
FILES = ["/", "/page.css", "/boards.css", "/page.js", "/boards.js", "/chart.js", "/tables.js", "/words.js"]
NOW = 1_800_000_000.0


class Answer:
    """What came back for one request."""

    def __init__(self, raw: http.client.HTTPResponse) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.body = raw.read()


def ask(page: Page, path: str = "/", method: str = "GET", *, peer: str = "127.0.0.1", **headers: str) -> Answer:
    port = port_of(page)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(peer, 0))) as connection:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return Answer(connection.getresponse())


def ask_raw(page: Page, request: bytes) -> bytes:
    """Send bytes, and return all that is answered until the page hangs up."""
    with socket.create_connection(("127.0.0.1", port_of(page)), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def port_of(page: Page) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


def data() -> bytes:
    return b'{"hub": "home"}'


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with closing(Page("127.0.0.1:0", None, data, History())) as page:
        yield page


@pytest.fixture(scope="module")
def closed_page() -> Iterator[Page]:
    """One that wants a token."""
    with closing(Page("127.0.0.1:0", TOKEN, data, History())) as page:
        yield page


# --- what is served --------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
def test_files_are_served_with_headers_that_let_a_browser_do_little(page: Page, path: str) -> None:
    answer = ask(page, path)
    assert answer.status == 200
    assert answer.body
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Server"] == "edged"


def test_no_file_names_another_host(page: Page) -> None:
    """What the page needs comes from the hub, also where there is no way to anywhere else."""
    for path in FILES:
        content = ask(page, path).body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http:" not in content
        assert b"https:" not in content
        assert b"innerHTML" not in content


def test_a_file_that_is_known_is_not_sent_again(page: Page) -> None:
    tag = ask(page, "/page.css").headers["ETag"]
    for known in (tag, f'"other", W/{tag}'):
        answer = ask(page, "/page.css", If_None_Match=known)
        assert answer.status == 304
        assert answer.body == b""
    assert ask(page, "/page.js", If_None_Match=tag).status == 200


def test_data_holds_the_snapshot_and_the_history_since_a_time() -> None:
    history = History()
    now = time.time()
    history.note("press", "c1", now - 100, 0.25, "worn")
    history.note("press", "c1", now, 0.5, None)
    with closing(Page("127.0.0.1:0", None, data, history)) as page:
        answer = ask(page, "/data.json")
        assert answer.headers["Cache-Control"] == "no-store"
        shown = json.loads(answer.body)
        assert shown["hub"] == {"hub": "home"}
        assert shown["now"] == pytest.approx(now, abs=60)
        old, new = shown["history"]["press"]["c1"]
        assert old == [pytest.approx(now - 100, abs=0.1), 0.25, "worn"]
        assert json.loads(ask(page, f"/data.json?since={now - 50}").body)["history"] == {"press": {"c1": [new]}}


@pytest.mark.parametrize("since", ["", "x", "nan", "inf", "-1e999"])
def test_a_time_that_is_none_is_refused(page: Page, since: str) -> None:
    assert ask(page, f"/data.json?since={since}&since={since}x").status == 400
    assert ask(page, f"/data.json?since={since or 'no'}").status == 400


@pytest.mark.parametrize("path", ["/", "/data.json", "/none"])
def test_head_answers_without_a_body(page: Page, path: str) -> None:
    head, get = ask(page, path, "HEAD"), ask(page, path)
    assert head.status == get.status
    assert head.body == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
def test_it_can_only_be_read(page: Page, method: str) -> None:
    answer = ask(page, "/", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/../page.css",
        "/%2e%2e/page.css",
        "/..%2fpage.css",
        "/%70age.css",
        "/page.css/",
        "/page.css%00",
        "/page.html",
        "/server.py",
        "/__init__.py",
        "/.//page.css",
        "/\\page.css",
        "page.css",
        "http://localhost/page.css",
        "/data.json/",
        "*",
    ],
)
def test_other_paths_lead_nowhere(page: Page, path: str) -> None:
    answer = ask(page, path)
    assert answer.status == 404
    assert answer.body == b"404 Not Found\n"


def test_a_failure_leaks_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fails = True

    def fail() -> bytes:
        if fails:
            raise RuntimeError("secret")
        return b"{}"

    with closing(Page("127.0.0.1:0", None, fail, History())) as page, caplog.at_level(logging.ERROR):
        for _ in range(3):
            answer = ask(page, "/data.json")
            assert answer.status == 500
            assert answer.body == b"500 Internal Server Error\n"
        assert len(caplog.records) == 1
        fails = False
        assert ask(page, "/data.json").status == 200


def test_requests_are_not_logged(
    page: Page, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    ask(page, "/")
    ask(page, "/none", "POST")
    ask_raw(page, b"nonsense\r\n\r\n")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# --- whom it is served to --------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "LocalHost:8099", "127.0.0.1", "127.0.0.1:8099", "[::1]:8099"]
)
def test_this_machine_is_served_by_its_own_names(page: Page, host: str) -> None:
    """At any port: a tunnel may begin at another one."""
    assert ask(page, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8099",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "localhost.",
    ],
)
def test_rebound_name_is_refused(page: Page, host: str) -> None:
    """A web page elsewhere whose name resolves to this machine must not read along."""
    for path in ("/", "/data.json", "/page.js"):
        answer = ask(page, path, Host=host)
        assert answer.status == 421
        assert b"home" not in answer.body


@pytest.mark.parametrize(
    "lines",
    [b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host:\r\n", b"Host: a:b:c\r\n", b"Host: localhost, x\r\n"],
)
def test_request_without_one_clear_host_is_refused(page: Page, lines: bytes) -> None:
    answer = ask_raw(page, b"GET /data.json HTTP/1.1\r\n" + lines + b"\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 "))
    assert b"home" not in answer


@pytest.mark.parametrize("path", [*FILES, "/data.json", "/none"])
def test_without_the_token_nothing_is_served(closed_page: Page, path: str) -> None:
    for headers in ({}, {"Cookie": "edged-hub-0="}, {"Cookie": f"edged-hub-0={TOKEN}"}, {"Authorization": TOKEN}):
        answer = ask(closed_page, path, **headers)
        assert answer.status == 401
        assert b"hub.toml" in answer.body
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "given", ["", "wrong", "correct%20horse", "%ff", f"{TOKEN.replace(' ', '+')}&token=x", "%C3%A4"]
)
def test_wrong_token_is_refused(closed_page: Page, given: str) -> None:
    answer = ask(closed_page, f"/?token={given}")
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers


def test_token_is_taken_once_and_then_kept_where_scripts_and_other_sites_do_not_see_it(closed_page: Page) -> None:
    answer = ask(closed_page, f"/?token={TOKEN.replace(' ', '%20')}")
    assert answer.status == 303
    assert answer.headers["Location"] == "./"  # also behind a proxy that serves it below a path
    kept, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} < set(attributes)
    assert TOKEN not in kept
    for path in [*FILES, "/data.json"]:
        assert ask(closed_page, path, Cookie=f"theme=dark; {kept}").status == 200
    assert ask(closed_page, "/", Cookie=kept[:-1]).status == 401
    with closing(Page("127.0.0.1:0", TOKEN, data, History())) as restarted:
        assert ask(restarted, "/", Cookie=kept).status == 200
    with closing(Page("127.0.0.1:0", TOKEN + "!", data, History())) as changed:
        assert ask(changed, "/", Cookie=kept).status == 401


def test_away_from_loopback_any_host_will_do_with_the_token() -> None:
    with closing(Page("0.0.0.0:0", TOKEN, data, History())) as page:
        assert ask(page, Host="hub.example").status == 401
        kept = ask(page, "/?token=" + TOKEN.replace(" ", "+"), Host="hub.example").headers["Set-Cookie"].split(";")[0]
        assert ask(page, "/data.json", Host="hub.example", Cookie=kept).status == 200


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_a_proxy_needs_no_token_and_nobody_else_is_served(address: str) -> None:
    """As Home Assistant's ingress: from one address come only those who have logged in there."""
    with closing(Page(address, None, data, History(), proxy="127.0.0.2")) as page:
        for path in [*FILES, "/data.json", "/none"]:
            assert ask(page, path).status == 403
            assert "frame-ancestors 'none'" in ask(page, path).headers["Content-Security-Policy"]
            proxied = ask(page, path, peer="127.0.0.2")
            assert proxied.status == (404 if path == "/none" else 200)
            assert "frame-ancestors 'self'" in proxied.headers["Content-Security-Policy"]
        for forged in ({"X_Forwarded_For": "127.0.0.2"}, {"X_Ingress_Path": "/api"}, {"Forwarded": "for=127.0.0.2"}):
            assert ask(page, **forged).status == 403
        # it is on this machine, as a browser that was led astray is
        assert ask(page, "/data.json", peer="127.0.0.2", Host="evil.example").status == 421


def test_beside_a_proxy_the_token_opens_the_page_to_others() -> None:
    with closing(Page("0.0.0.0:0", TOKEN, data, History(), proxy="127.0.0.2")) as page:
        assert ask(page, "/data.json", peer="127.0.0.2").status == 200
        assert ask(page, "/data.json").status == 401
        kept = ask(page, "/?token=" + TOKEN.replace(" ", "+")).headers["Set-Cookie"].split(";")[0]
        assert ask(page, "/data.json", Cookie=kept).status == 200


@pytest.mark.parametrize("proxy", ["", "localhost", "172.30.32.0/23", "172.30.32.2:8099"])
def test_proxy_that_is_no_address_is_refused(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"page\.proxy") as caught:
        Page("0.0.0.0:0", None, data, History(), proxy=proxy)
    assert caught.value.hint


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_away_from_loopback_a_token_is_wanted(address: str) -> None:
    with pytest.raises(ConfigError, match=r"page\.token is not set") as caught:
        Page(address, None, data, History())
    assert caught.value.hint


def test_token_that_can_be_guessed_is_refused() -> None:
    for token in ("", "short"):
        with pytest.raises(ConfigError, match="can be guessed"):
            Page("127.0.0.1:0", token, data, History())


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8099",
        "127.0.0.1",
        ":8099",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "::1:8099",
        "[::1]",
        "a b:1",
        "x" * 80 + ":1",
    ],
)
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"page\.address"):
        Page(address, None, data, History())


def test_address_that_is_taken_is_refused_and_free_again_after_the_page_closed() -> None:
    first = Page("127.0.0.1:0", None, data, History())
    address = first.url.removeprefix("http://").rstrip("/")
    with pytest.raises(ConfigError, match="in use"):
        Page(address, None, data, History())
    first.close()
    Page(address, None, data, History()).close()


# --- bounds ----------------------------------------------------------------------------------


def test_long_line_is_refused(page: Page) -> None:
    request = b"GET /?%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * web_server.MOST_LINE)
    assert ask_raw(page, request).startswith(b"HTTP/1.1 414 ")
    assert ask_raw(page, b"x" * 40_000).startswith(b"HTTP/1.1 414 ")


@pytest.mark.parametrize(
    "header", [b"X: %b\r\n" % (b"x" * web_server.MOST_HEAD), b"X: y\r\n" * 150, b"X: y\r\n" * 10_000]
)
def test_large_head_is_refused(page: Page, header: bytes) -> None:
    assert ask_raw(page, b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % header).startswith(b"HTTP/1.1 431 ")


def test_slow_request_is_ended(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that trickle in do not prolong it."""
    monkeypatch.setattr(web_server, "_READ", 0.2)
    with socket.create_connection(("127.0.0.1", port_of(page)), 10) as connection:
        connection.settimeout(0.05)
        answer, until = b"", time.monotonic() + 20
        while not answer:
            assert time.monotonic() < until
            with suppress(TimeoutError):
                connection.send(b"G")
                answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")


def idle(page: Page, peer: str, sent: bytes = b"GET") -> socket.socket:
    """Open a connection that says no more than ``sent``."""
    connection = socket.create_connection(("127.0.0.1", port_of(page)), 10, source_address=(peer, 0))
    with suppress(ConnectionError):  # the page may have ended it by now
        connection.sendall(sent)
    return connection


def answers(page: Page, peer: str) -> bool:
    try:
        return ask(page, peer=peer).status == 200
    except (ConnectionError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("number", [32, 100])
def test_slow_connections_of_one_peer_keep_nobody_out(sent: bytes, number: int) -> None:
    """Not even that peer: its oldest goes first."""
    with closing(Page("127.0.0.1:0", None, data, History())) as page, ExitStack() as open_:
        for _ in range(number):
            open_.enter_context(idle(page, "127.0.0.2", sent))
        assert answers(page, "127.0.0.1")
        assert answers(page, "127.0.0.2")
        assert len(page._server._open) <= web_server.MOST_CONNECTIONS


def test_slow_connections_of_many_peers_keep_nobody_out() -> None:
    with closing(Page("127.0.0.1:0", None, data, History())) as page, ExitStack() as open_:
        for number in range(100):
            open_.enter_context(idle(page, f"127.0.1.{number + 1}"))
        assert answers(page, "127.0.0.1")
        assert len(page._server._open) <= web_server.MOST_CONNECTIONS


def test_a_slow_peer_takes_none_of_anothers_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_READ", 120.0)
    with closing(Page("127.0.0.1:0", None, data, History())) as page, ExitStack() as open_:
        other = open_.enter_context(idle(page, "127.0.0.1"))
        for _ in range(100):
            open_.enter_context(idle(page, "127.0.0.2"))
        other.sendall(b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert other.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_requests_that_are_being_answered_are_bounded_and_not_cut_short() -> None:
    """What cannot be made room for is ended; no answer that has begun is."""
    gate, begun = Event(), Semaphore(0)

    def slowly() -> bytes:
        begun.release()
        gate.wait(20)
        return data()

    request = b"GET /data.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    peers = [f"127.0.0.{number % 2 + 2}" for number in range(web_server.MOST_CONNECTIONS)]
    with closing(Page("127.0.0.1:0", None, slowly, History())) as page, ExitStack() as open_:
        open_.callback(gate.set)
        busy = [open_.enter_context(idle(page, peer, request)) for peer in peers]
        for _ in busy:
            assert begun.acquire(timeout=20)
        assert not answers(page, "127.0.0.1")
        assert not answers(page, "127.0.0.2")
        gate.set()
        for connection in busy:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: answers(page, "127.0.0.1"))


@settings(max_examples=60)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda line, lines: b"\r\n".join([line, *lines, b"", b""]),
            st.from_regex(rb"(GET|HEAD|P?T)? ?/?[ -~]{0,20} ?(HTTP/[0-9]\.[0-9])?", fullmatch=True),
            st.lists(
                st.from_regex(
                    rb"(Host|Cookie|If-None-Match|Expect|Content-Length|X)?:? ?[\x01-\xff]{0,20}", fullmatch=True
                ),
                max_size=5,
            ),
        ),
    )
)
def test_nothing_that_is_sent_stops_it(page: Page, request_: bytes) -> None:
    try:
        answer = ask_raw(page, request_)
    except ConnectionError:
        answer = b""
    assert b"Traceback" not in answer
    assert b'"home"' not in answer or b"Host" in request_
    assert ask(page, "/data.json").status == 200


# --- the last hour ---------------------------------------------------------------------------

NOTES = st.lists(
    st.tuples(
        st.floats(0, 400).map(lambda step: round(step, 1)) | st.sampled_from([0.0, 0.1, 1.0, 10.0]),
        st.none() | st.floats(-1e6, 1e6),
        st.sampled_from(["a", "b", "c", None]),
    ),
    max_size=200,
)


def noted(history: History, notes: list[tuple[float, float | None, str | None]]) -> list[Point]:
    """Note what came in steps of seconds; return it with its times."""
    now, found = NOW, []
    for step, value, label in notes:
        now = round(now + step, 1)
        history.note("press", "c1", now, value, label)
        found.append((now, value, label))
    return found


def points_of(history: History, now: float, since: float = -math.inf) -> list[Point]:
    return history.shown(now, since).get("press", {}).get("c1", [])


@given(NOTES)
def test_of_each_bucket_the_newest_point_is_kept_and_the_newest_with_another_label(
    notes: list[tuple[float, float | None, str | None]],
) -> None:
    history = History()
    points = noted(history, notes)
    expected: list[Point] = []
    for number in sorted({point[0] // STEP for point in points}):
        bucket = [point for point in points if point[0] // STEP == number]
        others = [point for point in bucket if point[2] != bucket[-1][2]]
        expected += [*others[-1:], bucket[-1]]
    now = points[-1][0] if points else NOW
    oldest = now // STEP * STEP - SPAN + STEP
    expected = [point for point in expected if point[0] >= oldest]
    assert [(at, label) for at, _, label in points_of(history, now)] == [(at, label) for at, _, label in expected]
    assert [value for _, value, _ in points_of(history, now)] == [_rounded(value) for _, value, _ in expected]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


@settings(max_examples=20)
@given(st.integers(3, 120), st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_a_channel_never_exceeds_its_bound_and_keeps_the_whole_hour(step: int, labels: list[str]) -> None:
    history = History()
    for tick in range(0, 2 * int(SPAN) * 10, step):
        history.note("press", "c1", NOW + tick / 10, 0.5, labels[tick % len(labels)])
    now = NOW + 2 * SPAN
    points = points_of(history, now)
    assert len(points) <= MOST_POINTS
    assert points[0][0] <= now - SPAN + 3 * STEP
    assert [point[0] for point in points] == sorted(point[0] for point in points)


@given(st.lists(st.tuples(st.floats(), st.floats(), st.none() | st.text(max_size=3)), max_size=40))
def test_no_number_breaks_it(notes: list[tuple[float, float, str | None]]) -> None:
    history = History()
    for at, value, label in notes:
        history.note("press", "c1", at, value, label)
    points = points_of(history, 0.0)
    assert [point[0] for point in points] == sorted(point[0] for point in points)
    json.dumps(history.shown(0.0), allow_nan=False)


@given(NOTES, NOTES)
def test_new_points_put_in_the_place_of_those_since_a_bucket_make_up_the_whole(
    before: list[tuple[float, float | None, str | None]], after: list[tuple[float, float | None, str | None]]
) -> None:
    """It is what the page does: it asks since the bucket that it has seen last, and replaces what it knows from there on."""
    history = History()
    first = noted(history, before)
    now = first[-1][0] if first else NOW
    known = points_of(history, now)
    since = now // STEP * STEP
    for step, value, label in after:
        now = round(now + step, 1)
        history.note("press", "c1", now, value, label)
    merged = [point for point in known if point[0] < since] + points_of(history, now, since)
    whole = points_of(history, now)
    assert [point for point in merged if point[0] >= (whole[0][0] if whole else 0)] == whole


def test_when_the_clock_goes_back_what_lies_ahead_is_forgotten() -> None:
    history = History()
    for at in (NOW, NOW + 1000, NOW + 2000, NOW + 500):
        history.note("press", "c1", at, 1.0, None)
    assert [point[0] for point in points_of(history, NOW + 500)] == [NOW, NOW + 500]


def test_what_is_older_than_an_hour_is_not_shown() -> None:
    history = History()
    history.note("press", "c1", NOW, 1.0, None)
    assert points_of(history, NOW + SPAN - 1)
    assert history.shown(NOW + SPAN + 1) == {}


def test_the_place_that_was_silent_for_longest_gives_way() -> None:
    history = History(places=3)
    for channel in ("c1", "c2", "c3", "c1", "c4"):
        history.note("press", channel, NOW, 1.0, None)
    assert set(history.shown(NOW)["press"]) == {"c1", "c3", "c4"}


def test_a_board_that_is_forgotten_leaves_nothing() -> None:
    history = History()
    history.note("press", "c1", NOW, 1.0, None)
    history.note("saw", "c1", NOW, 1.0, None)
    history.forget("press")
    assert list(history.shown(NOW)) == ["saw"]
