# SPDX-License-Identifier: Apache-2.0
"""Take a pod's networks back, from its directory alone, whatever it came to; may be done again (invariant NT7)."""

from __future__ import annotations

import os

from rkt.errors import HostError, NetworkError
from rkt.linux import files, libc
from rkt.net import config, plugin, rules
from rkt.net import record as records
from rkt.net.plugin import Attachment
from rkt.net.record import NETNS_DIRECTORY
from rkt.schema import jsontext
from rkt.stage0.contract import NET, NETNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.net.record import Interface

_MAX_PATH_BYTES = 4096


def is_needed(pod_path: str) -> bool:
    """Whether a pod has something to take back."""
    return os.path.lexists(f"{pod_path}/{NETNS}") or os.path.lexists(f"{pod_path}/{NET}")


def release(pod_path: str, *, hold_fd: int, report: Callable[[str], None]) -> bool:
    """DEL every interface, the last one first, and take the namespace's name away; to be called in the host's view.

    What a plugin refuses is reported and stays recorded, and the rest is taken back.

    Args:
        pod_path: absolute path of the pod directory.
        hold_fd: descriptor that plugins keep open, -1 for none.
        report: says what could not be taken back.
    Returns:
        whether nothing is left.
    """
    path = _namespace(pod_path)
    uuid = path.rpartition("/rkt-")[2] if path else pod_path.rpartition("/")[2]
    netns = path if path and is_namespace(path) else ""
    try:
        # First, so that no rule is left for an address that another pod may have next.
        rules.remove(pod_path, uuid)
    except (HostError, OSError) as e:
        report(f"cannot take the rules of pod {uuid} back: {e.message if isinstance(e, HostError) else e}")
        return False
    is_clean = True
    for name in reversed(records.names(pod_path)):
        try:
            interface = records.load(pod_path, name)
            _delete(interface, uuid, netns, hold_fd)
            interface.forget(pod_path)
        except (NetworkError, OSError) as e:
            reason = e.message if isinstance(e, NetworkError) else f"{e.strerror}: {e.filename}"
            report(f"cannot take {name} of pod {uuid} back: {reason}")
            is_clean = False
    if path:
        try:
            unmount_namespace(path)
        except OSError as e:
            report(f"cannot take network namespace {path} back: {e.strerror}")
            return False
    if is_clean:
        _forget(pod_path)
    return is_clean


def is_namespace(path: str) -> bool:
    """Whether a path is that of a namespace now: its file alone is left after the host was started again."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def unmount_namespace(path: str) -> None:
    """Take a network namespace's name away; fine when it is gone.

    Raises:
        OSError: it could not be unmounted or removed.
    """
    while is_namespace(path):
        libc.umount2(path.encode(), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _namespace(pod_path: str) -> str:
    """The path in the pod's record; empty without one, and for one that is not of our making."""
    try:
        text = files.read_bounded(f"{pod_path}/{NETNS}", _MAX_PATH_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    directory, _, name = text.rpartition("/")
    return text if directory == NETNS_DIRECTORY and name.startswith("rkt-") else ""


def _delete(interface: Interface, uuid: str, netns: str, hold_fd: int) -> None:
    """Call every plugin of one network, the last one first.

    Raises:
        NetworkError: the first that refused; the others were called all the same.
    """
    attachment = Attachment(
        container_id=uuid,
        netns=netns,
        interface=interface.name,
        args=interface.args,
        search=interface.search,
        hold_fd=hold_fd,
    )
    failure: NetworkError | None = None
    for call in reversed(interface.calls):
        members = dict(call.configuration)
        if interface.result and config.at_least(interface.version, "0.4.0"):
            members["prevResult"] = interface.result
        raw = jsontext.dump(members).encode()
        try:
            plugin.run(call.program, plugin.DEL, raw, attachment, version=interface.version)
        except NetworkError as e:
            failure = failure or e
    if failure is not None:
        raise failure


def _forget(pod_path: str) -> None:
    """Remove the records, that of the namespace last."""
    files.remove_tree(f"{pod_path}/{NET}")
    try:
        os.unlink(f"{pod_path}/{NETNS}")
    except FileNotFoundError:
        return
