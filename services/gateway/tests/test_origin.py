"""Which pages may drive a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_gateway.origin import OriginRule, is_loopback_name

PLAIN = OriginRule()


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://box:4200", "box:4200", True),
        ("https://box", "box", True),
        ("HTTP://Box:4200", "box:4200", True),
        ("http://box:4201", "box:4200", False),
        ("http://box", "box:4200", False),
        ("http://localhost", "box:4200", True),
        ("http://127.9.9.9:1", "box", True),
        ("http://[::1]", "box", True),
        ("http://[::ffff:127.0.0.1]", "box", True),
        ("http://[::2]", "box", False),
        ("http://localhost.evil", "box", False),
        ("http://evil", "evil2", False),
        ("null", "null", False),
        ("", "", False),
        ("file://", "", False),
        ("ftp://localhost", "localhost", False),
        ("http://", "", False),
        ("http://[", "[", False),
        ("http://user@box", "box", False),
    ],
)
def test_an_origin_is_allowed_if_it_is_our_own_or_this_machine(origin, host, allowed) -> None:
    assert PLAIN.allows_origin(origin, host) is allowed


def test_more_origins_can_be_named_exactly_or_all_at_once() -> None:
    named = OriginRule(origins=("https://studio.example",))
    assert named.allows_origin("https://studio.example", "box")
    assert not named.allows_origin("http://studio.example", "box")
    assert OriginRule(origins=("*",)).allows_origin("null", "box")


@pytest.mark.parametrize(
    ("host", "server", "allowed"),
    [
        ("localhost:4200", "127.0.0.1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example", "::1", False),
        ("gpu-box:4200", "192.168.0.7", True),
        ("10.0.0.1", "127.0.0.1", True),
        ("[::1]:4200", "::1", True),
        ("box:port", "192.168.0.7", False),
        ("a@box", "192.168.0.7", False),
        ("", "192.168.0.7", False),
        ("localhost", None, True),
    ],
)
def test_a_name_that_could_have_been_rebound_is_refused_on_loopback(host, server, allowed) -> None:
    assert PLAIN.allows_host(host, server) is allowed


@given(origin=st.text(max_size=60), host=st.text(max_size=60))
def test_no_header_whatever_breaks_the_rule(origin, host) -> None:
    PLAIN.allows_origin(origin, host)
    PLAIN.allows_host(host, "127.0.0.1")
    is_loopback_name(host)
