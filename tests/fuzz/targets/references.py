# SPDX-License-Identifier: Apache-2.0
"""What people and documents call images, pods and amounts, against regular expressions of the specifications."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from rkt.errors import InvalidManifest, UsageError
from rkt.fetch.oci_reference import parse_docker
from rkt.fetch.reference import DOCKER, FILE, NAME, URL, parse_reference
from rkt.schema.appc import is_date
from rkt.schema.quantity import to_thousandths, to_units
from rkt.values import (
    ACIdentifier,
    ACName,
    AppcReference,
    Digest,
    ImageID,
    ImageKey,
    PodUUID,
    TreeID,
    is_ipv4,
    is_ipv6,
)
from tests.fuzz.target import Target, Text

_IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/]+[a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*")
#: distribution/reference, "Grammar", without upper case in hosts, which are written in lower case.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(
    r"(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])(?:\.(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))*(?::[0-9]{1,5})?"
    r"|\[[0-9a-f:.]+\](?::[0-9]{1,5})?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|K|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?"
)
#: RFC 3339, section 5.6, and the bounds of its numbers; days are not counted per month.
_DATE = re.compile(
    r"[0-9]{4}-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|[+-]([0-9]{2}):([0-9]{2}))"
)
_DATE_BOUNDS = ((1, 12), (1, 31), (0, 23), (0, 59), (0, 60), (0, 23), (0, 59))
_SUFFIXES = {
    "m": Fraction(1, 1000),
    "K": Fraction(1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}


def read_reference(text: str) -> None:
    """What is understood leads to one place: a whole path, a URL, or a name that is written and read again as the same."""
    found = parse_reference(text)
    assert found.text == text, "the text is not as typed"
    assert "\0" not in found.location, "a NUL in a location"
    if found.kind == FILE:
        assert found.location.startswith("/"), "a path that depends on where one stands"
        assert found.location.endswith(".aci"), "not an image"
    elif found.kind == URL:
        assert found.location.lower().startswith(("http:", "https:")), "another scheme"
    elif found.kind == NAME:
        assert found.name is not None, "a name without one"
        assert AppcReference.parse(str(found.name)) == found.name, "written and read again"
        assert ".." not in found.name.name.split("/"), "a name climbs"
    elif found.kind == DOCKER:
        try:
            key = found.remote_key("")
        except UsageError:
            return
        assert parse_docker(key.removeprefix("docker://")) == parse_docker(found.location), "two rows for one"


def read_docker(text: str) -> None:
    """What is accepted is by the grammar of the specification, and is written in one way."""
    found = parse_docker(text)
    assert _REGISTRY.fullmatch(found.registry), "the registry is none"
    assert _REPOSITORY.fullmatch(found.repository), "the repository is none"
    assert found.digest or _TAG.fullmatch(found.tag), "the tag is none"
    assert parse_docker(str(found).removeprefix("docker://")) == found, "written and read again"
    assert _IDENTIFIER.fullmatch(found.image_name), "no name for the store"


def _agrees(parse: object, text: str, *, expected: bool) -> None:
    try:
        value = parse(text)  # type: ignore[operator]
    except (InvalidManifest, UsageError):
        assert not expected, f"{parse} refuses it"
    else:
        assert expected, f"{parse} accepts it"
        assert "\0" not in value, "no name for a path"
        assert "\n" not in value, "more than one line"


def read_identifier(text: str) -> None:
    """Names, digests and UUIDs are what their grammars say, so that they may be put into a path (invariant HH3)."""
    short = len(text) <= 255
    parts = text.split("/")
    _agrees(
        ACIdentifier.parse,
        text,
        expected=short and bool(_IDENTIFIER.fullmatch(text)) and not {"", ".", ".."} & set(parts),
    )
    _agrees(ACName.parse, text, expected=short and bool(_NAME.fullmatch(text)))
    _agrees(Digest.parse, text, expected=bool(re.fullmatch(r"sha256:[0-9a-f]{64}", text)))
    key = r"sha512-(?:[0-9a-f]{64}|[0-9a-f]{128})|sha256[-:][0-9a-f]{64}"
    _agrees(ImageKey.parse, text, expected=bool(re.fullmatch(key, text)))
    _agrees(
        ImageID.parse, text, expected=bool(re.fullmatch(r"sha512-[0-9a-f]{128}|sha256[-:][0-9a-f]{64}", text))
    )
    _agrees(TreeID.parse, text, expected=bool(re.fullmatch(r"deps-sha512-[0-9a-f]{64}", text)))
    uuid = re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}", text)
    _agrees(PodUUID.parse, text, expected=bool(uuid) and bool(text.strip("0-")))
    for kind in (ACIdentifier, ACName):
        try:
            clean = kind.sanitize(text)
        except InvalidManifest:
            continue
        assert kind.parse(clean) == clean, "sanitised to what is refused"
        assert kind.sanitize(clean) == clean, "sanitised twice is something else"


def read_appc(text: str) -> None:
    """An appc string that is understood is written and read again as the same."""
    found = AppcReference.parse(text)
    assert AppcReference.parse(str(found)) == found, "written and read again"


def read_quantity(text: str) -> None:
    """An amount is exact, and rounded up."""
    units, thousandths = to_units(text, "amount"), to_thousandths(text, "amount")
    match = _QUANTITY.fullmatch(text)
    assert match, "the grammar refuses it"
    suffix = match[3] or ""
    scale = (
        Fraction(Decimal(f"1{suffix}"))
        if suffix[:1] in {"e", "E"} and suffix not in _SUFFIXES
        else _SUFFIXES.get(suffix, Fraction(1))
    )
    exact = Fraction(Decimal(match[2])) * scale
    assert match[1] != "-" or not exact, "less than nothing"
    assert units == -(-exact.numerator // exact.denominator), "not rounded up"
    exact *= 1000
    assert thousandths == -(-exact.numerator // exact.denominator), "not rounded up to thousandths"


def read_address(text: str) -> None:
    """Addresses are what the library takes for addresses, dates what RFC 3339 calls by that name."""
    import ipaddress

    for ours, theirs in ((is_ipv4, ipaddress.IPv4Address), (is_ipv6, ipaddress.IPv6Address)):
        try:
            theirs(text)
            expected = "%" not in text
        except ValueError:
            expected = False
        assert ours(text) == expected, f"{ours.__name__} and the library differ"
    match = _DATE.fullmatch(text)
    expected = match is not None and all(
        low <= int(number or "0") <= high
        for number, (low, high) in zip(match.groups(), _DATE_BOUNDS, strict=True)
    )
    assert is_date(text) == expected, "is_date and RFC 3339 differ"


_HEX = b"0123456789abcdef" * 8
TARGETS = (
    Target(
        name="reference",
        read=Text(read_reference),
        refuses=(UsageError, InvalidManifest),
        pieces=(b"docker://", b"https://", b"http://", b"file:///", b"oci:", b"docker-archive:", b"cimd:appc:v=0:", b"cimd:aci-archive:v=0:",
                b"cimd:docker:v=0:", b".aci", b"%2f", b"%00", b"%3A", b"\0", b"\n", b"..", b"/", b",version=", b"?", b"#", b":", b"@", b"\xff"),
        shows_all=True,
    ),
    Target(
        name="docker-reference",
        read=Text(read_docker),
        refuses=(UsageError,),
        pieces=(b"docker.io/", b"localhost:5000/", b"[::1]:5000/", b"library/", b"@sha256:" + _HEX[:64], b":latest", b"__", b"--", b".", b"/",
                b"..", b":", b"@", b"\0", b"\xd9\xa3", b"K"),
    ),
    Target(
        name="identifier",
        read=Text(read_identifier),
        pieces=(b"sha512-", b"sha256:", b"sha256-", b"deps-sha512-", _HEX, _HEX[:64], _HEX[:32], b"-", b".", b"..", b"/", b"~", b"_", b"\n",
                b"\0", b"\xe2\x84\xaa", b"\xd9\xa3", b"00000000-0000-0000-0000-000000000000", b"x" * 250),
        max_bytes=512,
    ),
    Target(
        name="appc-string",
        read=Text(read_appc),
        refuses=(UsageError, InvalidManifest),
        pieces=(b":", b",", b"=", b"version", b"name", b"os=linux", b"arch=", b"example.com/", b"\xc2\xa0", b"\0"),
        shows_all=True,
    ),
    Target(
        name="quantity",
        read=Text(read_quantity),
        refuses=(InvalidManifest,),
        pieces=(b"m", b"k", b"M", b"Ki", b"Ei", b"E", b"e18", b"e-18", b"E999999999", b".", b"+", b"-", b"0", b"9" * 60, b"\xd9\xa3", b"_"),
        max_bytes=96,
    ),
    Target(
        name="address",
        read=Text(read_address),
        pieces=(b".", b":", b"::", b"255", b"256", b"0", b"00", b"ffff", b"::ffff:1.2.3.4", b"%eth0", b"\xd9\xa3", b"2026-02-29T23:59:60.5Z",
                b"+23:59", b"T", b"Z"),
        max_bytes=96,
    ),
)  # fmt: skip
