"""PUBLISH packets, read without paho: what it would read, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as mqtt

from edged.broker.lean_paho import LeanClient, Publish, parse_publish

TOPICS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)


def packet(publish: Publish, properties: bytes | None) -> tuple[int, bytes]:
    topic = publish.topic.encode()
    command = 0x30 | publish.dup << 3 | publish.qos << 1 | publish.retain
    mid = publish.mid.to_bytes(2, "big") if publish.qos else b""
    extra = b"" if properties is None else bytes([len(properties)]) + properties
    return command, len(topic).to_bytes(2, "big") + topic + mid + extra + publish.payload


@given(
    TOPICS,
    st.binary(max_size=50),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.integers(1, 65535),
    st.booleans(),
)
def test_packet_is_read_as_it_was_written(
    topic: str, payload: bytes, qos: int, retain: bool, dup: bool, mid: int, properties: bool
) -> None:
    publish = Publish(topic, payload, qos, retain, dup, mid if qos else 0)
    command, body = packet(publish, b"" if properties else None)
    assert parse_publish(command, body, properties=properties) == publish


@given(st.integers(0x30, 0x3F), st.binary(max_size=30), st.booleans())
def test_any_bytes_are_read_or_left_to_paho(command: int, body: bytes, properties: bool) -> None:
    found = parse_publish(command, body, properties=properties)
    assert found is None or packet(found, b"" if properties else None)[1] == body


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (0x34, b"\0\1t\0\1\0x"),  # QoS 2
        (0x32, b"\0\1t\0\1\5\2\0\0\0\1x"),  # a message expiry interval
        (0x32, b"\0\0\0\1\0x"),  # a topic alias would stand for the empty topic
        (0x30, b"\0\2\xff\xfe\0x"),  # not UTF-8
        (0x32, b"\0\1t\0"),  # cut short
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_paho(command: int, body: bytes) -> None:
    assert parse_publish(command, body, properties=True) is None


def test_paho_still_has_the_handlers_that_are_overridden() -> None:
    """Without them everything works, and slowly: this says so."""
    for name in ("_handle_publish", "_handle_pubackcomp", "_create_socket"):
        assert getattr(LeanClient, name) is not getattr(mqtt.Client, name)
