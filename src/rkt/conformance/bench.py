# SPDX-License-Identifier: Apache-2.0
"""Where the kit works: directories of its own, commands of rkt in them, and nothing left afterwards.

A command is a child of this process that runs the program's own entry, so it is what a person would type, and becomes
the pod when it is ``run``.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import time

from rkt.errors import HostError
from rkt.linux import libc, mount
from rkt.pod import lifecycle
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod

#: Variable of the commands' environment that no app may see.
CALLERS = "RKT_STAGE1_CHECK_CALLER"
_NOT_SIGNED = "--insecure-options=image"
_POLL_SECONDS = 0.01
_MOST_OUTPUT_BYTES = 1 << 20
_CGROUPS = "/sys/fs/cgroup"
#: Where programs of stage1 may leave files, and how deep they are looked for.
_PLACES = ("/run", "/dev/shm", "/tmp")
_DEPTH = 4


class Process:
    """A command that was started.

    Attributes:
        pid: of the process, for as long as it was not waited for.
    """

    def __init__(self, words: list[str], pid: int, streams: list[int]) -> None:
        self.words = words
        self.pid = pid
        self._streams = streams
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def wait(self, seconds: float) -> int | None:
        """Exit status, negative for a signal; ``None`` when it has not ended in time."""
        if self._status is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(seconds * 1000):
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.wait(0) is None

    def send(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self._status is None:
            signal.pidfd_send_signal(self._pidfd, number)

    @property
    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return os.pread(self._streams[1], _MOST_OUTPUT_BYTES, 0).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Likewise of standard error."""
        return os.pread(self._streams[2], _MOST_OUTPUT_BYTES, 0).decode(errors="replace")

    def close(self) -> None:
        """Kill it if need be."""
        if self.is_alive:
            self.send(signal.SIGKILL)
            self.wait(5)
        for fd in (self._pidfd, *self._streams):
            os.close(fd)


class Bench:
    """Data and configuration directories below one that is removed at the end.

    Attributes:
        base: that directory.
        data: the data directory.
        seconds: how long anything may take.
    """

    def __init__(
        self, base: str, rkt: Callable[[list[str]], int], settings: Settings, seconds: float
    ) -> None:
        self.base = base
        self.data = f"{base}/data"
        self.seconds = seconds
        #: For what is done without a command.
        self.settings = settings.replace(
            data_dir=self.data,
            local_config_dir=f"{base}/local",
            system_config_dir=f"{base}/system",
            user_config_dir="",
            debug=False,
        )
        self._rkt = rkt
        self._processes: list[Process] = []
        self._uuids: set[str] = set()
        for name in ("data", "local", "system"):
            os.mkdir(f"{base}/{name}", 0o755)

    @property
    def pods_dir(self) -> str:
        """Where the pods are."""
        return f"{self.data}/pods"

    def start(self, *words: str, stdin: bytes = b"") -> Process:
        """Start a command."""
        command = [
            "rkt",
            f"--dir={self.data}",
            f"--local-config={self.base}/local",
            f"--system-config={self.base}/system",
            # The image under test was held against the policy before; the others are the kit's.
            *([] if any(word.startswith("--insecure-options=") for word in words) else [_NOT_SIGNED]),
            *words,
        ]
        return self._fork(list(words), lambda: self._rkt(command), stdin)

    def call(self, act: Callable[[], int]) -> Process:
        """Have a child do something, as a command of rkt would, and wait for it."""
        process = self._fork([], act, b"")
        process.wait(self.seconds)
        return process

    def _fork(self, words: list[str], act: Callable[[], int], stdin: bytes) -> Process:
        streams = [os.open(self.base, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600) for _ in range(3)]
        os.write(streams[0], stdin)
        os.lseek(streams[0], 0, os.SEEK_SET)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(act, streams, parent)
        process = Process(words, pid, streams)
        self._processes.append(process)
        return process

    def run(self, *words: str, stdin: bytes = b"") -> Process:
        """Run a command to its end; one that takes too long is killed and has the status of that."""
        process = self.start(*words, stdin=stdin)
        if process.wait(self.seconds) is None:
            process.send(signal.SIGKILL)
            process.wait(self.seconds)
        return process

    def wait_for(self, probe: Callable[[], bool]) -> bool:
        """Whether something becomes true in time."""
        deadline = time.monotonic() + self.seconds
        while not probe():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def open_pod(self, uuid: str) -> Pod | None:
        """A pod, wherever it stands."""
        self._uuids.add(uuid)
        return lifecycle.open_pod(self.pods_dir, PodUUID(uuid))

    def pods(self) -> list[str]:
        """UUIDs of all pods there are."""
        if not os.path.isdir(self.pods_dir):
            return []
        found = [str(each) for each in lifecycle.all_uuids(self.pods_dir, lifecycle.PLACES)]
        self._uuids.update(found)
        return found

    def processes_of(self, mark: str) -> list[int]:
        """Processes of the host whose words hold a mark."""
        found = []
        for pid in _pids():
            with contextlib.suppress(OSError):
                if mark.encode() in _read(f"/proc/{pid}/cmdline"):
                    found.append(pid)
        return found

    def leftovers(self) -> list[str]:
        """What is on the host of the pods that were here: processes, mounts, cgroups, files."""
        marks = (self.base, *self._uuids)
        found = []
        own = {os.getpid(), *(each.pid for each in self._processes if each.is_alive)}
        for pid in _pids():
            with contextlib.suppress(OSError):
                words = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
                where = os.readlink(f"/proc/{pid}/cwd")
                if pid not in own and any(mark in words or mark in where for mark in marks):
                    found.append(f"process {pid}: {words.strip() or where}")
        found += [f"mount {each.point}" for each in mount.mountinfo() if any(m in each.point for m in marks)]
        found += [f"cgroup {path}" for path in _below(_CGROUPS, 12) if self._names_pod(path)]
        found += [path for place in _PLACES for path in _below(place, _DEPTH) if self._names_pod(path)]
        return found

    def _names_pod(self, path: str) -> bool:
        name = os.path.basename(path)
        return not path.startswith(self.base) and any(
            uuid in name or uuid.replace("-", "") in name for uuid in self._uuids
        )

    def forget_commands(self) -> None:
        """Kill the commands that still run."""
        for process in self._processes:
            process.close()
        self._processes.clear()

    def close(self) -> None:
        """Take everything back, whatever became of it."""
        self.pods()
        self.forget_commands()
        if os.path.isdir(self.pods_dir):
            self.run("gc", "--grace-period=0", "--expire-prepared=0")
            self.forget_commands()
        for line in self.leftovers():
            kind, _, rest = line.partition(" ")
            if kind == "process":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(rest.partition(":")[0]), signal.SIGKILL)
            elif kind not in {"mount", "cgroup"}:
                _remove(line)
        with contextlib.suppress(OSError):
            mount.unmount_below(self.base, itself=False)
        # The deepest first. A group whose processes were just killed may take a moment.
        for path in sorted((p for p in _below(_CGROUPS, 12) if self._names_pod(p)), key=len, reverse=True):
            with contextlib.suppress(OSError):
                self.wait_for(lambda p=path: _removed(p))  # type: ignore[misc]
        shutil.rmtree(self.base)


def _become(act: Callable[[], int], streams: list[int], parent: int) -> None:
    status = 254
    try:
        libc.die_with(parent)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, fd in enumerate(streams):
            os.dup2(fd, stream)
        for name in list(os.environ):
            if name not in {"PATH", "LANG", "TMPDIR"}:
                del os.environ[name]
        os.environ[CALLERS] = "1"
        os.environ["TERM"] = "vt100"
        status = act()
    except BaseException as e:  # noqa: BLE001 - a child must not run what is the parent's
        os.write(2, f"{type(e).__name__}: {e}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(1 << 16)


def _below(place: str, depth: int) -> Iterator[str]:
    """Files and directories below a place, links not followed."""
    try:
        entries = list(os.scandir(place))
    except OSError:
        return
    for entry in entries:
        yield entry.path
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, depth - 1)


@contextlib.contextmanager
def open_bench(rkt: Callable[[list[str]], int], settings: Settings, seconds: float) -> Iterator[Bench]:
    """A place to work in; SIGTERM and SIGHUP end the work as an interrupt does, so that nothing is left."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    place = os.environ.get("TMPDIR") or "/var/tmp"
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise HostError(f"{place} is mounted noexec: no stage1 can run there", hint="TMPDIR=DIRECTORY rkt …")
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    base = tempfile.mkdtemp(prefix="rkt-stage1-check-", dir=place)
    bench = Bench(base, rkt, settings, seconds)
    try:
        yield bench
    finally:
        bench.close()
        for number, handler in before.items():
            signal.signal(number, handler)
