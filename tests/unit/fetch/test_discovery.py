# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time

import pytest

from rkt.fetch.discovery import covers, endpoints, key_urls, parse_page, render

LABELS = {"os": "linux", "arch": "amd64", "version": "1.0.0"}


def page(*contents: str, name: str = "ac-discovery") -> bytes:
    """A page with these meta elements."""
    return "".join(f'<meta name="{name}" content="{content}">' for content in contents).encode()


def test_the_example_of_the_specification() -> None:
    """Name, labels and both extensions are filled in."""
    entries = parse_page(
        page("example.com https://storage.example.com/{os}/{arch}/{name}-{version}.{ext}?torrent")
    )
    assert endpoints(entries, "example.com/hello", LABELS, allow_http=False) == [
        {
            "image": "https://storage.example.com/linux/amd64/example.com/hello-1.0.0.aci?torrent",
            "signature": "https://storage.example.com/linux/amd64/example.com/hello-1.0.0.aci.asc?torrent",
        }
    ]


@pytest.mark.parametrize(
    ("prefix", "name", "expected"),
    [
        ("example.com", "example.com", True),
        ("example.com", "example.com/foo", True),
        ("example.com/foo", "example.com/foo/bar", True),
        ("example.com/foo", "example.com/foobar", False),
        ("example.com/foo/bar", "example.com/foo", False),
        ("example.co", "example.com", False),
        ("", "example.com", False),
    ],
)
def test_prefixes_cover_whole_components(prefix: str, name: str, expected: bool) -> None:
    """A name is covered by itself and by what it lies below, never by a part of a component."""
    assert covers(prefix, name) is expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("https://h/{name}.{ext}", "https://h/a/b.aci"),
        ("https://h/{version}", "https://h/latest"),
        ("https://h/{channel}", None),
        ("https://h/{name", None),
        ("https://h/name}", None),
        ("https://h/{tricky}", "https://h/%7Bname%7D%3F%23%20%25"),
    ],
)
def test_templates(template: str, expected: str | None) -> None:
    """Fields are filled in once, without a version it is latest, and what is left over drops the template."""
    assert render(template, "a/b", {"tricky": "{name}?# %"}, "aci") == expected


def test_what_is_found_in_a_page() -> None:
    """Elements anywhere count, in any case and quoting, the first of two equal attributes; others are passed over."""
    html = b"""<!DOCTYPE html><HTML><HEAD>
        <META NAME='ac-discovery' CONTENT='a.b   https://one/{name}.{ext}  '>
        <meta content="a.b https://two/x.{ext}" name="ac-discovery" name="other"/>
        <meta name=ac-discovery-pubkeys content="a.b https://keys/k.asc">
        <meta name="ac-discovery" content="https://no-prefix/">
        <meta name="description" content="a.b https://x/">
        <!-- <meta name="ac-discovery" content="a.b https://comment/"> -->
        <script>'<meta name="ac-discovery" content="a.b https://script/">'</script>
        \xff\xfe </body>"""
    entries = parse_page(html)
    assert [entry.template for entry in entries] == [
        "https://one/{name}.{ext}",
        "https://two/x.{ext}",
        "https://keys/k.asc",
    ]
    assert key_urls(entries, "a.b/c", allow_http=False) == ["https://keys/k.asc"]


@pytest.mark.parametrize(
    "template",
    [
        "http://h/x.{ext}",
        "file:///etc/x.{ext}",
        "//h/x.{ext}",
        "https:///x.{ext}",
        "https://u:p@h/x.{ext}",
        "https://h/\N{SNOWMAN}.{ext}",
        "https://h/a b.{ext}",
    ],
)
def test_places_that_are_not_asked(template: str) -> None:
    """Only https URLs with a host and without credentials or odd characters are accepted."""
    entries = parse_page(page(f"a.b {template}"))
    assert endpoints(entries, "a.b", LABELS, allow_http=False) == []
    keys = parse_page(page(f"a.b {template}", name="ac-discovery-pubkeys"))
    assert key_urls(keys, "a.b", allow_http=False) == []


def test_http_with_leave() -> None:
    """The caller may allow http."""
    entries = parse_page(page("a.b http://h/x.{ext}"))
    assert len(endpoints(entries, "a.b", LABELS, allow_http=True)) == 1


@pytest.mark.parametrize(
    "piece", [b"<", b"<!--", b"<![", b"<a ", b"</", b"<meta name='", b"&#", b"<script>", b"<a/", b"<!-- --!"]
)
def test_nasty_pages_end_soon(piece: bytes) -> None:
    """A page of the largest size is read in seconds of a processor, whatever it is made of, and what came first still counts."""
    start = time.thread_time()
    entries = parse_page((page("a.b https://h/x") + piece * (1 << 20))[: 1 << 20])
    assert time.thread_time() - start < 10
    assert [entry.prefix for entry in entries] == ["a.b"]
