# SPDX-License-Identifier: Apache-2.0
"""Small runnable images for functional tests: busybox, with or without a signature."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from tests.lib.aci import write_aci
from tests.lib.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lib.keys import Key
    from tests.lib.rkt import Rkt

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = b"root:x:0:\nnogroup:x:65534:\nalice:x:1000:\nextra:x:2000:alice\n"
_APPLETS = (
    "cat chmod cp cut date dd df echo env expr false grep head hostname id ip kill ln ls mkdir mknod mount mv nc ping ps "
    "pwd readlink rm sed seq sh sleep sort stat su tail test touch tr true tty uname umount unshare wc wget which whoami"
)


class Images:
    """Makes images below one directory, each once.

    Attributes:
        directory: where the files are.
        ring: a key ring with one key, made when it is first needed.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.ids: dict[str, str] = {}
        self._wishes: dict[str, str] = {}
        self._ring: KeyRing | None = None
        self._key: Key | None = None
        path = shutil.which("busybox")
        assert path is not None, "busybox is not installed: run make setup"
        with open(path, "rb") as stream:
            self._busybox = stream.read()

    def busybox(
        self,
        name: str = "example.com/busybox",
        exec_: Iterable[str] | None = ("/bin/sh",),
        *,
        file: str = "",
        files: dict[str, bytes | tuple[bytes, int]] | None = None,
        without: Iterable[str] = (),
        **more: Any,
    ) -> str:
        """Path of an unsigned image with busybox, users and groups; keywords as for ``write_aci``.

        Args:
            name: image name.
            exec_: its program and arguments.
            file: base name of the file; give one when the other arguments differ from those of an earlier image.
            files: more files, path below the root -> content or (content, mode).
            without: paths of usual files to leave out.
            more: see ``tests.lib.aci.write_aci``.
        """
        base = file or name.replace("/", "-")
        path = os.path.join(self.directory, f"{base}.aci")
        wish = repr(
            (name, None if exec_ is None else list(exec_), files, list(without), sorted(more.items()))
        )
        assert self._wishes.setdefault(path, wish) == wish, f"{base}.aci is another image: give a file name"
        if not os.path.exists(path):
            links = {f"bin/{applet}": "busybox" for applet in _APPLETS.split()} | more.pop("links", {})
            usual: dict[str, bytes | tuple[bytes, int]] = {
                "bin/busybox": (self._busybox, 0o755),
                "etc/passwd": PASSWD,
                "etc/group": GROUP,
            }
            self.ids[path] = write_aci(
                path,
                exec_,
                name=name,
                files={key: value for key, value in usual.items() if key not in without} | (files or {}),
                links=links,
                **more,
            )
        return path

    def script(self, name: str, text: str, **more: Any) -> str:
        """Path of an unsigned image whose app is a shell script."""
        return self.busybox(
            name, ("/script",), files={"script": (b"#!/bin/sh\n" + text.encode(), 0o755)}, **more
        )

    @property
    def ring(self) -> KeyRing:
        """The key ring."""
        if self._ring is None:
            self._ring = KeyRing()
        return self._ring

    @property
    def key(self) -> Key:
        """A good key."""
        if self._key is None:
            self._key = self.ring.make("signer@example.com")
        return self._key

    @property
    def key_file(self) -> str:
        """Its public half, in a file."""
        path = os.path.join(self.directory, "key.asc")
        if not os.path.exists(path):
            with open(path, "wb") as stream:
                stream.write(self.ring.export(self.key))
        return path

    def sign(self, path: str, key: Key | None = None) -> str:
        """Put a detached signature beside an image; the signature's path."""
        with open(path, "rb") as stream:
            signature = self.ring.sign(key or self.key, stream.read())
        with open(f"{path}.asc", "wb") as stream:
            stream.write(signature)
        return f"{path}.asc"

    def close(self) -> None:
        """Remove the key ring; the directory is the caller's."""
        if self._ring is not None:
            self._ring.close()


def fetch(rkt: Rkt, path: str) -> str:
    """Put an unsigned image into the engine's store; its key as ``fetch`` printed it."""
    result = rkt.run("--insecure-options=image", "fetch", path, check=0)
    return result.lines[-1].strip()
