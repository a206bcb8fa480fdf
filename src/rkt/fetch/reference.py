# SPDX-License-Identifier: Apache-2.0
"""What kind of thing an image reference is (spec cli §5.1); hashes are told apart by the caller."""

from __future__ import annotations

import os

from rkt.errors import UsageError, quoted
from rkt.schema.architectures import appc_name
from rkt.schema.record import Record
from rkt.values import AppcReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Kinds of references.
FILE: Final = "file"
URL: Final = "url"
NAME: Final = "name"
DOCKER: Final = "docker"
#: Docker and OCI images of a directory or a file (``fetch.oci_reference``).
LOCAL_KINDS = ("oci", "oci-archive", "docker-archive")

#: Pull policies: what the store has is good, what a server has now, what the store has and nothing else (spec cli §5.3).
POLICY_NEW: Final = "new"
POLICY_UPDATE: Final = "update"
POLICY_NEVER: Final = "never"
POLICIES = (POLICY_NEW, POLICY_UPDATE, POLICY_NEVER)

_SCHEME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")
_EXTENSION = ".aci"


class Reference(Record):
    """A reference whose kind is known.

    Attributes:
        kind: one of the words above.
        text: as typed.
        location: absolute path of a file, the URL, or what follows ``docker:`` or another kind's colon; empty for a name.
        name: for a name.
    """

    kind: str
    text: str
    location: str = ""
    name: AppcReference | None = None

    def remote_key(self, platform: str) -> str:
        """By what the store remembers what came of a URL or of a registry; empty for others.

        Args:
            platform: as typed, for images of registries; empty for that of this host.
        Raises:
            UsageError: a reference to a registry that breaks its grammar.
        """
        if self.kind == DOCKER:
            from rkt.fetch.oci_reference import parse_docker, row_url

            return row_url(parse_docker(self.location), platform)
        return self.location if self.kind == URL else ""


def parse_reference(text: str) -> Reference:
    """Tell files, URLs, names and docker references apart, in the order of spec cli §5.1.

    Raises:
        UsageError: none of them.
        InvalidManifest: a name that breaks the grammar of names.
    """
    if not text:
        raise UsageError("an image reference must not be empty")
    if "\0" in text:
        raise UsageError(f"image reference {quoted(text)} has a NUL character in it")
    scheme, rest = _split_scheme(text)
    if scheme in {"http", "https"}:
        path = rest.partition("#")[0].partition("?")[0]
        if not path.endswith(_EXTENSION):
            raise _invalid(text)
        return Reference(kind=URL, text=text, location=text)
    if scheme == "file":
        return _file(text, _file_url_path(text, rest))
    if scheme == "docker":
        return Reference(kind=DOCKER, text=text, location=rest.removeprefix("//"))
    if scheme in LOCAL_KINDS:
        return Reference(kind=scheme, text=text, location=rest)
    if scheme == "cimd":
        return _internal(text, rest)
    if not scheme and _is_path(text):
        return _file(text, os.path.abspath(text))
    return Reference(kind=NAME, text=text, name=AppcReference.parse(text))


def _internal(text: str, rest: str) -> Reference:
    """``cimd:TYPE:v=0:DATA``, as dependent programs and old stores write references."""
    from urllib.parse import parse_qsl, unquote_plus

    kind, _, tail = rest.partition(":")
    version, colon, data = tail.partition(":")
    if not kind or not colon or not data:
        raise UsageError(f'malformed distribution uri: "{text}"')
    if version != "v=0":
        raise UsageError(f'malformed distribution version: "{version}"')
    if kind == "docker":
        return Reference(kind=DOCKER, text=text, location=data)
    if kind == "aci-archive":
        inner = unquote_plus(data)
        if _split_scheme(inner)[0] not in {"", "file", "http", "https"} or "\0" in inner:
            raise UsageError(f'malformed distribution uri: "{text}"')
        return parse_reference(inner).replace(text=text)
    if kind == "appc":
        name, _, query = data.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        plain = ",".join([unquote_plus(name), *(f"{label}={value}" for label, value in pairs)])
        if plain.count(",") != len(pairs):
            raise UsageError(f'malformed distribution uri: "{text}"')
        return Reference(kind=NAME, text=text, name=AppcReference.parse(plain))
    raise UsageError(f'unknown distribution type: "{kind}"')


def _is_path(text: str) -> bool:
    if text.startswith("/") or os.path.isfile(text):
        return True
    if ":" in text:
        return False
    return "./" in text or text.endswith(_EXTENSION)


def _file(text: str, path: str) -> Reference:
    if not path.endswith(_EXTENSION):
        raise _invalid(text)
    return Reference(kind=FILE, text=text, location=path)


def _file_url_path(text: str, rest: str) -> str:
    """The path of ``file:///abs/x.aci`` or ``file:/abs/x.aci``; another host's files cannot be had."""
    from urllib.parse import unquote

    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in {"", "localhost"}:
            raise UsageError(f"image {quoted(text)} is a file of another host", hint=f"file:///{host}/{path}")
        rest = slash + path
    path = unquote(rest)
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"failed to parse image url {quoted(text)}", hint="file:///absolute/path/x.aci")
    return path


def _split_scheme(text: str) -> tuple[str, str]:
    """Scheme in lower case and the rest behind the colon; an empty scheme when there is none (RFC 3986 §3.1)."""
    scheme, colon, rest = text.partition(":")
    lowered = scheme.lower()
    if not colon or not lowered or not _SCHEME_CHARACTERS.issuperset(lowered) or not lowered[0].isalpha():
        return "", text
    return lowered, rest


def _invalid(text: str) -> UsageError:
    return UsageError(f'invalid image string "{text}"', hint=f"files and URLs of images end by {_EXTENSION}")


def is_short(wanted: AppcReference) -> bool:
    """Whether a name has no host in it, and no label but a version: an image of a registry may be meant."""
    first = wanted.name.partition("/")[0]
    return "." not in first and first != "localhost" and set(wanted.labels) <= {"version"}


def signature_url(url: str) -> str:
    """``…/x.aci?q`` to ``…/x.aci.asc?q`` (spec cli §6.3)."""
    path, question, query = url.partition("#")[0].partition("?")
    return f"{path}.asc{question}{query}"


def host_labels() -> dict[str, str]:
    """The labels ``os`` and ``arch`` of images for this host (spec cli §5.2)."""
    return {"os": "linux", "arch": appc_name(os.uname().machine)}
