# SPDX-License-Identifier: Apache-2.0
"""Users of the group ``rkt`` and others: real user ids, a real group id, and no entry in the host's files."""

from __future__ import annotations

import functools
import grp
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rkt.store.layout import setup_data_dir
from tests.lib.rkt import TIMEOUT_SECONDS, Result

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

ALICE, BOB = 4321, 4322
#: The host's group where it has one, because root gives what it makes to that.
GROUP = next((group.gr_gid for group in grp.getgrall() if group.gr_name == "rkt"), 54321)
KEY_PREFIX = "example.com"
ARCH = {"x86_64": "amd64", "i686": "i386"}.get(os.uname().machine, os.uname().machine)
#: So that the image is found by its name on this host.
LABELS = {"os": "linux", "arch": ARCH, "version": "1.0"}


class Members:
    """A data directory that members of the group may use, made by root.

    Attributes:
        incoming: where members keep what they fetch.
    """

    def __init__(self, rkt: Rkt) -> None:
        self.rkt = rkt
        self.incoming = os.path.join(rkt.data, "cas", "incoming")
        os.chmod(rkt.base, 0o755)
        if not _is_open_to_others(rkt.binary):
            pytest.skip("the checkout is closed to other users")
        setup_data_dir(rkt.data)
        for directory, _, files in os.walk(rkt.data):
            for path in (directory, *(os.path.join(directory, name) for name in files)):
                mode = os.stat(path).st_mode & 0o7777
                os.chown(path, 0, GROUP)
                os.chmod(path, mode)
        os.chmod(rkt.data, 0o2750)

    def run(self, uid: int, *args: str, check: int | None = None, member: bool = True) -> Result:
        """Run a command as a user with nothing but this id, and the group where it is a member."""
        words = self.rkt.command(*args)
        done = subprocess.run(
            words,
            **_as(uid, member=member),
            env=self.rkt.environment(),
            cwd=self.rkt.base,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        result = Result(tuple(words), done.stdout, done.stderr, done.returncode)
        if check is not None:
            assert result.status == check, f"status {check} was expected\n{result}"
        return result

    def start(self, uid: int, *args: str) -> subprocess.Popen[str]:
        """Start a command as a member and return at once."""
        return subprocess.Popen(
            self.rkt.command(*args),
            **_as(uid),
            env=self.rkt.environment(),
            cwd=self.rkt.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def trust(self, images: Images, prefix: str = KEY_PREFIX) -> None:
        """Let the images' key count for a prefix."""
        directory = os.path.join(self.rkt.local, "trustedkeys", "prefix.d", prefix)
        os.makedirs(directory)
        with open(os.path.join(directory, images.key.fingerprint), "wb") as file:
            file.write(read(images.key_file))

    def distrust(self) -> None:
        """Let no key count any more."""
        shutil.rmtree(os.path.join(self.rkt.local, "trustedkeys"))

    def publish(self, images: Images, path: str, *, sign: bool = True) -> str:
        """A copy of an image, and its signature, that everybody can read; its path."""
        if sign and not os.path.exists(f"{path}.asc"):
            images.sign(path)
        target = os.path.join(self.rkt.base, os.path.basename(path))
        for suffix in ("", ".asc") if sign else ("",):
            shutil.copyfile(path + suffix, target + suffix)
            os.chmod(target + suffix, 0o644)
        return target

    def home(self, uid: int) -> str:
        """The user's directory in the spool."""
        paths = [os.path.join(self.incoming, name) for name in os.listdir(self.incoming)]
        (home,) = [path for path in paths if os.lstat(path).st_uid == uid and f"/{uid}-" in path]
        return home

    def kept(self, uid: int) -> list[str]:
        """What the user keeps of images: names of blobs and signatures."""
        return sorted(os.listdir(os.path.join(self.home(uid), "cas", "blob")))

    def names(self, uid: int = 0, *, member: bool = True) -> dict[str, str]:
        """What ``image list`` shows a user: name -> verdict, stage1 images left out."""
        words = ("image", "list", "--no-legend", "--fields=name,verdict")
        result = self.rkt.run(*words, check=0) if uid == 0 else self.run(uid, *words, check=0, member=member)
        rows = dict(line.split("\t", 1) for line in result.lines)
        return {name: verdict.strip() for name, verdict in rows.items() if "/stage1-" not in name}

    def records(self) -> list[str]:
        """Keys of root's images."""
        return sorted(os.listdir(os.path.join(self.rkt.data, "cas", "record")))


@functools.cache
def _is_open_to_others(binary: str) -> bool:
    done = subprocess.run([binary, "version"], **_as(ALICE), capture_output=True, check=False)
    return done.returncode == 0


def read(path: str) -> bytes:
    """Content of a file."""
    with open(path, "rb") as file:
        return file.read()


def _as(uid: int, *, member: bool = True) -> dict[str, Any]:
    return {"user": uid, "group": uid, "extra_groups": [GROUP] if member else []}


def signed(images: Images, members: Members, name: str = "example.com/app", **more: Any) -> str:
    """A signed image that prints ``hello``, readable for everybody; its path."""
    file = str(more.pop("file", "")) or name.replace("/", "-") + "-member"
    labels = {**LABELS, **more.pop("labels", {})}
    path = images.busybox(name, ("/bin/echo", "hello"), file=file, labels=labels, **more)
    return members.publish(images, path)
