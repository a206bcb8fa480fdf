# SPDX-License-Identifier: Apache-2.0
"""A systemd that is booted by systemd-nspawn on the host's ``/usr``, with units of the test's, without rkt around it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from rkt.stage1.nspawn import dbus
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: In namespaces of its own: the root is a tmpfs, so nothing is left behind.
_PREPARE = """
set -e
root=$1; files=$2; filter=$3; shift 3
mount -t tmpfs tmpfs "$root"
mkdir -p "$root"/usr "$root"/etc "$root"/proc "$root"/sys "$root"/dev "$root"/run "$root"/tmp "$root"/var
for name in bin sbin lib lib64; do test ! -e "/$name" || ln -s "usr/$name" "$root/$name"; done
mount --rbind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
app="$root/opt/stage2/web/rootfs"
mkdir -p "$app"
mount -t tmpfs tmpfs "$app"
mkdir "$app"/usr "$app"/proc "$app"/sys "$app"/dev "$app"/run "$app"/tmp "$app"/etc
for name in bin sbin lib lib64; do test ! -e "/$name" || ln -s "usr/$name" "$app/$name"; done
mount --bind "$root/usr" "$app/usr"
mount -o bind,ro /sys "$app/sys"
mount --rbind /dev "$app/dev"
mount -t tmpfs tmpfs "$app/run"
cp -a "$files/." "$root/"
exec "$PYTHON" -c "$LOAD" "$filter" "$@"
"""
_LOAD = """
import os, sys
sys.path.insert(0, os.environ["SOURCE"])
from rkt.linux import libc
if sys.argv[1]:
    with open(sys.argv[1], "rb") as file:
        libc.seccomp_load(file.read())
os.execv(sys.argv[2], sys.argv[2:])
"""
_SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "src")
#: Of the app, as the pod sees it.
APP_ROOT = "/opt/stage2/web/rootfs"
_NSPAWN = "/usr/bin/systemd-nspawn"
BOOT_SECONDS = 20.0

needs_nspawn = pytest.mark.skipif(not os.path.exists(_NSPAWN), reason="systemd-nspawn is not installed")


class Booted:
    """The pod; ``close`` ends it. There is a root for one app, ``APP_ROOT``, whose programs are the host's.

    Args:
        files: content by name below the pod's root; ``str`` is a link's target.
        pipes: named pipes there.
        filter_program: of system calls, for all of it.
    """

    def __init__(
        self,
        files: Mapping[str, bytes | str],
        *,
        pipes: Sequence[str] = (),
        filter_program: bytes = b"",
    ) -> None:
        self._directory = tempfile.mkdtemp(prefix="rkt-test-")
        content = os.path.join(self._directory, "files")
        machine = {"etc/machine-id": b"0123456789abcdef0123456789abcdef\n", "etc/os-release": b"ID=test\n"}
        for name, data in {**machine, **files}.items():
            path = os.path.normpath(os.path.join(content, name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if isinstance(data, str):
                os.symlink(data, path)
            else:
                with open(path, "wb") as file:
                    file.write(data)
        for name in pipes:
            path = os.path.join(content, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkfifo(path)
        root = os.path.join(self._directory, "root")
        os.mkdir(root)
        filter_path = ""
        if filter_program:
            filter_path = os.path.join(self._directory, "filter")
            with open(filter_path, "wb") as file:
                file.write(filter_program)
        address = os.path.join(self._directory, "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(address)
        self.leader = self.leader_fd = -1
        words = [
            _NSPAWN, "--boot", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes", "--link-journal=no",
            f"--directory={root}", "--console=pipe", "--setenv=SYSTEMD_UNIT_PATH=/rkt/units",
            "--", "--log-target=null", "--show-status=0",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["unshare", "-m", "--propagation=private", "/bin/sh", "-c", _PREPARE, "-", root, content, filter_path, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": address,
                "PYTHON": sys.executable,
                "LOAD": _LOAD,
                "SOURCE": _SOURCE,
            },
        )  # fmt: skip
        try:
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def _await_ready(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS * SLOWNESS
        while True:
            remaining = deadline - time.monotonic()
            if not select.select([self._notify], [], [], max(remaining, 0))[0]:
                pytest.fail("systemd did not boot")
            for line in self._notify.recv(4096).decode().splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = int(line.partition("=")[2])
                    self.leader_fd = os.pidfd_open(self.leader)
                elif line == "READY=1":
                    return

    def connect(self) -> dbus.Manager:
        """Speak to its systemd."""
        return dbus.connect(self.leader, self.leader_fd, deadline=time.monotonic() + BOOT_SECONDS * SLOWNESS)

    def path(self, name: str) -> str:
        """A file of the pod's as the host reaches it."""
        return f"/proc/{self.leader}/root/{name}"

    def wait(self) -> int:
        """Until it has ended; the status of systemd-nspawn."""
        return self._process.wait(BOOT_SECONDS * SLOWNESS)

    def close(self) -> None:
        """End it, and whatever is in it."""
        if self.leader_fd >= 0:
            try:
                signal.pidfd_send_signal(self.leader_fd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(self.leader_fd)
            self.leader_fd = -1
        else:
            self._process.kill()
        try:
            self._process.communicate(timeout=BOOT_SECONDS * SLOWNESS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._notify.close()
        shutil.rmtree(self._directory)
