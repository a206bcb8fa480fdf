# SPDX-License-Identifier: Apache-2.0
"""A host that publishes images by discovery: HTTPS on port 443 of a loopback address, vouched for by a private root.

An address such as 127.3.4.5 is a valid first component of an image name, and each site has one of its own.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

from tests.lib.aci import write_aci
from tests.lib.server import Authority, Page, Server

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from tests.lib.keys import Key, KeyRing
    from tests.lib.rkt import Rkt

_numbers = itertools.count(2)


def loopback_address() -> str:
    """An address that nobody else in this run of the tests has."""
    return f"127.{10 + os.getpid() % 200}.{os.getpid() // 200 % 250}.{next(_numbers)}"


class Site:
    """The host; ``name`` is what images on it are called.

    Attributes:
        host: the address, also the first component of names.
        server: what answers.
        https: whether it does by TLS.
    """

    def __init__(self, authority: Authority, *, https: bool = True) -> None:
        self.authority = authority
        self.host = loopback_address()
        self.server = Server(
            certificate=authority.issue(self.host) if https else None,
            address=self.host,
            port=443 if https else 80,
        )

    def name(self, path: str = "app") -> str:
        """An image name."""
        return f"{self.host}/{path}"

    def url(self, path: str) -> str:
        """As clients see it."""
        scheme, _, _ = self.server.url.partition("://")
        return f"{scheme}://{self.host}{path}"

    def discoverable(self, path: str, content: str, *, kind: str = "ac-discovery", **page: Any) -> None:
        """Make the page of a name say where something is."""
        html = f"<!DOCTYPE html><html><head><title>x</title>\n<meta name='{kind}' content='{content}'></head></html>"
        self.server.put(f"{path}?ac-discovery=1", Page(html.encode(), **page))

    def lead_to_images(self, *names: str) -> None:
        """Make the pages of these names lead to /images/NAME.aci."""
        for name in names:
            self.discoverable(f"/{name}", f"{self.host} {self.url(f'/images/{name}.{{ext}}')}")

    def image(
        self,
        rkt: Rkt,
        name: str = "app",
        *,
        path: str = "",
        signer: tuple[KeyRing, Key] | None = None,
        page: dict[str, Any] | None = None,
        signature: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> str:
        """Serve an image of this site and, with a signer, its signature; returns the image's URL."""
        file = os.path.join(rkt.base, "site.aci")
        files = manifest.pop("files", {"bin/app": (b"hello", 0o755)})
        write_aci(file, ["/bin/app"], name=self.name(name), files=files, compression="gzip", **manifest)
        with open(file, "rb") as stream:
            data = stream.read()
        path = path or f"/images/{name}.aci"
        self.server.put(path, Page(data, **(page or {})))
        if signer is not None:
            ring, key = signer
            self.server.put(f"{path}.asc", Page(ring.sign(key, data), **(signature or {})))
        return self.url(path)

    def configure(self, rkt: Rkt) -> None:
        """Let rkt accept the private root for this host."""
        directory = os.path.join(rkt.local, "fetch.d")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"{self.host}.json"), "w", encoding="ascii") as file:
            json.dump(
                {"rktKind": "tls", "rktVersion": "v1", "hosts": [self.host], "roots": self.authority.root},
                file,
            )

    def close(self) -> None:
        """Stop answering."""
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_config(
    rkt: Rkt, name: str, content: dict[str, Any], *, system: bool = False, mode: int = 0o600
) -> str:
    """A configuration file with ``rktVersion`` filled in; returns its path."""
    path = os.path.join(rkt.system if system else rkt.local, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        json.dump({"rktVersion": "v1", **content}, file)
    os.chmod(path, mode)
    return path
