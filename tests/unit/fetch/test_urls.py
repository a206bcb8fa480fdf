# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import FetchError
from rkt.fetch.urls import check_url, origin


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "http:///x",
        "http://example.com/x y",
        "http://example.com/\r\nHost: evil",
        "https://user@example.com/x",
        "https://user:password@example.com/x",
        "http://exämple.com/",
        "http://example.com:port/",
    ],
)
def test_odd_urls_are_refused(url: str) -> None:
    """Other schemes, no host, credentials, white space and control characters never reach a socket."""
    with pytest.raises(FetchError) as caught:
        check_url(url)
    assert "password" not in caught.value.message


def test_origins() -> None:
    """Scheme, host and port, in lower case, with the ports that go without saying."""
    assert origin("https://A.example/x") == ("https", "a.example", 443) == origin("https://a.example:443/y")
    assert origin("http://a.example") != origin("https://a.example")
    assert origin("http://a.example") == ("http", "a.example", 80)
