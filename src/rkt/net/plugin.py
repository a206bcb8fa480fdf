# SPDX-License-Identifier: Apache-2.0
"""CNI plugins: finding the program, running it once, reading its verdict.

A plugin is a program of the host, run as root with an environment of its own: ``PATH`` and the protocol's variables. Its
answer, its complaints and its time have bounds. The one descriptor beside
the standard streams that it gets is what keeps the pod's lock, when there is one: so a pod whose engine was killed counts
as alive until the plugin has ended, and nobody takes back what is still being made.

Source: https://www.cni.dev/docs/spec/, "Execution Protocol".
"""

from __future__ import annotations

import os
import time

from rkt.errors import InvalidManifest, NetworkError, quoted
from rkt.linux import files
from rkt.net.config import check_owner, is_type
from rkt.schema import jsontext
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ADD = "ADD"
CHECK = "CHECK"
DEL = "DEL"
GC = "GC"
STATUS = "STATUS"
#: Where plugins are looked for after an installation's own directories (spec runtime §4.4, and where distributions put them).
SYSTEM_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
OPERATOR_DIRECTORY = "/usr/lib/rkt/plugins/net"
#: Below stage1's root.
STAGE1_DIRECTORY = "usr/lib/rkt/plugins/net"
#: Longest time for one call, in seconds; a DHCP server may take its time.
TIMEOUT_SECONDS = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_ANSWER_BYTES = 1 << 20
_MAX_COMPLAINT_BYTES = 16 << 10
_CHUNK = 1 << 16
#: What a pipe can still hold when the plugin has ended; a child of its own that goes on writing is not waited for.
_LAST_CHUNKS = 17
_SIGKILL = 9
_KIND = 0o170000
_REGULAR = 0o100000
_EXECUTABLE = 0o111
_HELD_FD = 3


class PluginError(NetworkError):
    """A plugin was found and refused."""

    def __init__(self, message: str, *, hint: str = "", number: int = 0) -> None:
        super().__init__(message, hint=hint)
        #: CNI's error code, 0 for none.
        self.number = number


class Attachment(Record):
    """What a plugin is told about the pod, in its environment.

    Attributes:
        container_id: the pod's UUID.
        netns: path of the network namespace; empty when it is gone.
        interface: name of the interface in the pod.
        args: ``NAME=VALUE;…`` of the operator, empty for none.
        search: directories of plugins, for those that call others.
        hold_fd: descriptor that the plugin keeps open, -1 for none.
    """

    container_id: str
    netns: str
    interface: str
    args: str
    search: list[str]
    hold_fd: int = -1


def directories(local_config: str, stage1_root: str) -> list[str]:
    """Where plugins are looked for, the place that wins first.

    Args:
        local_config: the administrator's configuration directory.
        stage1_root: the root of the pod's stage1, empty for none.
    """
    own = [f"{stage1_root}/{STAGE1_DIRECTORY}"] if stage1_root else []
    return [f"{local_config}/net.d", OPERATOR_DIRECTORY, *own, *SYSTEM_DIRECTORIES]


def find(kind: str, search: Sequence[str]) -> str:
    """Path of the program of a plugin.

    Args:
        kind: ``type`` of a configuration.
        search: directories.
    Raises:
        NetworkError: there is none, or others than root may write it.
    """
    if not is_type(kind):
        raise NetworkError(f"{quoted(kind)} is not the name of a plugin")
    for directory in search:
        path = f"{directory}/{kind}"
        try:
            status = os.stat(path)
            above = os.stat(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            raise NetworkError(f'cannot look for plugin "{kind}" in {directory}: {e.strerror}') from e
        if status.st_mode & _KIND != _REGULAR:
            continue
        check_owner(above, f'directory "{directory}" of plugin "{kind}"')
        check_owner(status, f'plugin "{path}"')
        if not status.st_mode & _EXECUTABLE:
            raise NetworkError(f'plugin "{path}" is not executable', hint=f"chmod +x {path}")
        return path
    raise NetworkError(
        f'could not find plugin "{kind}"',
        hint="install the CNI plugins (Debian: containernetworking-plugins), or --net=none",
    )


def run(path: str, command: str, configuration: bytes, attachment: Attachment, *, version: str) -> bytes:
    """Run a plugin once.

    Args:
        path: of the program.
        command: ``ADD``, ``DEL``, ``CHECK``, ``GC`` or ``STATUS``.
        configuration: what it reads.
        attachment: whose pod this is about.
        version: of the specification that the configuration is written in.
    Returns:
        what it printed.
    Raises:
        PluginError: it failed, with its own words; it took too long, or could not be executed.
    """
    name = path.rpartition("/")[2]
    status, answer, complaint = _run(
        path, configuration, _environment(command, attachment, version), attachment
    )
    if status == 0:
        return answer
    raise PluginError(
        f'plugin "{name}" failed ({command}): {_reason(status, answer, complaint)}', number=_number(answer)
    )


def _environment(command: str, attachment: Attachment, version: str) -> dict[str, str]:
    # Some plugins refuse arguments that are meant for others, unless told that there may be such; libcni does the same.
    args = f"IgnoreUnknown=1;{attachment.args}" if attachment.args else ""
    return {
        "PATH": _PATH,
        "CNI_VERSION": version,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": attachment.netns,
        "CNI_IFNAME": attachment.interface,
        "CNI_ARGS": args,
        "CNI_PATH": ":".join(attachment.search),
    }


def _run(
    path: str, configuration: bytes, environment: dict[str, str], attachment: Attachment
) -> tuple[int, bytes, bytes]:
    """Exit status (128 and the signal's number for a signal), standard output, standard error."""
    fds: list[int] = []
    try:
        stdin = os.memfd_create("cni", os.MFD_CLOEXEC)
        fds.append(stdin)
        files.write_all(stdin, configuration)
        os.lseek(stdin, 0, os.SEEK_SET)
        answer_r, answer_w = os.pipe()
        complaint_r, complaint_w = os.pipe()
        fds += [answer_r, complaint_r]
        actions = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, answer_w, 1),
            (os.POSIX_SPAWN_DUP2, complaint_w, 2),
        ]
        if attachment.hold_fd >= 0:
            actions.append((os.POSIX_SPAWN_DUP2, attachment.hold_fd, _HELD_FD))
        try:
            # Python ignores SIGPIPE and SIGXFSZ; a group of its own, so that the terminal's ^C does not stop it half way.
            pid = os.posix_spawn(
                path,
                [path],
                environment,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=(13, 25),
            )
        except OSError as e:
            raise PluginError(f"cannot execute plugin {path}: {e.strerror}") from e
        finally:
            os.close(answer_w)
            os.close(complaint_w)
        return _collect(pid, answer_r, complaint_r, path)
    finally:
        for fd in fds:
            os.close(fd)


def _collect(pid: int, answer_r: int, complaint_r: int, path: str) -> tuple[int, bytes, bytes]:
    import select

    deadline = time.monotonic() + TIMEOUT_SECONDS
    texts = {answer_r: b"", complaint_r: b""}
    limits = {answer_r: _MAX_ANSWER_BYTES, complaint_r: _MAX_COMPLAINT_BYTES}
    pidfd = os.pidfd_open(pid)
    trouble = "did not end"
    status = -1
    try:
        poll = select.poll()
        for fd in texts:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        has_ended = False
        while not has_ended:
            left = deadline - time.monotonic()
            ready = poll.poll(left * 1000) if left > 0 else []
            if not ready:
                trouble = f"did not end within {TIMEOUT_SECONDS:g} seconds and was killed"
                break
            has_ended = any(fd == pidfd for fd, _ in ready)
            for fd in list(texts) if has_ended else [fd for fd, _ in ready if fd != pidfd]:
                if not _drain(fd, texts, limits[fd], _LAST_CHUNKS if has_ended else 1) and not has_ended:
                    poll.unregister(fd)
            if len(texts[answer_r]) > _MAX_ANSWER_BYTES:
                has_ended = False
                trouble = f"printed more than {_MAX_ANSWER_BYTES} bytes and was killed"
                break
    finally:
        if not has_ended:
            _kill(pid)
        os.close(pidfd)
        _, code = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(code)
    if not has_ended:
        raise PluginError(f"plugin {path} {trouble}")
    return status if status >= 0 else 128 - status, texts[answer_r], texts[complaint_r]


def _drain(fd: int, texts: dict[int, bytes], limit: int, chunks: int) -> bool:
    """Read what is there, up to so many chunks; false at the end of the file."""
    for _ in range(chunks):
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        if len(texts[fd]) <= limit:
            texts[fd] += chunk
    return True


def _kill(pid: int) -> None:
    """Kill the plugin with what it has started."""
    try:
        os.killpg(pid, _SIGKILL)
    except ProcessLookupError:  # it has ended, and is to be reaped
        return


def _reason(status: int, answer: bytes, complaint: bytes) -> str:
    """What a plugin says went wrong: ``msg; details`` of its answer, else what it wrote on its standard error."""
    try:
        members = jsontext.parse(answer, what="answer")
        words = [members.get("msg"), members.get("details")]
    except (InvalidManifest, AttributeError):
        words = []
    said = "; ".join(word for word in words if isinstance(word, str) and word)
    if not said:
        text = (complaint.strip() or answer.strip()).decode(errors="replace")
        said = " ".join(text.split())[-500:]
    said = said or "it says nothing"
    shown = said if said.isprintable() else quoted(said)
    return shown if status < 128 else f"{shown} (signal {status - 128})"


def _number(answer: bytes) -> int:
    try:
        code = jsontext.parse(answer, what="answer").get("code")
    except (InvalidManifest, AttributeError):
        return 0
    return code if isinstance(code, int) else 0
