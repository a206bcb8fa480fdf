# SPDX-License-Identifier: Apache-2.0
"""Identifiers, parsed once at the edge and passed as types afterwards.

Each type is a ``str`` whose text obeys a full-match grammar, so that it may be used in a path (invariant HH3). Nobody
constructs one except through ``parse``. No regular expressions: ``re`` costs 5 ms at start-up.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, UsageError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

#: Version of the App Container specification that is followed, and that we write.
AC_VERSION = "0.8.11"
_LOWER_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_IDENTIFIER_CHARACTERS = _LOWER_ALNUM | frozenset("-._~/")
_NAME_CHARACTERS = _LOWER_ALNUM | frozenset("-")
_NO_COMPONENT = frozenset(("", ".", ".."))
#: Longest AC Name or AC Identifier that is accepted, in characters; appc sets no bound, a path component does.
MAX_NAME_LENGTH = 255
#: Hex digits of a store key (half of a sha512).
KEY_HEX_LENGTH = 64
#: Hex digits of a sha512.
SHA512_HEX_LENGTH = 128
#: Characters before the digits of a key or an ID.
_PREFIX_LENGTH = len("sha512-")
_KEY_DIGITS = {"sha512": (KEY_HEX_LENGTH, SHA512_HEX_LENGTH), "sha256": (KEY_HEX_LENGTH,)}
_ID_DIGITS = {"sha512": SHA512_HEX_LENGTH, "sha256": KEY_HEX_LENGTH}
_TRUE = frozenset(("1", "t", "T", "true", "True", "TRUE"))
_FALSE = frozenset(("0", "f", "F", "false", "False", "FALSE"))
#: Of a number that ``int`` reads at all (``sys.int_info.default_max_str_digits``).
_MOST_DIGITS = 4300
#: Docker Hub: as people write it, and the host that answers; all its names are one registry (spec cli §12.2).
DOCKER_HUB = "docker.io"
DOCKER_HUB_REGISTRY = "registry-1.docker.io"
DOCKER_HUB_NAMES = (DOCKER_HUB, "index.docker.io", DOCKER_HUB_REGISTRY)
#: Shortest prefix of a key that may be used to look one up, in hex digits.
MIN_KEY_PREFIX_LENGTH = 2


def is_number(text: str, *, most_digits: int = _MOST_DIGITS) -> bool:
    """Whether a text is a decimal number that ``int`` reads as people do; ``str.isdigit`` takes the digits of every script."""
    return text.isascii() and text.isdigit() and len(text) <= most_digits


def parse_boolean(text: str) -> bool:
    """``true``, ``false`` and the other spellings that Go's flags take.

    Raises:
        UsageError: it is none of them.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(f"{quoted(text)} is neither true nor false")


def is_ipv4(text: str) -> bool:
    """Whether ``text`` is an IPv4 address in dotted form, without leading zeros."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        is_number(part, most_digits=3) and str(int(part)) == part and int(part) <= 255 for part in parts
    )


def is_ipv6(text: str) -> bool:
    """Whether ``text`` is an IPv6 address, without an interface; ``ipaddress`` would cost more than all of this module."""
    from _socket import AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return False
    return True


def is_ip(text: str) -> bool:
    """Whether it is one of both."""
    return is_ipv4(text) or is_ipv6(text)


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else f"of type {type(value).__name__}"


class ACIdentifier(str):
    """An appc AC Identifier: ``^[a-z0-9]+([-._~/][a-z0-9]+)*$`` (spec cli §9.2).

    Consecutive separators are tolerated, as rkt does, but no component may be empty, ``.`` or ``..``: names are compared by
    component, and end up in paths and URLs.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: object, *, what: str = "AC identifier") -> Self:
        """Check ``text``, which decoded JSON may have made anything; ``what`` names the thing in the error."""
        if (
            not isinstance(text, str)
            or not text
            or len(text) > MAX_NAME_LENGTH
            or not _IDENTIFIER_CHARACTERS.issuperset(text)
            or text[0] not in _LOWER_ALNUM
            or text[-1] not in _LOWER_ALNUM
            or not _NO_COMPONENT.isdisjoint(text.split("/"))
        ):
            raise InvalidManifest(f"invalid {what} {_shown(text)}: only a-z, 0-9 and -._~/ between them")
        return cls(text)

    @classmethod
    def sanitize(cls, text: str) -> Self:
        """Lower-case, replace what is not allowed by ``_``, trim separators at the edges; an empty result is an error."""
        replaced = "".join(c if c in _IDENTIFIER_CHARACTERS else "_" for c in text.lower())
        return cls.parse(replaced.strip("-._~/"))


class ACName(str):
    """An appc AC Name: ``^[a-z0-9]+([-][a-z0-9]+)*$``; app, volume, mount point and port names."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object, *, what: str = "AC name") -> Self:
        """Check ``text``, which decoded JSON may have made anything; ``what`` names the thing in the error."""
        if (
            not isinstance(text, str)
            or not text
            or len(text) > MAX_NAME_LENGTH
            or not _NAME_CHARACTERS.issuperset(text)
            or text[0] == "-"
            or text[-1] == "-"
        ):
            raise InvalidManifest(f"invalid {what} {_shown(text)}: only a-z, 0-9 and - between them")
        return cls(text)

    @classmethod
    def sanitize(cls, text: str) -> Self:
        """Lower-case, replace what is not allowed by ``-``, trim the edges; an empty result is an error."""
        replaced = "".join(c if c in _NAME_CHARACTERS else "-" for c in text.lower())
        return cls.parse(replaced.strip("-"))


class Digest(str):
    """An OCI digest in the one form that is accepted: ``sha256:`` and 64 lower-case hex digits (invariant UN15)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object, *, what: str = "digest") -> Self:
        """Check ``text``, which decoded JSON may have made anything; ``what`` names the thing in the error."""
        if (
            not isinstance(text, str)
            or not text.startswith("sha256:")
            or len(text) != _PREFIX_LENGTH + KEY_HEX_LENGTH
            or not _HEX.issuperset(text[_PREFIX_LENGTH:])
        ):
            raise InvalidManifest(
                f"invalid {what} {_shown(text)}: sha256: and 64 lower-case hex digits are expected"
            )
        return cls(text)

    @property
    def hex(self) -> str:
        """The digits alone."""
        return self[_PREFIX_LENGTH:]

    @property
    def key(self) -> ImageKey:
        """The store key of the image or layer with this digest."""
        return ImageKey(f"sha256-{self.hex}")


class ImageKey(str):
    """A key of the store, by which an image or a layer is found (spec cli §8.2).

    ``sha512-`` and the first 64 hex digits of an ACI's sha512; ``sha256-`` and the 64 hex digits of the manifest's digest of
    an OCI or Docker image, or of the diff ID of one of its layers.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept a key, a full image ID, or a digest as OCI writes it (``sha256:…``)."""
        algorithm, digits = _split_hash(text)
        lengths = _KEY_DIGITS.get(algorithm, ())
        if len(digits) not in lengths or not _HEX.issuperset(digits):
            raise InvalidManifest(
                f"invalid image ID {quoted(text)}: sha512- and 64 or 128 hex digits, or sha256: and 64, are expected"
            )
        return cls(f"{algorithm}-{digits[:KEY_HEX_LENGTH]}")

    @property
    def short(self) -> str:
        """Form shown in tables: 12 hex digits."""
        return self[: _PREFIX_LENGTH + 12]

    @property
    def medium(self) -> str:
        """Form printed by ``fetch``: 32 hex digits."""
        return self[: _PREFIX_LENGTH + 32]

    @property
    def is_oci(self) -> bool:
        """Whether this is the digest of an OCI or Docker image, or of a layer of one."""
        return self.startswith("sha256-")

    @property
    def digest(self) -> str:
        """The text that OCI documents have: ``sha256:…``; of an OCI key only."""
        return f"sha256:{self[_PREFIX_LENGTH:]}"


class ImageID(str):
    """A full image ID.

    Of an ACI ``sha512-`` and 128 hex digits of the uncompressed tar, of an OCI or Docker image ``sha256-`` and the 64 of its
    manifest's digest.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept the full form only; ``sha256:…`` becomes ``sha256-…``."""
        algorithm, digits = _split_hash(text)
        if len(digits) != _ID_DIGITS.get(algorithm) or not _HEX.issuperset(digits):
            raise InvalidManifest(
                f"invalid image ID {quoted(text)}: sha512- and 128 hex digits, or sha256: and 64, are expected"
            )
        return cls(f"{algorithm}-{digits}")

    @property
    def key(self) -> ImageKey:
        """The store key of this image."""
        return ImageKey(self[: _PREFIX_LENGTH + KEY_HEX_LENGTH])


class TreeID(str):
    """Name of a rendered tree: ``deps-`` and the key form of a sha512 over the images it is made of (spec cli §8.6)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept the whole form only."""
        prefix, _, rest = text.partition("-")
        key = ImageKey.parse(rest)
        if prefix != "deps" or key != rest or key.is_oci:
            raise InvalidManifest(
                f"invalid tree ID {quoted(text)}: deps-sha512- and 64 hex digits are expected"
            )
        return cls(text)


def is_image_hash(text: str) -> bool:
    """Whether ``text`` has hash syntax: an algorithm, a dash, and a value without one (spec cli §5.1 step 1).

    The algorithms are ``sha512`` and ``sha256``; behind ``sha256`` there may be a colon, and then hex digits, as OCI writes
    it: what is no hex digit makes it an image called ``sha256`` with a version.
    """
    if text.startswith("sha256:"):
        digits = text[_PREFIX_LENGTH:]
        return bool(digits) and _HEX.issuperset(digits)
    algorithm, dash, digits = text.partition("-")
    return algorithm in _KEY_DIGITS and bool(dash) and bool(digits) and "-" not in digits


def key_prefix(text: str) -> str:
    """What keys begin with that a text with hash syntax stands for."""
    algorithm, digits = _split_hash(text)
    return f"{algorithm}-{digits[:KEY_HEX_LENGTH]}"


def _split_hash(text: str) -> tuple[str, str]:
    """Algorithm and digits; a colon stands only behind ``sha256``."""
    if text.startswith("sha256:"):
        return "sha256", text[_PREFIX_LENGTH:]
    algorithm, _, digits = text.partition("-")
    return algorithm, digits


class PodUUID(str):
    """A pod's UUID in lower case with dashes (RFC 4122 text), never all zero."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept a full UUID with or without dashes, any case."""
        digits = text.lower()
        if len(digits) == 32 and "-" not in digits:
            digits = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        if not cls.is_uuid(digits):
            raise UsageError(f"invalid pod UUID {quoted(text)}")
        return cls(digits)

    @staticmethod
    def is_uuid(text: str) -> bool:
        """Whether ``text`` is a full lower-case UUID."""
        return (
            len(text) == 36
            and text[8] == text[13] == text[18] == text[23] == "-"
            and text.count("-") == 4
            and _HEX.issuperset(text.replace("-", ""))
            and text.strip("0-") != ""
        )

    @classmethod
    def random(cls) -> Self:
        """A new version 4 UUID."""
        from os import urandom

        raw = bytearray(urandom(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        digits = raw.hex()
        return cls(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")

    @property
    def short(self) -> str:
        """Form shown in tables: the first 8 characters."""
        return self[:8]


class AppcReference:
    """An appc string ``name[:version][,label=value…]`` (spec cli §5.2)."""

    __slots__ = ("labels", "name")

    def __init__(self, name: ACIdentifier, labels: dict[str, str]) -> None:
        self.name = name
        self.labels = labels

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse, with rkt's messages for malformed strings.

        Raises:
            UsageError: a colon or a label in the wrong place.
            InvalidManifest: the name or the name of a label breaks its grammar.
        """
        head, *rest = text.split(",")
        if text.count(":") > 1:
            raise UsageError(f"malformed app string - colon may appear at most once: {quoted(text)}")
        if any(":" in part for part in rest):
            raise UsageError(
                f"malformed app string - colon may appear only right after the app name: {quoted(text)}"
            )
        name, colon, version = head.partition(":")
        labels: dict[str, str] = {}
        if colon:
            if not version:
                raise UsageError(f"malformed app string - the version is empty: {quoted(text)}")
            labels["version"] = version
        for part in rest:
            label, equals, value = part.partition("=")
            if not equals or not value:
                raise UsageError(f"malformed app string - label {quoted(label)} has no value: {quoted(text)}")
            ACIdentifier.parse(label, what="label name")
            if label == "name":
                raise UsageError(f"malformed app string - a label cannot be called name: {quoted(text)}")
            if label in labels:
                raise UsageError(
                    f"label {quoted(label)} with multiple values [{quoted(labels[label])} {quoted(value)}]"
                )
            labels[label] = value
        return cls(ACIdentifier.parse(name, what="image name"), labels)

    def __str__(self) -> str:
        """``name[:version][,label=value…]``, labels ordered os, arch, then by name."""
        rest = sorted(
            (label for label in self.labels if label != "version"), key=lambda n: (n != "os", n != "arch", n)
        )
        version = self.labels.get("version")
        return "".join(
            [
                self.name,
                f":{version}" if version else "",
                *(f",{label}={self.labels[label]}" for label in rest),
            ]
        )

    def __repr__(self) -> str:
        return f"AppcReference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AppcReference) and (self.name, self.labels) == (other.name, other.labels)

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.labels.items()))))
