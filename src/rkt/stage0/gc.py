# SPDX-License-Identifier: Apache-2.0
"""Mark and delete pods (spec runtime §2.7): what ``rkt gc`` and ``rkt rm`` do.

Everything is driven by what is on disk, may be killed anywhere and run again. A pod in use is passed over, never waited
for. A pod that ran goes ``run`` -> ``exited-garbage`` -> (stage1's gc entrypoint) -> ``garbage`` -> removed: once it
stands in ``garbage`` nothing of it is on the host but its directory, so a killed deletion is only that of files. On a disk
so full that not even a rename goes through, as btrfs can be, a pod is deleted where it stands.
"""

from __future__ import annotations

import fcntl
import os
import time

from rkt.errors import PodError, RktError, Stage1Error, reason_of
from rkt.linux.disk import FULL, remedy
from rkt.linux.files import remove_tree, sweep_unfinished
from rkt.pod import lifecycle, names
from rkt.schema.duration import render_go_duration
from rkt.stage0 import contract, net_gc, roots
from rkt.stage0.entrypoint import run_entrypoint
from rkt.stage0.messages import tell
from rkt.stage0.stage1 import read_program
from rkt.store.cas import Store
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.config.settings import Settings
    from rkt.linux.locks import Lock
    from rkt.pod.lifecycle import Pod

_GC_TIMEOUT_SECONDS = 60.0
#: A reader holds a pod's lock for microseconds; wait that out instead of leaving the pod to the next gc.
_READER_ATTEMPTS = 40
_READER_PAUSE_SECONDS = 0.005
#: A command that changes the apps of a pod that is over gives up, or is done, within moments.
_CHANGES_SECONDS = 2.0
_NS = 1_000_000_000
#: Where a pod goes that is removed by name, by where it stands.
_LEFT_FOR = {
    lifecycle.RUN: lifecycle.EXITED_GARBAGE,
    lifecycle.PREPARE: lifecycle.GARBAGE,
    lifecycle.PREPARED: lifecycle.GARBAGE,
}
#: What of the local configuration directory rkt itself writes (``rkt trust``).
_WRITTEN_CONFIGURATION = ("trust.d", "trustedkeys")


def collect(settings: Settings, *, grace_seconds: float, expire_seconds: float, mark_only: bool) -> None:
    """All passes of ``rkt gc``; what could not be removed is reported and stays for the next one.

    Args:
        settings: of the running command.
        grace_seconds: least time between marking and deleting.
        expire_seconds: age after which a prepared pod is dropped.
        mark_only: only look for pods that ended.
    """
    pods_dir = settings.pods_dir
    for pod in _unlocked(pods_dir, lifecycle.RUN):
        text = f'moving pod "{pod.uuid}" to garbage'
        _mark(settings, pod, lifecycle.EXITED_GARBAGE, text, due=grace_seconds == 0 and not mark_only)
    for pod in _unlocked(pods_dir, lifecycle.PREPARE):
        text = f'moving failed prepare "{pod.uuid}" to garbage'
        _mark(settings, pod, lifecycle.GARBAGE, text, due=not mark_only)
    if mark_only:
        return
    now_ns = time.time_ns()
    for pod in _unlocked(pods_dir, lifecycle.PREPARED):
        if _age_ns(pod, now_ns) >= expire_seconds * _NS:
            text = f'moving expired prepared pod "{pod.uuid}" to garbage'
            _mark(settings, pod, lifecycle.GARBAGE, text, due=True)
    for pod in _unlocked(pods_dir, lifecycle.EXITED_GARBAGE):
        if _age_ns(pod, now_ns) >= grace_seconds * _NS:
            _collect_one(settings, pod)
        else:
            _release_networks(settings, pod)
            period = render_go_duration(grace_seconds)
            tell(settings, f'pod "{pod.uuid}" not removed: still within grace period ({period})')
    for place in (lifecycle.GARBAGE, lifecycle.EMBRYO):
        for pod in _unlocked(pods_dir, place):
            _collect_one(settings, pod)
    names.sweep(pods_dir)
    if os.path.isdir(f"{settings.data_dir}/{net_gc.DIRECTORY}"):
        net_gc.collect_left(settings)
    if os.path.isdir(f"{settings.data_dir}/ranges"):
        from rkt.pod import ranges

        ranges.sweep(settings.data_dir, pods_dir)
    from rkt.store.gc import sweep

    for problem in sweep(settings.data_dir):
        tell(settings, problem)
    for name in _WRITTEN_CONFIGURATION:
        sweep_unfinished(f"{settings.local_config_dir}/{name}")


def _unlocked(pods_dir: str, place: str) -> Iterator[Pod]:
    for uuid in sorted(lifecycle.uuids_in(pods_dir, place)):
        pod = lifecycle.open_pod_at(pods_dir, PodUUID(uuid), place)
        if pod is None:
            continue
        with pod:
            if not pod.locked:
                yield pod


def _age_ns(pod: Pod, now_ns: int) -> int:
    """Time since the pod came where it stands: a rename changes the directory's ctime."""
    return now_ns - os.fstat(pod.fd).st_ctime_ns


def _mark(settings: Settings, pod: Pod, place: str, text: str, *, due: bool) -> None:
    """Move a pod that is over; on a disk without room for that, delete it if it is due anyway."""
    try:
        # Shared: nobody may start it at this moment, but locked otherwise it would look as if somebody had.
        if not pod.share():
            return
        # A power cut may undo the mark; the next collection makes it again.
        if _leave(pod, place):
            tell(settings, text)
        elif not due:
            raise PodError("the disk has no room for a mark; rkt gc --grace-period=0 needs none")
        elif try_lock(pod):
            tell(settings, f'Garbage collecting pod "{pod.uuid}"')
            delete(settings, pod)
    except lifecycle.Moved:
        return  # whoever was faster collects it, or starts it
    except (RktError, OSError) as e:
        _report(settings, pod, e)


def _leave(pod: Pod, place: str) -> bool:
    """Move a pod on its way out; false when the disk has no room even for that."""
    try:
        pod.move(place, sync=False)
    except OSError as e:
        if e.errno not in FULL:
            raise
        return False
    return True


def _collect_one(settings: Settings, pod: Pod) -> None:
    try:
        if not try_lock(pod):
            tell(settings, f'pod "{pod.uuid}" not removed: it is in use')
            return
        if pod.place != lifecycle.EMBRYO:
            tell(settings, f'Garbage collecting pod "{pod.uuid}"')
        delete(settings, pod)
    except lifecycle.Moved:
        return
    except (RktError, OSError) as e:
        _report(settings, pod, e)


def _release_networks(settings: Settings, pod: Pod) -> None:
    """Take back the networks of a pod that stays for a while: nobody waits that long for its addresses and ports."""
    if not net_gc.is_left(pod):
        return
    try:
        if try_lock(pod):
            net_gc.take_back(settings, pod)
    except lifecycle.Moved:
        return
    except (RktError, OSError) as e:
        _report(settings, pod, e)


def _report(settings: Settings, pod: Pod, e: RktError | OSError) -> None:
    tell(settings, f'unable to remove pod "{pod.uuid}": {reason_of(e)}')
    if hint := e.hint if isinstance(e, RktError) else remedy(e.errno):
        tell(settings, f"hint: {hint}")


def try_lock(pod: Pod) -> bool:
    """Take the pod's lock unless its owner, or somebody who deletes it, has it.

    Raises:
        Moved: it was moved or removed meanwhile.
    """
    for _ in range(_READER_ATTEMPTS):
        try:
            pod.lock(blocking=False)
        except BlockingIOError:
            try:
                fcntl.flock(pod.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            fcntl.flock(pod.fd, fcntl.LOCK_UN)
            time.sleep(_READER_PAUSE_SECONDS)
        else:
            return True
    return False


def remove(settings: Settings, pod: Pod) -> None:
    """``rkt rm``: delete a pod at once, whatever its age.

    Raises:
        PodError: it lives, or is being made.
        RktError, OSError: it could not be deleted; gc will try again.
    """
    refusals = {
        "running": "is currently running",
        "embryo": "is currently being prepared",
        "preparing": "is currently being prepared",
        "deleting": "is currently being deleted",
    }
    refusal = refusals.get(pod.state)
    if refusal is not None:
        hint = f"rkt stop {pod.uuid.short}" if pod.is_running else ""
        raise PodError(f'pod "{pod.uuid}" {refusal}', hint=hint)
    held = False
    try:
        if pod.state != "exited deleting":
            if not pod.share():
                raise _in_use(pod)
            # Out of the way before it is locked: where it stands now, a locked pod is one that runs.
            if pod.place in _LEFT_FOR:
                _leave(pod, _LEFT_FOR[pod.place])
            held = try_lock(pod)
            if not held and pod.share():
                raise _in_use(pod)  # somebody reads it
    except lifecycle.Moved:
        # Marked, started or deleted a moment ago.
        if pod.refresh():
            remove(settings, pod)
        return
    if held or _wait_for_deletion(pod):
        delete(settings, pod)
    elif pod.place == lifecycle.RUN:
        remove(settings, pod)  # it was started, not deleted


def _in_use(pod: Pod) -> PodError:
    return PodError(f'pod "{pod.uuid}" is in use', hint=f"rkt status {pod.uuid.short}")


def _wait_for_deletion(pod: Pod) -> bool:
    """Wait for whoever holds a marked pod; true when it is this process's to delete, false when it is gone or elsewhere."""
    while pod.refresh() and pod.place in {lifecycle.EXITED_GARBAGE, lifecycle.GARBAGE}:
        try:
            if try_lock(pod):
                return True
        except lifecycle.Moved:
            continue
        time.sleep(_READER_PAUSE_SECONDS)
    return False


def delete(settings: Settings, pod: Pod) -> None:
    """Delete a pod that this process holds locked and that neither lives nor may start.

    Raises:
        RktError, OSError: something is in the way; the pod is recognisable and stays for the next attempt.
    """
    changes = _lock_changes(pod)
    try:
        _delete(settings, pod)
    except OSError as e:
        if isinstance(e.filename, str) and not e.filename.startswith("/"):
            e.filename = f"{pod.path}/{e.filename}"
        raise
    finally:
        if changes is not None:
            changes.close()


def _lock_changes(pod: Pod) -> Lock | None:
    """Keep out whoever changes the pod's apps, and would find its files going; ``None`` for a pod without that lock.

    Raises:
        PodError: somebody is at it, and does not notice that the pod is over.
    """
    deadline = time.monotonic() + _CHANGES_SECONDS
    while True:
        try:
            return pod.lock_changes(blocking=False)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise PodError(
                    f'pod "{pod.uuid}" is in use: its apps are being changed', hint="try again in a moment"
                ) from None
            time.sleep(_READER_PAUSE_SECONDS)


def _delete(settings: Settings, pod: Pod) -> None:
    names.release(pod)
    if pod.has(contract.MDS_REGISTERED):
        from rkt.stage0 import metadata

        metadata.forget(pod)
    if pod.ever_ran:
        for problem in take_back(settings, pod):
            tell(settings, f'cgroup of pod "{pod.uuid}" not removed: {problem}')
        net_gc.keep(settings, pod)
        _leave(pod, lifecycle.GARBAGE)
    else:
        _unmount(pod)
    leased = pod.read_text(contract.PRIVATE_USERS_PREPARED)
    # stage1's root first: a mount in the way shows before anything else is gone. The manifest last (C8).
    remove_tree(contract.STAGE1_ROOTFS, dir_fd=pod.fd)
    entries = sorted(os.listdir(pod.fd), key=lambda name: name == contract.POD_MANIFEST)
    for name in entries:
        remove_tree(name, dir_fd=pod.fd)
    os.rmdir(pod.path)
    if leased:
        from rkt.pod import ranges

        # Now that nothing on disk belongs to these ids any more.
        ranges.release(settings.data_dir, pod.uuid, leased)


def take_back(settings: Settings, pod: Pod) -> list[str]:
    """Take from the host what a pod that is over, held locked by this process, left outside its directory.

    Returns:
        what of its cgroups could not be removed.
    Raises:
        Stage1Error: something is still mounted there.
    """
    _run_stage1_gc(settings, pod)
    problems = _remove_cgroups(settings, pod)
    _unmount(pod)
    return problems


def _run_stage1_gc(settings: Settings, pod: Pod) -> None:
    """Let stage1 take back what it set up on the host; its failure is reported and does not keep the pod."""
    try:
        program = read_program(pod)
        entrypoint = program.entrypoint(contract.ANNOTATION_GC)
        arguments = ["--debug"] if settings.debug else []
        if program.interface_version >= 5:
            arguments.append(f"--local-config={settings.local_config_dir}")
        store = Store(settings.data_dir)
        overlay = pod.has(contract.OVERLAY_PREPARED)
        status = run_entrypoint(
            f"{pod.path}/{contract.STAGE1_ROOTFS}/{entrypoint}",
            [*arguments, pod.uuid],
            pod.path,
            timeout_seconds=_GC_TIMEOUT_SECONDS,
            quiet_stdout=True,
            before=(lambda: _mount_again(pod, store)) if overlay else None,
        )
    except (RktError, OSError) as e:
        tell(settings, f'stage1 gc of pod "{pod.uuid}" failed: {reason_of(e)}')
    else:
        if status != 0:
            tell(settings, f'stage1 gc of pod "{pod.uuid}" failed with status {status}')


def _mount_again(pod: Pod, store: Store) -> None:
    """stage1's overlay, in a mount namespace that goes with the gc entrypoint: nothing to unmount, nothing to leak."""
    from rkt.linux.mount import enter_own_namespace

    enter_own_namespace()
    roots.mount_root(pod, store, None)


def _remove_cgroups(settings: Settings, pod: Pod) -> list[str]:
    """A second look after stage1's gc: no process and no cgroup of the pod stays, even if that failed."""
    record = pod.read_text(contract.SUBCGROUP)
    if not record:
        return []
    name = record.split("\n", 1)[0].rstrip("/").rpartition("/")[2]
    if pod.uuid not in name:
        # The group is the caller's or a manager's, who removes it; killing it would kill strangers.
        return []
    from rkt.linux import cgroup, cgroup_processes, cgroupfs

    try:
        group = cgroup.open_pod(cgroupfs.detect(), record, name)
    except ValueError as e:
        tell(settings, f'pod "{pod.uuid}": {e}')
        return []
    if not group.directories():
        return []
    return group.remove(0) if cgroup_processes.kill(group) else ["processes are left"]


def _unmount(pod: Pod) -> None:
    """Take down what is mounted below the pod directory; usually nothing is, for pods mount in their own namespace."""
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        if pod.uuid.encode() not in file.readall():
            return
    from rkt.linux.mount import unmount_below

    try:
        unmount_below(pod.path)
    except OSError as e:
        raise Stage1Error(f"{pod.path} still has mounts: {e.strerror}") from e
