# SPDX-License-Identifier: Apache-2.0
"""Where OpenPGP signatures of Docker and OCI images are found (simple signing, containers-registries.d(5)).

::

    URL/REPOSITORY@sha256=HEX/signature-N        a lookaside, as podman and skopeo write it; file://, https://
    LAYOUT/signatures/sha256=HEX/signature-N     beside the ``index.json`` of an image layout or archive

N counts from 1 until there is none, to 16 at most. HEX is the digest of the manifest or of the index that it was chosen from:
either may be signed. ``rkt-fetch`` reads the messages and takes them apart (``fetch.lookaside_worker``).
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from urllib.parse import unquote

from rkt.config.registries import RegistryConfig, load_registries, lookaside_problem
from rkt.errors import ConfigError, FetchError, quoted
from rkt.fetch.job import describe_way, run_fetch
from rkt.fetch.lookaside_worker import MAX_SIGNATURES, MORE, describe_problem
from rkt.fetch.remote import DOCUMENT_SECONDS
from rkt.linux import libc
from rkt.privsep.wire import foreign_text
from rkt.trust.evidence import SIMPLE_SIGNING, Evidence
from rkt.trust.message import MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference

#: Directory of an image layout or archive.
SIGNATURES = "signatures"
_FILE = "file://"
#: Of a manifest and its index, with a word about those that are not read.
_MAX_EVENTS = 2 * (MAX_SIGNATURES + 1)
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def find(url: str, reference: DockerReference, digests: Sequence[str], settings: Settings) -> list[Evidence]:
    """The signatures of an image of a registry.

    Args:
        url: of the rule's ``lookaside``; empty for that of the registry's configuration, which may have none.
        reference: the image.
        digests: of manifest and index.
        settings: of the running command.
    Returns:
        one for each message; one with ``problem`` where there is something that cannot be had or read, or nothing.
    Raises:
        ConfigError: the URL may not be asked.
    """
    config = load_registries(settings).get(reference.registry, RegistryConfig())
    url = (url or config.lookaside).rstrip("/")
    if not url:
        problem = (
            "where its OpenPGP signatures are is not known: no lookaside, neither in a rule "
            "(rkt trust … --lookaside=URL) nor of the registry (rkt help config)"
        )
        return [_nothing(reference.registry, problem)]
    places = [f"{reference.repository}@{digest.replace(':', '=')}" for digest in digests]
    _check(url, allow_http=config.http or settings.insecure.http)
    if url.startswith(_FILE):
        directory = unquote(url.removeprefix(_FILE))
        return _read_directory(directory, places, settings) or [_nothing(f"{directory}/{places[0]}")]
    urls = [f"{url}/{place}" for place in places]
    request = {
        "op": "lookaside",
        "urls": urls,
        **describe_way(settings, *urls, tls_insecure=settings.insecure.tls),
    }
    try:
        return _run(request, {}, settings) or [_nothing(urls[0])]
    except FetchError as e:
        # Something else may vouch for the image.
        return [_nothing(urls[0], e.message)]


def find_in_layout(
    directory_fd: int, path: str, digests: Sequence[str], settings: Settings
) -> list[Evidence]:
    """The signatures that lie in an image layout.

    Args:
        directory_fd: of the layout.
        path: of the layout, for people.
        digests: of manifest and index.
        settings: of the running command.
    """
    places = places_in_layout(digests)
    return _read_files(directory_fd, path, places, settings) or [_nothing(f"{path}/{places[0]}")]


class Heard:
    """Keeps what a worker says of messages, as much as there may be of it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        """Hear an event."""
        if event.get("kind") == "message" and len(self.events) < _MAX_EVENTS:
            self.events.append(event)


def find_in_archive(heard: Heard, path: str, digests: Sequence[str]) -> list[Evidence]:
    """What a worker said of the messages of an archive.

    Args:
        heard: of ``layout_worker.Messages``.
        path: of the archive, for people.
        digests: of manifest and index.
    """
    return read_events(heard.events) or [_nothing(f"{path}: {places_in_layout(digests)[0]}")]


def places_in_layout(digests: Sequence[str]) -> list[str]:
    """Where signatures are in a layout or an archive."""
    return [f"{SIGNATURES}/{digest.replace(':', '=')}" for digest in digests]


def read_events(events: Sequence[dict[str, Any]]) -> list[Evidence]:
    """What a worker said of messages, checked for its form.

    Raises:
        FetchError: it is no such thing.
    """
    try:
        found = []
        for event in events:
            payload = b64decode(event["payload"], validate=True)
            if len(payload) > MAX_PAYLOAD_BYTES or len(event["signature"]) > 2 * MAX_MESSAGE_BYTES:
                raise FetchError("rkt-fetch reported too large a message")
            found.append(
                Evidence(
                    kind=SIMPLE_SIGNING,
                    source=foreign_text(event["source"]),
                    data=payload,
                    signature=str(event["signature"]),
                    problem=foreign_text(event["problem"]),
                )
            )
    except (KeyError, TypeError, ValueError) as e:
        raise FetchError("rkt-fetch reported no messages") from e
    return found


def _nothing(source: str, problem: str = "no OpenPGP signature is there") -> Evidence:
    """Says for people where was looked in vain."""
    return Evidence(kind=SIMPLE_SIGNING, source=source, data=b"", problem=problem)


def _check(url: str, *, allow_http: bool) -> None:
    if problem := lookaside_problem(url):
        raise ConfigError(f"lookaside {problem}")
    if url.startswith("http:") and not allow_http:
        raise ConfigError(
            f"lookaside {quoted(url)} is not asked: it would be by plain http",
            hint='use https, --insecure-options=http, or "http": true in the configuration of the registry',
        )


def _read_directory(directory: str, places: list[str], settings: Settings) -> list[Evidence]:
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        # No signature was made yet.
        return []
    except OSError as e:
        raise ConfigError(f"cannot read the lookaside {quoted(directory)}: {e.strerror}") from e
    try:
        return _read_files(fd, directory, places, settings)
    finally:
        os.close(fd)


def _read_files(directory_fd: int, directory: str, places: list[str], settings: Settings) -> list[Evidence]:
    fds: dict[str, int] = {}
    sources: list[str] = []
    problems = []
    try:
        for place in places:
            for name in _names(place):
                source = f"{directory}/{name}"
                try:
                    fd = _open(directory_fd, name)
                except FileNotFoundError:
                    break
                except OSError as e:
                    problems.append(describe_problem(f"it cannot be read: {e.strerror}", source))
                    break
                fds[f"message{len(sources)}"] = fd
                sources.append(source)
            else:
                problems.append(describe_problem(MORE, f"{directory}/{place}"))
        found = _run({"op": "signed-messages", "sources": sources}, fds, settings) if sources else []
    finally:
        for fd in fds.values():
            os.close(fd)
    return [*found, *read_events(problems)]


def _names(place: str) -> Iterator[str]:
    return (f"{place}/signature-{number}" for number in range(1, MAX_SIGNATURES + 1))


def _open(directory_fd: int, name: str) -> int:
    """A regular file below a directory; links may not lead out of it."""
    resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS
    fd = libc.openat2(directory_fd, name.encode(), _FLAGS, resolve)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "it is not a regular file")
    return fd


def _run(request: dict[str, Any], fds: dict[str, int], settings: Settings) -> list[Evidence]:
    heard = Heard()
    run_fetch(request, fds, settings.installation, seconds=DOCUMENT_SECONDS, on_event=heard)
    return read_events(heard.events)
