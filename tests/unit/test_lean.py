"""PUBLISH packets, read without paho."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as mqtt

from edged.broker.lean_paho import LeanClient, ProtocolError, Publish, parse_publish

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
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.integers(1, 65535),
    st.sampled_from([None, b"", b"\2\0\0\0\1", b"\x26\0\1k\0\1v" * 10]),
)
def test_packet_is_read_as_it_was_written(
    topic: str, payload: bytes, qos: int, retain: bool, dup: bool, mid: int, properties: bytes | None
) -> None:
    publish = Publish(topic, payload, qos, retain, dup, mid if qos else 0)
    command, body = packet(publish, properties)
    assert parse_publish(command, body, properties=properties is not None) == publish


@given(st.integers(0x30, 0x3F), st.binary(max_size=30), st.booleans())
def test_any_bytes_are_a_packet_or_a_protocol_error(command: int, body: bytes, properties: bool) -> None:
    with suppress(ProtocolError):
        found = parse_publish(command, body, properties=properties)
        assert body.startswith(packet(found, None)[1][: 2 + len(found.topic.encode())])
        assert body.endswith(found.payload)


@pytest.mark.parametrize(
    ("command", "body", "code"),
    [
        (0x36, b"\0\1t\0\1\0x", 0x81),  # QoS 3
        (0x32, b"\0\1t\0\1\3\x23\0\1x", 0x94),  # a topic alias
        (0x32, b"\0\0\0\1\3\x23\0\1x", 0x94),  # and one that stands for the topic
        (0x32, b"\0\0\0\1\0x", 0x82),  # no topic
        (0x32, b"\0\1t\0\0\0x", 0x82),  # no packet id
        (0x30, b"\0\2\xff\xfe\0x", 0x81),  # not UTF-8
        (0x32, b"\0\1t\0", 0x81),  # cut short
        (0x32, b"\0\1t\0\1\5\x7f\0\0\0\1x", 0x81),  # an unknown property
        (0x32, b"\0\1t\0\1\x7fx", 0x81),  # properties that are cut short
    ],
)
def test_packet_that_breaks_the_rules_is_refused_with_the_reason_code_for_it(
    command: int, body: bytes, code: int
) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_publish(command, body, properties=True)
    assert caught.value.code == code


def test_paho_still_has_the_handlers_that_are_overridden() -> None:
    """Without them some would never be called."""
    for name, method in vars(LeanClient).items():
        if name.startswith("_handle") or name == "_create_socket":
            assert getattr(mqtt.Client, name) is not method
