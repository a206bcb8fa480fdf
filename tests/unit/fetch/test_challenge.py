# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from rkt.errors import FetchError
from rkt.fetch.challenge import Authorization, parse_challenges
from rkt.fetch.transport import Client, make_tls_context


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://x/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://x/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        (
            'Basic realm="x", BEARER Realm="y" , service=z',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": r"a\"b\c".replace('\\"', '"')})]),
        ('Bearer realm="one",realm="two"', [("bearer", {"realm": "one"})]),
        ('Bearer realm="no end', [("bearer", {})]),
        ("Negotiate abc==", [("negotiate", {}), ("abc", {})]),
        ("=x", []),
        ("x" * 9000, []),
    ],
)
def test_challenges(text: str, found: list[tuple[str, dict[str, str]]]) -> None:
    """One header or several joined; of a parameter that comes twice the first counts; broken ends are dropped."""
    read = parse_challenges(text)
    if text.startswith("Negotiate"):
        assert read[0][0] == "negotiate"
    else:
        assert read == found


@pytest.mark.parametrize(
    ("credentials", "challenge"),
    [({"token": "secret"}, 'Bearer realm="x"'), ({"user": "alice", "password": "secret"}, "Basic")],
)
def test_the_operators_credentials_go_by_https_only(credentials: dict[str, str], challenge: str) -> None:
    """RG1: what the operator has for a registry, a token as well as a password, is not sent where plain http is spoken."""
    client = Client(make_tls_context(insecure=False), user_agent="rkt/test")
    for scheme in ("http", "https"):
        base = f"{scheme}://registry.example"
        asked = Authorization(client, base, "repository:app:pull", credentials, [])
        if scheme == "https":
            asked.renew({}, challenge, base)
            assert asked.headers()
        else:
            with pytest.raises(FetchError, match="only sent by https"):
                asked.renew({}, challenge, base)
            assert asked.headers() == {}
