"""The words of `edged federate status` for an aggregator that a board cannot reach."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from edged.federated import conditions
from edged.federated.conditions import unreachable
from support.ports import quiet_port


@contextmanager
def listening(context: ssl.SSLContext | None) -> Iterator[str]:
    """Serve one handshake, or a greeting without one; yield the address."""

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                if context is None:
                    connection.sendall(b"220 mail.example ESMTP\r\n")
                    connection.recv(4096)
                else:
                    context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"localhost:{listener.getsockname()[1]}"
    thread.join(20)


def server(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, str]:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made, str(tmp_path / "ca.pem")


def test_one_that_answers_as_it_should_is_reached(authority: tuple[trustme.CA, str]) -> None:
    with listening(server(authority[0])) as address:
        assert unreachable(address, authority[1]) is None


def test_certificates_of_others_are_named_as_what_is_wrong(authority: tuple[trustme.CA, str]) -> None:
    with listening(server(trustme.CA())) as address:
        assert "not believed" in (unreachable(address, authority[1]) or "")
    with listening(server(authority[0], "elsewhere.example")) as address:
        assert "not believed" in (unreachable(address, authority[1]) or "")


def test_what_is_no_aggregator_is_told_from_one_that_is_away(
    authority: tuple[trustme.CA, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(None) as address:
        assert "TLS" in (unreachable(address, authority[1]) or "")
    assert unreachable(f"127.0.0.1:{quiet_port()}", authority[1]) == "Connection refused"
    assert "No such file" in (unreachable("127.0.0.1:1", str(tmp_path / "none.pem")) or "")
    monkeypatch.setattr(conditions, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer" in (unreachable(f"127.0.0.1:{silent.getsockname()[1]}", authority[1]) or "")
