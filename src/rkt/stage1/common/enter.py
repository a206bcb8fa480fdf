# SPDX-License-Identifier: Apache-2.0
"""The ``enter`` entrypoint: run a command in an app, exactly as confined as the app (CVE-2019-10144, -10145, -10147).

Three processes. The operator's side stays on the host: it relays a terminal and returns the status. A short-lived helper
joins the app's namespaces and forks once more, because a pid namespace counts for children only. The child joins the
app's cgroup and becomes the command by the very function by which the app became itself. From the moment in which the
helper sees the app's files, nothing can be imported there: a file of the image would be read as root's own code.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select
import sys

from rkt.errors import Stage1Error
from rkt.linux import files, libc, namespaces, pidfd
from rkt.schema.appc import EVENT_PRE_START
from rkt.stage0 import contract
from rkt.stage1.common import feed, steps, terminal
from rkt.stage1.common.arguments import ids_of, load_run
from rkt.stage1.common.exec_plan import build_exec_plan
from rkt.stage1.common.groups import open_groups
from rkt.stage1.common.pod import load_pod
from rkt.stage1.common.steps import SetOomScore
from rkt.stage2.exec import EXIT_EXEC_FAILED, become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Joiner
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import PodApp
    from rkt.stage1.common.private_users import JoinUsers
    from rkt.stage2.exec import ExecPlan

_LIMIT_BYTES = 64 << 10
#: How long a process that has left its namespaces may take to be gone.
_ENDING_MS = 300
_FORWARDED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)


def main(argv: list[str], *, most: int = -1) -> int:
    """Run ``enter --pid=PID --appname=APP -- CMD…``; returns the command's status.

    Args:
        argv: these words.
        most: mask of the capabilities that no process of the pod has more of.
    Raises:
        Stage1Error: the app is not running, or a step was refused.
    """
    name, command = parse(argv)
    arguments = load_run()
    app = load_pod().app(name)
    pid, app_pidfd = find_app(name)
    try:
        return _enter(app, arguments, command, pid, app_pidfd, most)
    except (OSError, Stage1Error):
        # What is missing of a process that is ending is no news, its end is.
        poll = select.poll()
        poll.register(app_pidfd, select.POLLIN)
        if poll.poll(_ENDING_MS):
            raise Stage1Error(f"app {name!r} ended meanwhile", hint="rkt status UUID") from None
        raise


def _enter(
    app: PodApp, arguments: RunArguments, command: list[str], pid: int, app_pidfd: int, most: int
) -> int:
    name = app.name
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    plan = build_exec_plan(app, root_fd, arguments, argv=command, entering=True)
    plan = plan.replace(capabilities=plan.capabilities & most)
    plan.environment.setdefault(b"TERM", os.environb.get(b"TERM", b"vt100"))
    if b"TERM" in os.environb:
        plan.environment[b"TERM"] = os.environb[b"TERM"]
    joiner = open_groups(arguments.uuid).open_child(name, pid).joiner()
    flags = namespaces.differing(pid) & ~libc.CLONE_NEWUSER
    # Until the command is executed, no process of the pod may look into ours (CVE-2016-9962).
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    score = int(files.read_bounded(f"/proc/{pid}/oom_score_adj", 64))
    # Where a handler was killed by its group, what is born there is killed as well: see ``build_app_plan``.
    was_killed = (
        EVENT_PRE_START in app.app.event_handlers or contract.ANNOTATION_RESTART in app.runtime.annotations
    )
    entering = Entering(plan, joiner, app_pidfd, flags, root_fd, score, join_users(pid, arguments))
    entering.cgroup_fd = -1 if was_killed else joiner.cgroup_fd
    return entering.run()


def join_users(pid: int, arguments: RunArguments) -> JoinUsers | None:
    """The command's way into the pod's user namespace, which the helper, with the host's rights, stays out of."""
    ids = ids_of(arguments)
    if ids is None:
        return None
    from rkt.stage1.common.private_users import JoinUsers, open_users

    return JoinUsers(open_users(pid, ids))


def parse(argv: list[str]) -> tuple[str, list[str]]:
    """The app's name and the command.

    Raises:
        Stage1Error: there is none.
    """
    name = ""
    for index, word in enumerate(argv):
        if word.startswith("--appname="):
            name = word.partition("=")[2]
        elif word == "--":
            return name, argv[index + 1 :]
    raise Stage1Error("no command to run")


def find_app(name: str) -> tuple[int, int]:
    """Process and pidfd of the app's first process, known for the same one by its start time (invariant EN4).

    Raises:
        Stage1Error: it does not run.
    """
    try:
        pid, start = (int(word) for word in files.read_bounded(f"appsinfo/{name}/pid", 64).split())
        return pid, pidfd.open_pid(pid, start)
    except (FileNotFoundError, ProcessLookupError) as e:
        raise Stage1Error(f"app {name!r} is not running", hint="rkt status UUID") from e


class Entering:
    """One entered command with its streams."""

    def __init__(
        self,
        plan: ExecPlan,
        joiner: Joiner,
        app_pidfd: int,
        flags: int,
        root_fd: int,
        oom_score: int,
        join_users: JoinUsers | None,
    ) -> None:
        self._plan = plan
        self._oom_score = oom_score
        self._join_users = join_users
        self._root_fd = root_fd
        self._joiner = joiner
        #: Version 2 cgroup to be born in; -1 to move there.
        self.cgroup_fd = joiner.cgroup_fd
        self._app_pidfd = app_pidfd
        self._flags = flags
        self._has_pty = os.isatty(0) and os.isatty(1)
        self._errors = os.pipe()
        self._channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        #: Standard stream -> (our end, the command's end) where a pipe stands before a terminal or a file.
        self._pipes: dict[int, tuple[int, int]] = {}
        self._fed = -1
        if not self._has_pty:
            self._stand_between()

    def _stand_between(self) -> None:
        """Give the command pipes instead of what is no pipe: it could open a file of the host's again, or change its mode."""
        if os.isatty(0):
            read_end, write_end = os.pipe()
            self._pipes[0] = (write_end, read_end)
        elif not feed.is_channel(0):
            self._fed = feed.feed(0)
        files_seen: dict[tuple[int, int], int] = {}
        for stream in (1, 2):
            if not feed.is_channel(stream):
                status = os.fstat(stream)
                # Two streams to one file share a pipe, so that what they say stays in order.
                first = files_seen.setdefault((status.st_dev, status.st_ino), stream)
                self._pipes[stream] = os.pipe() if first == stream else self._pipes[first]

    def run(self) -> int:
        """Start the command, relay its streams, return its status."""
        helper, helper_pidfd = libc.clone3(0, cgroup_fd=self.cgroup_fd)
        if helper == 0:
            self._help()
        os.close(self._errors[1])
        self._channel[1].close()
        for theirs in {theirs for _, theirs in self._pipes.values()}:
            os.close(theirs)
        if self._fed >= 0:
            os.close(self._fed)
        for number in _FORWARDED:
            _signal.signal(number, lambda n, _frame: pidfd.send_signal(helper_pidfd, n))
        report = b""
        while chunk := os.read(self._errors[0], 4096):
            report += chunk
        if report:
            os.waitpid(helper, 0)
            raise Stage1Error(f"cannot enter: {report.decode(errors='replace')}")
        self._relay(helper_pidfd)
        _, raw = os.waitpid(helper, 0)
        return os.waitstatus_to_exitcode(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw)

    def _relay(self, helper_pidfd: int) -> None:
        if self._has_pty:
            master = terminal.receive_descriptor(self._channel[0])
            if master is None:
                return
            with terminal.RawTerminal(0):
                terminal.relay([(0, master), (master, 1)], helper_pidfd, window=(0, master))
        elif self._pipes:
            pairs: dict[int, int] = {}
            for stream, (ours, _) in self._pipes.items():
                if stream == 0:
                    pairs[0] = ours
                else:
                    pairs.setdefault(ours, stream)
            terminal.relay(list(pairs.items()), helper_pidfd)

    def _help(self) -> None:
        """Join the namespaces, fork the command, pass signals on and the status back; never returns."""
        try:
            # No import can be served from the image's files from here on (invariant EN2).
            sys.meta_path.clear()
            sys.path.clear()
            self._joiner.join(unified=self.cgroup_fd < 0)
            try:
                SetOomScore(self._oom_score).apply(-1)
            except PermissionError:
                pass  # whoever enters is to be killed even more readily, and has no way to change that
            libc.setns(self._app_pidfd, self._flags)
            # Joining a mount namespace leads to its topmost mount. That is the app's root only where rkt itself was not
            # started below a chroot; the app's own root is right everywhere.
            os.fchdir(self._root_fd)
            os.chroot(".")
            child, child_pidfd = libc.clone3(0, cgroup_fd=self.cgroup_fd)
            if child == 0:
                self._command()
            os.close(self._errors[1])
            self._channel[1].close()
            for number in _FORWARDED:
                _signal.signal(number, lambda n, _frame: pidfd.send_signal(child_pidfd, n))
            for fd in (0, 1, 2):
                os.close(fd)
            if self._fed >= 0:
                os.close(self._fed)
            for fd in {fd for ends in self._pipes.values() for fd in ends}:
                os.close(fd)
            _, raw = os.waitpid(child, 0)
            os._exit(os.WEXITSTATUS(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw))
        except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the parent's frames
            os.write(self._errors[1], str(e).encode(errors="replace"))
        finally:
            os._exit(EXIT_EXEC_FAILED)

    def _command(self) -> None:
        """Become the command; never returns."""
        try:
            steps.NewSession().apply(-1)
            users = self._join_users
            owner = self._plan.uid if users is None else users.users.ids.outside(self._plan.uid)
            # Pipes of ours; the operator's are his.
            steps.OwnStreams(owner, tuple(theirs for _, theirs in self._pipes.values())).apply(-1)
            if users is not None:
                users.apply(-1)
            if self._has_pty:
                master, slave = terminal.open_pty(self._plan.uid)
                terminal.send_descriptor(self._channel[1], master)
                terminal.take_terminal(slave)
            for stream, (_, theirs) in self._pipes.items():
                os.dup2(theirs, stream)
            if self._fed >= 0:
                os.dup2(self._fed, 0)
            become(self._plan)
        except BaseException as e:  # noqa: BLE001 - as above
            os.write(self._errors[1], str(e).encode(errors="replace"))
        finally:
            os._exit(EXIT_EXEC_FAILED)
