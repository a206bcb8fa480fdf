# SPDX-License-Identifier: Apache-2.0
"""Pods of the kit's app: begun, watched, looked into from outside."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct

from rkt.conformance import app
from rkt.errors import RktError
from rkt.linux import libc
from rkt.pod import status
from rkt.stage0 import contract, roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.conformance.bench import Bench, Process
    from rkt.conformance.promises import Report
    from rkt.conformance.subject import Subject
    from rkt.pod.lifecycle import Pod

#: Name of the app in its pods.
APP = "app"
#: Words that only survive who passes words on as they are.
ODD_WORDS = ("", "two  words", "a'b\"c$d\\e")
_EVENT = struct.Struct("iIII")
_WRITTEN = libc.IN_CREATE | libc.IN_MODIFY | libc.IN_CLOSE_WRITE | libc.IN_MOVED_TO


class Broken(Exception):
    """What comes next in a round needs what failed."""


class Watch:
    """The order in which files of a pod directory are written."""

    def __init__(self, path: str) -> None:
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        libc.inotify_add_watch(self._fd, path.encode(), _WRITTEN | libc.IN_ONLYDIR)

    def names(self) -> list[str]:
        """Names, each time something was done to a file; ends the watch."""
        found: list[str] = []
        try:
            while True:
                try:
                    data = os.read(self._fd, 1 << 16)
                except BlockingIOError:
                    return found
                place = 0
                while place < len(data):
                    _, _, _, length = _EVENT.unpack_from(data, place)
                    place += _EVENT.size
                    found.append(data[place : place + length].rstrip(b"\0").decode(errors="replace"))
                    place += length
        finally:
            os.close(self._fd)


class Trial:
    """One pod, and the process that is to be it."""

    def __init__(self, uuid: str, process: Process, pod: Pod, token: str, watch: Watch | None) -> None:
        self.uuid = uuid
        self.process = process
        self.pod = pod
        self.token = token
        self.watch = watch

    @property
    def is_running(self) -> bool:
        """Whether rkt takes it for running."""
        return self.pod.refresh() and self.pod.is_running

    def path_of(self, name: str, app_name: str = APP) -> str:
        """Where on the host a file of the app's root is, as far as the app wrote it."""
        if self.pod.has(contract.OVERLAY_PREPARED):
            key = roots.tree_key(self.pod, app_name)
            return f"{self.pod.path}/{roots.upper_path(key, app_name)}/{name}"
        return f"{self.pod.path}/{roots.app_root(app_name)}/{name}"

    def read(self, name: str, app_name: str = APP) -> str:
        """A file that the app wrote; empty while there is none."""
        try:
            with open(self.path_of(name, app_name), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (OSError, RktError):
            return ""

    def forget(self, name: str) -> None:
        """Remove a file that the app wrote, of a pod that is over."""
        try:
            os.unlink(self.path_of(name))
        except FileNotFoundError:
            pass

    def is_up(self, app_name: str = APP) -> bool:
        """Whether the app has told what it found."""
        return self.read(app.REPORT, app_name).endswith("end\n")

    def status_file(self, name: str = APP) -> str | None:
        """Text of a file in ``rkt/status``."""
        path = f"{status.stage1_writable_root(self.pod)}/{contract.STATUS_DIR}/{name}"
        data = self.pod.read(path)
        return None if data is None else data.decode(errors="replace")

    def supervisor_status(self) -> str:
        """Target of the link that says that stage1 is up; empty without it."""
        try:
            path = f"{status.stage1_writable_root(self.pod)}/{contract.SUPERVISOR_STATUS}"
            return os.readlink(path, dir_fd=self.pod.fd)
        except OSError:
            return ""

    def said(self) -> str:
        """The last lines that the process wrote to standard error, for people."""
        return last_words(self.process)


def last_words(process: Process) -> str:
    """The last lines that a command wrote to standard error, for people."""
    lines = [
        line
        for line in process.stderr.splitlines()
        if line.strip() and "signature verification has been disabled" not in line
    ]
    return " / ".join(lines[-3:])


class Pods:
    """The pods of one image.

    Attributes:
        bench, subject, report: of the image.
        groups: of promises that are wanted.
    """

    def __init__(
        self, bench: Bench, subject: Subject, app_id: str, report: Report, groups: tuple[str, ...]
    ) -> None:
        self.bench = bench
        #: Image ID of the app.
        self.app_id = app_id
        self.subject = subject
        self.report = report
        self._groups = groups
        self._stage1 = f"--stage1-hash={subject.record.key}"
        #: What the image itself says that it does not enforce.
        self.without = frozenset(subject.program.not_enforced)
        self.net = "--net=host" if "network" in self.without else "--net=none"

    def wants(self, *groups: str) -> bool:
        """Whether promises of one of the groups are to be looked at."""
        return any(group in self._groups for group in groups)

    def attempt(self, act: Callable[[Pods], None]) -> None:
        """One round; what it cannot go on with has been reported."""
        try:
            act(self)
        except Broken:
            pass
        except (OSError, RktError, ValueError) as e:
            # What an image writes may be anything.
            self.report.obstacle = str(e)

    def require(self, name: str, holds: bool, seen: str) -> None:
        """Report, and give the round up if it does not hold."""
        if not self.report.hold(name, holds, seen):
            raise Broken

    def words(self, mode: str, *words: str, flags: tuple[str, ...] = ()) -> list[str]:
        """The app and what it is to do, as words of ``run`` and ``prepare``."""
        return [self.app_id, f"--name={APP}", *flags, "--", mode, *words]

    def prepare(
        self, mode: str, *words: str, flags: tuple[str, ...] = (), promise: str = "run.starts"
    ) -> tuple[str, str]:
        """Prepare a pod; its UUID and a word that marks its processes.

        Raises:
            Broken: it cannot be prepared; ``promise`` is not kept then.
        """
        token = f"token-{secrets.token_hex(8)}"
        made = self.bench.run("prepare", self._stage1, *self.words(mode, *words, token, flags=flags))
        if made.wait(0) != 0:
            self.report.hold(promise, False, f"rkt prepare: {made.stderr.strip()}")
            raise Broken
        return made.stdout.strip(), token

    def begin(
        self,
        mode: str,
        *words: str,
        flags: tuple[str, ...] = (),
        promise: str = "run.starts",
        up: bool = True,
        watched: bool = False,
    ) -> Trial:
        """Run a pod, and wait until its app is up; ``watched`` takes down in which order its files are written.

        Raises:
            Broken: it does not come up; ``promise`` is not kept then.
        """
        uuid, token = self.prepare(mode, *words, flags=flags, promise=promise)
        pod = self.bench.open_pod(uuid)
        if pod is None:
            raise Broken
        watch = Watch(pod.path) if watched else None
        process = self.bench.start("run-prepared", self.net, uuid)
        trial = Trial(uuid, process, pod, token, watch)
        if up:
            self.wait_up(trial, promise)
        return trial

    def wait_up(self, trial: Trial, promise: str) -> None:
        """Wait for the app.

        Raises:
            Broken: it does not come.
        """
        self.bench.wait_for(
            lambda: (
                not trial.process.is_alive
                or (trial.is_running and trial.is_up() and status.supervisor_pid(trial.pod) is not None)
            )
        )
        code = trial.process.wait(0)
        seen = "the app did not come up in time" if code is None else f"the process ended with {code}"
        if code is None and trial.is_up():
            seen = "the app is up, and there is neither pid nor ppid"
        is_up = code is None and trial.is_up() and status.supervisor_pid(trial.pod) is not None
        self.require(promise, is_up, f"{seen}: {trial.said()}".rstrip(": "))

    def run(self, mode: str, *words: str, run_flags: tuple[str, ...] = ()) -> Trial:
        """Run a pod to its end, with flags of ``run-prepared``."""
        uuid, token = self.prepare(mode, *words)
        pod = self.bench.open_pod(uuid)
        if pod is None:
            raise Broken
        process = self.bench.run("run-prepared", self.net, *run_flags, uuid)
        return Trial(uuid, process, pod, token, None)

    def run_two(self, first: list[str], second: list[str], promise: str) -> Trial:
        """Run a pod of two apps to its end.

        Raises:
            Broken: there is none; ``promise`` is not kept then.
        """
        token = f"token-{secrets.token_hex(8)}"
        path = f"{self.bench.base}/uuid-of-two"
        process = self.bench.run(
            "run",
            self._stage1,
            self.net,
            f"--uuid-file-save={path}",
            *self.words(*first, token),
            "---",
            self.app_id,
            "--name=other",
            "--",
            *second,
            token,
        )
        uuid = ""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as stream:
            uuid = stream.read().strip()
        self.require(promise, bool(uuid), f"there is no pod: {last_words(process)}")
        pod = self.bench.open_pod(uuid)
        if pod is None:
            raise Broken
        return Trial(uuid, process, pod, token, None)

    def ended(self, trial: Trial) -> int | None:
        """Exit status of the pod's process when it ends in time, and the pod with it."""
        code = trial.process.wait(self.bench.seconds)
        self.bench.wait_for(lambda: not trial.is_running)
        return code

    def finish(self, trial: Trial) -> None:
        """Make an end of a pod that is not needed any more."""
        trial.process.send(9)
        self.ended(trial)
