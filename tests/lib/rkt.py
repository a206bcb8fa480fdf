# SPDX-License-Identifier: Apache-2.0
"""Runs ``bin/rkt`` with directories of its own, and proves afterwards that nothing of it is left on the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tests.lib import flavors, host
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.join(ROOT, "bin", "rkt")
STATE_DIRECTORIES = ("embryo", "prepare", "prepared", "run", "exited-garbage", "garbage")
#: A loaded machine with two cores needs this long for the slowest single command. As every time here and in
#: ``Running.wait``, it is of a usual machine: see ``tests/lib/pace.py``.
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    args: tuple[str, ...]
    stdout: str
    stderr: str
    status: int

    @property
    def lines(self) -> list[str]:
        """Lines of the standard output."""
        return self.stdout.splitlines()

    def __str__(self) -> str:
        return (
            f"$ {' '.join(self.args)}\n--- status {self.status}\n--- stdout\n{self.stdout}\n"
            f"--- stderr\n{self.stderr}"
        )


class Rkt:
    """One engine with private data, configuration, home and temporary directories below ``base``.

    Attributes:
        base: directory that holds all of it; its path is what leak checks look for, so it must be unique.
        data, local, system, home, tmp: the directories.
        flavor: which stage1 pods get.
    """

    def __init__(
        self, base: str, binary: str = BINARY, *, prefix: tuple[str, ...] = (), flavor: str = flavors.DEFAULT
    ) -> None:
        self.base = base
        self.flavor = flavor
        self.binary = binary
        #: Words before each command, that have it run elsewhere.
        self.prefix = prefix
        self.data = os.path.join(base, "data")
        self.local = os.path.join(base, "local")
        self.system = os.path.join(base, "system")
        self.home = os.path.join(base, "home")
        self.tmp = os.path.join(base, "tmp")
        for directory in (self.data, self.local, self.system, self.home, self.tmp):
            os.makedirs(directory)
        # Tests whose point is no network get none, and change nothing on the host; see ``use_the_usual_network``.
        self._default_network = os.path.join(self.system, "network.d", "default.json")
        os.makedirs(os.path.dirname(self._default_network))
        with open(self._default_network, "w", encoding="ascii") as stream:
            stream.write('{"rktKind": "network", "rktVersion": "v1", "default": ["none"]}')
        flavors.configure(self.system, flavor)
        self._started: list[Running] = []
        self._uuids: set[str] = set()
        self._presence = host.Presence()
        self._before = host.snapshot(base)

    def use_the_usual_network(self) -> None:
        """Have pods without ``--net`` get what they get without any configuration; only for hosts of a test's own."""
        os.unlink(self._default_network)

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """A small environment; nothing of the caller's leaks into tests."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": self.home,
            "TMPDIR": self.tmp,
            "LANG": "C.UTF-8",
            **(extra or {}),
        }

    def command(self, *args: str) -> list[str]:
        """The command line with the private directories."""
        return [
            *self.prefix,
            self.binary,
            f"--dir={self.data}",
            f"--local-config={self.local}",
            f"--system-config={self.system}",
            *args,
        ]

    def run(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as in subprocess
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        check: int | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Result:
        """Run a command to its end.

        Args:
            args: what follows ``rkt`` and the directories.
            input: text for the standard input, which is empty otherwise.
            env: added to the small environment.
            cwd: working directory, ``base`` unless given.
            check: exit status that is required; ``None`` accepts every one.
            timeout: seconds; a command that takes longer fails the test.
        """
        words = self.command(*args)
        # Files instead of pipes: a pod that outlives the command must not keep the test waiting for end of file.
        with self.popen(*args, env=env, cwd=cwd, stdin_text=input) as process:
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(
                    f"no end within {timeout} s\n{Result(tuple(words), *process.texts(), -signal.SIGKILL)}"
                ) from None
            result = Result(tuple(words), *process.texts(), status)
        self._started.remove(process)
        self._note_pods()
        if check is not None:
            assert result.status == check, f"status {check} was expected\n{result}"
        return result

    def popen(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        stdin_text: str | None = None,
        stdin: int | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> Running:
        """Start a command and return at once; its output goes to files, see ``Running``."""
        process = Running(
            self.command(*args),
            directory=self.tmp,
            env=self.environment(env),
            cwd=cwd or self.base,
            stdin_text=stdin_text,
            stdin=stdin,
            pass_fds=pass_fds,
        )
        self._started.append(process)
        return process

    def pods(self, *states: str) -> dict[str, str]:
        """UUID -> name of the state directory, of the states named or all."""
        found = {}
        for state in states or STATE_DIRECTORIES:
            directory = os.path.join(self.data, "pods", state)
            if os.path.isdir(directory):
                found.update(dict.fromkeys(os.listdir(directory), state))
        return found

    def pod_path(self, uuid: str) -> str:
        """Directory of a pod."""
        return os.path.join(self.data, "pods", self.pods()[uuid], uuid)

    def wait_for_pod(self, *, seconds: float = 20.0) -> str:
        """UUID of the only pod, once stage1 has written its pid file."""
        return wait_for(self._running_uuid, "a pod with a pid file", seconds=seconds)

    def pid(self, uuid: str) -> int:
        """The pod's pid 1 as seen on the host."""
        with open(os.path.join(self.pod_path(uuid), "pid"), encoding="ascii") as stream:
            return int(stream.read())

    def log(self, uuid: str, app: str) -> str:
        """Text of an app's log file."""
        path = os.path.join(self.pod_path(uuid), "logs", f"{app}.log")
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def _running_uuid(self) -> str | None:
        for uuid in self.pods("run"):
            path = os.path.join(self.data, "pods", "run", uuid, "pid")
            if os.path.exists(path) and os.path.getsize(path):
                return uuid
        return None

    def _note_pods(self) -> None:
        self._uuids.update(self.pods())

    def leaks(self, *, seconds: float = host.SETTLE_SECONDS) -> list[str]:
        """What is on the host now because of this engine and was not there before.

        Only what carries our directory, or a UUID of one of our pods, counts: other programs may come and go
        meanwhile. Network interfaces have no mark: new ones count when no other test runs on this host.
        """
        self._note_pods()
        marks = (self.base, *self._uuids)

        def ours() -> list[str]:
            added = host.snapshot(self.base).added_since(self._before)
            return [
                line
                for line in added
                if line.startswith("process ")
                or (line.startswith("interface: ") and self._presence.is_alone())
                or any(mark in line for mark in marks)
            ]

        deadline = time.monotonic() + seconds * SLOWNESS
        while (left := ours()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def stop_everything(self) -> None:
        """Stop running pods, kill commands that still run; only processes that are ours."""
        self._note_pods()
        for uuid in self.pods("run"):
            self.run("stop", "--force", uuid, timeout=20)
        for process in list(self._started):
            if process.poll() is None:
                process.kill()
            process.wait(20)
            process.close()
        self._started.clear()

    def close(self) -> None:
        """Stop, collect garbage, and fail if anything is left on the host.

        Raises:
            AssertionError: naming what is left.
        """
        try:
            self.stop_everything()
            problems = []
            if pods := self.pods():
                # Each is collected by a program of its flavour.
                seconds = TIMEOUT_SECONDS + 2 * len(pods)
                result = self.run("gc", "--grace-period=0", "--expire-prepared=0", timeout=seconds)
                if result.status != 0:
                    problems.append(f"rkt gc failed\n{result}")
                if pods := self.pods():
                    problems.append(f"pods after gc: {pods}\n{result}")
            problems += self.leaks()
        finally:
            self._kill_leftovers()
            self._presence.end()
            remove_tree(self.base)
        assert not problems, "left behind:\n" + "\n".join(problems)

    def _kill_leftovers(self) -> None:
        """After a failure: the next test must not suffer from this one."""
        for process in host.processes(self.base):
            try:
                descriptor = os.pidfd_open(process.pid)
            except OSError:
                continue
            try:
                # Opened, then looked at again: the number may have been given to another process.
                if process in host.processes(self.base):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)
        for path in sorted(host.cgroups() - self._before.cgroups, key=len, reverse=True):
            if any(uuid in path for uuid in self._uuids):
                with contextlib.suppress(OSError):  # a process that was killed a moment ago
                    os.rmdir(path)
        for mount in sorted(host.mounts(), key=lambda m: m.mount_id, reverse=True):
            if mount.point.startswith(self.base + "/"):
                subprocess.run(["umount", "--lazy", mount.point], check=False)


class Running(subprocess.Popen[str]):
    """A command that was started; what it prints can be read while it runs and after."""

    def __init__(
        self,
        args: list[str],
        *,
        directory: str,
        env: dict[str, str],
        cwd: str,
        stdin_text: str | None,
        stdin: int | None,
        pass_fds: tuple[int, ...],
    ) -> None:
        self._files = [_unnamed_file(directory) for _ in range(3)]
        if stdin_text is not None:
            os.write(self._files[0], stdin_text.encode())
            os.lseek(self._files[0], 0, os.SEEK_SET)
        source = stdin
        if source is None:
            source = subprocess.DEVNULL if stdin_text is None else self._files[0]
        super().__init__(
            args,
            stdin=source,
            stdout=self._files[1],
            stderr=self._files[2],
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
        )

    def wait(self, timeout: float | None = None) -> int:
        """As in ``subprocess``; seconds are those of a usual machine."""
        return super().wait(None if timeout is None else timeout * SLOWNESS)

    def texts(self) -> tuple[str, str]:
        """Standard output and standard error so far."""
        if not self._files:
            return self._kept
        return _content(self._files[1]), _content(self._files[2])

    @property
    def stdout_text(self) -> str:
        """Standard output so far."""
        return self.texts()[0]

    @property
    def stderr_text(self) -> str:
        """Standard error so far."""
        return self.texts()[1]

    def close(self) -> None:
        """Keep what was printed, close the files."""
        if self._files:
            self._kept = self.texts()
            for descriptor in self._files:
                os.close(descriptor)
            self._files = []

    def __exit__(self, *exception: object) -> None:
        self.wait()
        self.close()


def _unnamed_file(directory: str) -> int:
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _content(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def wait_for(probe: Callable[[], T | None], what: str, *, seconds: float = 20.0) -> T:
    """The first true answer of ``probe``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still no {what} after {seconds} s"
        time.sleep(0.01)
    return answer


def remove_tree(path: str) -> None:
    """Remove a directory, whatever modes are in it."""
    shutil.rmtree(path, ignore_errors=False)
