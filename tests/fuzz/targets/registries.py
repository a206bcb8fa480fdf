# SPDX-License-Identifier: Apache-2.0
"""What registries answer besides blobs: documents, pages of referrers, places of uploads; and what they are sent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPHeaderDict

from rkt.config import authfile
from rkt.errors import ConfigError, FetchError, InvalidManifest, NotFound, RktError
from rkt.fetch import credentials, push_worker, urls
from rkt.fetch.answer import Answer
from rkt.fetch.repository import Repository
from rkt.schema import jsontext
from rkt.schema.oci import parse_document
from rkt.values import Digest
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES, OCI_PIECES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DIGEST = Digest.parse(f"sha256:{'0' * 64}")
_HOST = "registry.example"
_HERE = f"https://{_HOST}/v2/app/"
_DESCRIPTION = {
    "host": _HOST,
    "schemes": ["https"],
    "repository": "app",
    "credentials": {},
    "token_hosts": [],
}
_MAX_REQUESTS = 64


class _Client:
    """A registry that has one answer to everything."""

    def __init__(self, data: bytes) -> None:
        head, _, self._body = data.partition(b"\n\n")
        status, *lines = head.decode("latin-1").split("\n")
        self._status = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 200
        self._headers = HTTPHeaderDict()
        for line in lines:
            name, _, value = line.partition(":")
            self._headers.add(name.strip(), value.strip())
        self._left = _MAX_REQUESTS

    def exchange(self, url: str, *, authorizer: object = None, **_: object) -> Answer:
        """What is asked for must be askable, and a token goes to its own registry alone (RG1, RG2)."""
        assert urls.check_url(url) == url or "#" in url, "no URL"
        assert url.startswith("https://"), "without TLS"
        if authorizer is not None:
            assert urls.origin(url) == ("https", _HOST, 443), "a token for somebody else"
        self._left -= 1
        assert self._left, "it never ends"
        headers: Mapping[str, str] = self._headers
        return Answer(status=self._status, headers=headers, body=self._body, url=url)


def _manifest(repository: Repository, body: bytes) -> None:
    found = repository.manifest("latest")
    assert found.digest == f"sha256:{hashlib.sha256(body).hexdigest()}", "another digest"
    with contextlib.suppress(InvalidManifest):
        parse_document(found.data, found.media_type)


def _referrers(repository: Repository, body: bytes) -> None:
    found = repository.referrers(_DIGEST)
    assert len(found) <= 256, "too many"
    assert all(Digest.parse(item.digest) == item.digest for item in found), "no digest"


def _push(repository: Any, body: bytes) -> None:
    repository.mount(_DIGEST, "other")
    fd = os.memfd_create("blob", os.MFD_CLOEXEC)
    try:
        os.write(fd, b"blob")
        repository.upload(_DIGEST, fd, lambda _: None)
    finally:
        os.close(fd)


def _refer(repository: Any, body: bytes) -> None:
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(_DIGEST), "size": 1}
    repository.list_referrer(_DIGEST, entry)


_USES: tuple[Callable[[Any, bytes], None], ...] = (_manifest, _referrers, _push, _refer)


def read_pages(data: bytes) -> None:
    """Whatever a registry says, requests go to URLs, with a token to itself alone, and come to an end."""
    body = data.partition(b"\n\n")[2]
    refusals: list[RktError] = []
    for use in _USES:
        client: Any = _Client(data)
        try:
            use(push_worker.Target(client, _DESCRIPTION, push_worker.PUSH), body)
        except (FetchError, NotFound, InvalidManifest) as e:
            refusals.append(e)
    assert all(refusal.message.isprintable() for refusal in refusals), "control characters"
    if len(refusals) == len(_USES):
        raise refusals[0]


def read_credentials(data: bytes) -> None:
    """What is sent to a registry is found by its name alone, and nothing secret is in an error or shown by accident."""
    with contextlib.suppress(ConfigError):
        secret = credentials._read_answer(data, "helper")
        assert secret.identity_token or secret.user or secret.password, "nothing to send"
    file = authfile.parse_auth_file(jsontext.parse(data, what="file"), "/auth.json", 0)
    assert authfile.parse_auth_file(json.loads(data), "/auth.json", 0) == file, "read again"
    shown = repr(file)
    for name, secret in file.entries.items():
        host, _, path = name.partition("/")
        assert file.entry(host, path) == secret, "an entry that is not found"
        for text in (secret.password, secret.identity_token, secret.token):
            assert len(text) < 8 or text in str(sorted(file.entries)) or text not in shown + repr(secret), (
                "a secret is shown"
            )
    for helper in (*file.helpers.values(), file.store):
        assert "/" not in helper, "a helper is elsewhere"
        assert not helper.startswith((".", "-")), "a helper is no name"


TARGETS = (
    Target(
        name="registry-pages",
        read=read_pages,
        refuses=(RktError,),
        pieces=(*JSON_PIECES, *OCI_PIECES, b"200\n", b"201\n", b"202\n", b"404\n", b"\n\n", b"Link: <", b'>; rel="next"', b"Location: ", b"Content-Type: ", b"Docker-Content-Digest: ",
                b"OCI-Subject: ", b"OCI-Chunk-Min-Length: ", b"application/vnd.oci.image.index.v1+json", _HERE.encode(), b"https://[", b"//[", b"//other.example/", b"http://", b"?n=",
                b"/v2/app/referrers/", b"#", b"@", b"\\", b"%", b"\xe9", b"\t"),
        max_bytes=8192,
    ),
    Target(
        name="credentials",
        read=read_credentials,
        refuses=(ConfigError, InvalidManifest),
        pieces=(*JSON_PIECES, b'"auths"', b'"auth"', b'"credHelpers"', b'"credsStore"', b'"identitytoken"', b'"registrytoken"', b'"username"', b'"password"', b'"Username"', b'"Secret"',
                b'"<token>"', b"https://index.docker.io/v1/", b"docker.io", b"registry.example/a/b", b"YTpi", b'"../x"'),
    ),
)  # fmt: skip
