# SPDX-License-Identifier: Apache-2.0
"""Registries: Debian's ``docker-registry`` with its ways to authenticate, and a scriptable one that lies.

Both are on loopback addresses of their own. ``LyingRegistry`` is a ``Server`` whose pages are manifests and blobs: a test
puts an image and then changes the pages. ``Client`` fetches through the worker, without the pipeline behind it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from rkt.config.settings import InsecureOptions, Settings
from rkt.fetch import worker
from rkt.fetch.job import describe_way
from rkt.fetch.oci_reference import parse_docker
from rkt.fetch.oci_source import Blob
from rkt.fetch.registry import RegistrySource, describe_endpoints
from rkt.fetch.repository import Repository
from rkt.schema.oci import OCI_INDEX, Platform, parse_manifest
from rkt.store.layout import setup_data_dir
from rkt.store.staging import Staging
from rkt.values import Digest
from tests.lib.layouts import digest, json_bytes
from tests.lib.pace import SLOWNESS
from tests.lib.server import Page, Server
from tests.lib.site import loopback_address
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from rkt.config.settings import Installation
    from rkt.fetch.oci_source import Received, Resolved
    from tests.lib.layouts import Image
    from tests.lib.server import Authority

USER = "alice"
PASSWORD = "secret"
#: Of that password by bcrypt, the only hash that the registry takes.
_BCRYPT = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
#: Not 5000: a registry that Debian starts as a service listens there on every address.
PORT = 5469
PLAIN = "plain"
TLS = "tls"
HTPASSWD = "htpasswd"
TOKEN = "token"
KINDS = (PLAIN, TLS, HTPASSWD, TOKEN)


class Registry:
    """A real registry.

    Attributes:
        name: host and port, the first component of references.
        tokens: who issues its tokens, when it wants some.
    """

    def __init__(self, kind: str, authority: Authority) -> None:
        """``kind`` is one of ``KINDS``; all but the first speak TLS, with a certificate by ``authority``."""
        self.kind = kind
        self.authority = authority
        self.host = loopback_address()
        self.name = f"{self.host}:{PORT}"
        self.directory = tempfile.mkdtemp(prefix="rkt-registry-")
        self.tokens = TokenServer(authority, self.name) if kind == TOKEN else None
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": f"{self.directory}/data"}},
            "http": {"addr": self.name},
        }
        if kind != PLAIN:
            issued = authority.issue(self.host)
            config["http"]["tls"] = {"certificate": issued.certificate, "key": issued.key}
        if kind == HTPASSWD:
            path = f"{self.directory}/htpasswd"
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{USER}:{_BCRYPT}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": path}}
        if self.tokens is not None:
            config["auth"] = {
                "token": {
                    "realm": self.tokens.url,
                    "service": "test service",
                    "issuer": "test issuer",
                    "rootcertbundle": authority.root,
                }
            }
        # JSON is YAML.
        with open(f"{self.directory}/config.yml", "w", encoding="ascii") as file:
            json.dump(config, file)
        self._process = subprocess.Popen(
            ["docker-registry", "serve", f"{self.directory}/config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 20 * SLOWNESS
        while True:
            try:
                socket.create_connection((self.host, PORT), 1).close()
            except OSError:
                assert self._process.poll() is None, "docker-registry ended"
                assert time.monotonic() < deadline, "docker-registry does not answer"
                time.sleep(0.01)
            else:
                return

    def push(self, repository: str, image: Image, *tags: str) -> str:
        """Store an image under tags; returns a reference by the first, or by digest when there is none."""
        for name, data in image.blobs.items():
            if data != image.manifest:
                self.push_blob(repository, f"sha256:{name}", data)
        for tag in tags or (image.digest,):
            self.push_manifest(repository, tag, image.manifest)
        return f"docker://{self.name}/{repository}" + (f":{tags[0]}" if tags else f"@{image.digest}")

    def push_blob(self, repository: str, name: str, data: bytes) -> None:
        """Store a blob."""
        place = self._ask("POST", f"/v2/{repository}/blobs/uploads/", repository=repository)[1]["Location"]
        separator = "&" if "?" in place else "?"
        status, _ = self._ask("PUT", f"{place}{separator}digest={name}", data, repository=repository)
        assert status == 201

    def push_manifest(self, repository: str, reference: str, data: bytes) -> None:
        """Store a manifest or an index."""
        kind = json.loads(data)["mediaType"]
        path = f"/v2/{repository}/manifests/{reference}"
        status, _ = self._ask("PUT", path, data, {"Content-Type": kind}, repository=repository)
        assert status == 201

    def _ask(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        repository: str,
    ) -> tuple[int, http.client.HTTPMessage]:
        parts = urlsplit(url)
        sent = dict(headers or {})
        if self.kind == HTPASSWD:
            sent["Authorization"] = BASIC
        elif self.tokens is not None:
            sent["Authorization"] = (
                f"Bearer {self.tokens.issue([f'repository:{repository}:pull,push'], USER)}"
            )
        connection = (
            http.client.HTTPConnection(self.host, PORT)
            if self.kind == PLAIN
            else http.client.HTTPSConnection(
                self.host, PORT, context=ssl.create_default_context(cafile=self.authority.root)
            )
        )
        connection.request(method, f"{parts.path}?{parts.query}", body=body, headers=sent)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, response.headers

    def close(self) -> None:
        """End it, and remove what it has."""
        self._process.terminate()
        self._process.wait(20)
        if self.tokens is not None:
            self.tokens.close()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TokenServer:
    """Issues tokens that ``docker-registry`` believes: JSON Web Tokens, signed by a key the root vouches for.

    Attributes:
        asked: query and ``Authorization`` of each request for a token.
        public: whether who has no credentials may pull.
    """

    def __init__(self, authority: Authority, audience: str) -> None:
        del audience
        self.host = loopback_address()
        self.asked: list[tuple[dict[str, list[str]], str]] = []
        self.public = False
        self._issued = authority.issue(self.host)
        with open(self._issued.certificate, encoding="ascii") as file:
            self._der = "".join(line.strip() for line in file if not line.startswith("-----"))
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                pass

        self._http = ThreadingHTTPServer((self.host, 443), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._issued.certificate, self._issued.key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://{self.host}/token"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        query = parse_qs(urlsplit(request.path).query)
        authorization = request.headers.get("Authorization", "")
        self.asked.append((query, authorization))
        if authorization not in {"", BASIC}:
            request.send_error(401)
            return
        scopes = query.get("scope", []) if self.public or authorization else []
        data = json_bytes({"token": self.issue(scopes, USER if authorization else "")})
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def issue(self, scopes: Iterable[str], user: str) -> str:
        """A token."""
        access = [
            dict(zip(("type", "name", "actions"), (kind, name, actions.split(",")), strict=True))
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        now = int(time.time())
        claims = {
            "iss": "test issuer",
            "sub": user,
            "aud": "test service",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": os.urandom(8).hex(),
            "access": access,
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._der]}
        signed = f"{_url64(json_bytes(header))}.{_url64(json_bytes(claims))}"
        return f"{signed}.{_url64(self._sign(signed.encode()))}"

    def _sign(self, data: bytes) -> bytes:
        made = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._issued.key],
            input=data,
            check=True,
            capture_output=True,
        ).stdout
        # DER of two integers, which a token has as two times 32 bytes.
        numbers = []
        position = 2
        for _ in range(2):
            length = made[position + 1]
            numbers.append(made[position + 2 : position + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
            position += 2 + length
        return b"".join(numbers)

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class LyingRegistry(Server):
    """A registry of pages, which a test may change; with TLS when there is an authority.

    Attributes:
        name: host and port, the first component of references; without the port, when that is 443.
    """

    def __init__(self, authority: Authority | None = None, **options: Any) -> None:
        host = loopback_address()
        super().__init__(
            address=host,
            port=443 if authority else PORT,
            certificate=authority.issue(host) if authority else None,
            **options,
        )
        self.host = host
        self.name = host if authority else f"{host}:{PORT}"
        scheme = "https" if authority else "http"
        self.base = f"{scheme}://{self.name}"

    def manifest(self, repository: str, reference: str, data: bytes, **page: Any) -> Page:
        """Serve a manifest or an index by tag or digest."""
        headers = {
            "Content-Type": json.loads(data).get("mediaType", ""),
            "Docker-Content-Digest": digest(data),
        }
        served = Page(data, headers={**headers, **page.pop("headers", {})}, **page)
        self.put(f"/v2/{repository}/manifests/{reference}", served)
        return served

    def blob(self, repository: str, data: bytes, name: str = "", **page: Any) -> Page:
        """Serve a blob, perhaps by a digest that is not its own."""
        served = Page(data, ranges=True, **page)
        self.put(f"/v2/{repository}/blobs/{name or digest(data)}", served)
        return served

    def artifact(
        self, manifest: bytes, blobs: Mapping[str, bytes], repository: str = "app", tag: str = ""
    ) -> dict[str, Any]:
        """Serve a manifest that is no image's, by digest and perhaps by tag; returns its entry in an index."""
        for reference in filter(None, (digest(manifest), tag)):
            self.manifest(repository, reference, manifest)
        for data in blobs.values():
            self.blob(repository, data)
        document = json.loads(manifest)
        entry = {"mediaType": document["mediaType"], "digest": digest(manifest), "size": len(manifest)}
        return {**entry, **({"artifactType": document["artifactType"]} if "artifactType" in document else {})}

    def refer(
        self, image_digest: str, *entries: dict[str, Any], repository: str = "app", **page: Any
    ) -> None:
        """Serve referrers by the API of distribution 1.1."""
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        served = Page(json_bytes(index), headers={"Content-Type": OCI_INDEX}, **page)
        self.put(f"/v2/{repository}/referrers/{image_digest}", served)

    def image(self, image: Image, repository: str = "app", tag: str = "latest", **page: Any) -> str:
        """Serve an image by tag and digest; returns what follows ``docker://``."""
        for reference in (tag, image.digest):
            self.manifest(repository, reference, image.manifest, **page)
        for data in image.blobs.values():
            if data != image.manifest:
                self.blob(repository, data, **page)
        return f"{self.name}/{repository}:{tag}"

    def cleared(self) -> Self:
        """As if nothing had been served or asked for yet."""
        self.pages.clear()
        self.requests.clear()
        self.sent.clear()
        return self

    def sent_to(self, header: str) -> list[str]:
        """Values of a header of all requests that had it."""
        return [request.headers[header] for request in self.requests if header in request.headers]


class Client:
    """A command that fetches through the worker; what it has is below ``base``.

    Attributes:
        settings: of the command.
        messages, events: what it and its worker said.
        documents: what the worker wrote when it resolved a reference last.
    """

    def __init__(self, base: str, *, insecure: str = "none", **settings: Any) -> None:
        self.base = base
        self.settings = Settings(
            installation=INSTALLATION,
            data_dir=f"{base}/data",
            system_config_dir=f"{base}/system",
            local_config_dir=f"{base}/local",
            insecure=InsecureOptions.parse(insecure),
            **settings,
        )
        self.messages: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.documents: dict[str, bytes] = {}
        setup_data_dir(self.settings.data_dir)

    def configure(self, name: str, content: dict[str, Any], mode: int = 0o600) -> None:
        """A configuration file: ``fetch.d/NAME.json``."""
        path = f"{self.base}/local/{name}.json"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            json.dump({"rktVersion": "v1", **content}, file)
        os.chmod(path, mode)

    def accept(self, authority: Authority, *hosts: str) -> None:
        """Accept the private root for hosts."""
        self.configure("fetch.d/roots", {"rktKind": "tls", "hosts": list(hosts), "roots": authority.root})

    def login(self, *registries: str, password: str = PASSWORD) -> None:
        """Configure the credentials for registries."""
        self.configure(
            "auth.d/docker",
            {
                "rktKind": "dockerAuth",
                "registries": list(registries),
                "credentials": {"user": USER, "password": password},
            },
        )

    def source(self, reference: str, platform: Platform | None = None) -> RegistrySource:
        """Of a reference, with or without ``docker://``."""
        return RegistrySource(
            parse_docker(reference.removeprefix("docker://")),
            self.settings,
            platform or Platform.of_host(),
            message=self.messages.append,
            debug=self.messages.append,
        )

    def repository(self, reference: str) -> Repository:
        """What the worker asks, in this process; its connections are closed with it."""
        parsed = parse_docker(reference.removeprefix("docker://"))
        client = worker.make_client(describe_way(self.settings, tls_insecure=False))
        return Repository(client, describe_endpoints(parsed, self.settings)[-1])

    def resolve(
        self, reference: str, platform: Platform | None = None, *, known: str = ""
    ) -> Resolved | None:
        """Find the manifest of a reference; its documents are kept."""
        with Staging(self.settings.data_dir) as staging:
            resolved = self.source(reference, platform).resolve(staging, Digest(known) if known else None)
            for name in ("index", "manifest", "config"):
                path = f"{staging.path}/{name}"
                if os.path.exists(path):
                    with open(path, "rb") as file:
                        self.documents[name] = file.read()
            return resolved

    def pull(self, reference: str, *, there: dict[int, bytes] | None = None) -> list[bytes]:
        """All layers of what a reference stands for; ``there`` is what earlier attempts left of some of them."""
        resolved = self.resolve(reference)
        assert resolved is not None
        manifest = parse_manifest(self.documents["manifest"], resolved.media_type)
        wanted = [(layer.digest, layer.size_bytes) for layer in manifest.layers]
        return [data for _, data in self.blobs(reference, wanted, there=there)]

    def blobs(
        self, reference: str, wanted: Sequence[tuple[str, int]], *, there: dict[int, bytes] | None = None
    ) -> list[tuple[Received, bytes]]:
        """Blobs, by digest and size."""
        from rkt.fetch.resume import Validators

        with ExitStack() as stack:
            blobs = []
            for index, (name, size) in enumerate(wanted):
                fds = [os.memfd_create("blob") for _ in range(2)]
                for fd in fds:
                    stack.callback(os.close, fd)
                if there and index in there:
                    os.write(fds[0], there[index])
                    os.pwrite(fds[1], Validators(url=name, size_bytes=size).seal(), 0)
                blobs.append(Blob(digest=Digest(name), size_bytes=size, fd=fds[0], validators_fd=fds[1]))
            received = self.source(reference).blobs(blobs, self.events.append)
            return [
                (result, os.pread(blob.fd, blob.size_bytes + 1, 0))
                for result, blob in zip(received, blobs, strict=True)
            ]


def work_here(
    kind: str,
    request: dict[str, Any],
    fds: Mapping[str, int],
    installation: Installation,
    **options: Any,
) -> dict[str, Any]:
    """What ``rkt-fetch`` would answer, in this process; stands in for ``run_worker``."""
    assert kind == "fetch"
    assert installation is INSTALLATION
    tell = options.get("on_event") or (lambda _: None)
    # As it comes out of the worker's socket.
    decoded: dict[str, Any] = json.loads(json.dumps(request))
    try:
        answer: dict[str, Any] = worker.prepare(decoded).run(dict(fds), tell)
    finally:
        # A worker ends with them.
        for thread in threading.enumerate():
            if thread.name == "blobs":
                thread.join(20 * SLOWNESS)
    return answer


def challenge(realm: str, service: str = "here") -> str:
    """``WWW-Authenticate`` of a registry that wants a token."""
    return f'Bearer realm="{realm}",service="{service}",scope="repository:other:push,pull"'


def sha256(data: bytes) -> str:
    """Hex digits."""
    return hashlib.sha256(data).hexdigest()
