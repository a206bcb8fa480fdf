# SPDX-License-Identifier: Apache-2.0
"""Run a pod that is over once more: same UUID, same files, same manifest; beyond rkt.

First everything is looked at that may refuse. Then the pod is locked, so that nobody else starts, marks or deletes it; what
the last run left is taken from the host and from the pod's directory; and one rename takes it to ``run``, where it may
stand already. A kill anywhere leaves a pod that is over.
"""

from __future__ import annotations

from rkt.errors import HostError, NotFound, PodError, RktError, UsageError
from rkt.linux.files import remove_tree
from rkt.pod import lifecycle, names, status
from rkt.schema import jsontext
from rkt.stage0 import contract, roots
from rkt.stage0.gc import take_back, try_lock
from rkt.stage0.prepare import check_before
from rkt.stage0.run import kept_options
from rkt.stage0.run import run as become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.stage0.run import RunOptions

#: State -> (why a pod in it is not started, the command to type instead; ``{}`` is the pod).
_REFUSALS = {
    "embryo": ("is being prepared", ""),
    "preparing": ("is being prepared", "rkt status --wait-ready {}"),
    "aborted prepare": ("was not prepared to the end", "rkt rm {}"),
    "prepared": ("has not run yet", "rkt run-prepared {}"),
    "running": ("is running already", "rkt status {}"),
    "garbage": ("never ran, and is to be deleted", "rkt gc"),
    "deleting": ("is being deleted", ""),
}
#: How long a pod may seem to run without a process of its own.
_HELD_SECONDS = 2.0
#: Files that stage1 writes anew in every run (docs/stage1-contract.md).
_OF_A_RUN = (
    contract.PPID,
    contract.SUBCGROUP,
    contract.CONTROL_SOCKET,
    contract.PAUSED,
    contract.ENDPOINTS,
    contract.METADATA_URL,
    contract.HOSTS,
    contract.EGRESS,
    contract.NET_INFO,
    contract.PGID,
    contract.NETNS,
    contract.NET,
)
_OF_AN_APP = ("pid", contract.OOM_KILLS, contract.RESTARTS)


def start(settings: Settings, pod: Pod, *, interactive: bool) -> NoReturn:
    """Turn this process into a pod that is over.

    Args:
        settings: of the running command.
        pod: the pod.
        interactive: give the caller's terminal to its only app.
    Raises:
        RktError: it cannot be started; up to the moment at which its directory is changed it is as it was.
    """
    _refuse(pod)
    try:
        options = kept_options(pod).replace(interactive=interactive, mutable=_is_mutable(pod))
        _check(pod, settings, options)
    except (OSError, RktError):
        _refuse_removed(pod)  # rather than to name a file that is gone already
        raise
    take_exited(pod)
    # At once: without these two nobody believes that the pod which now seems to run is up, or enters it.
    for name in (contract.PID, f"{status.stage1_writable_root(pod)}/{contract.SUPERVISOR_STATUS}"):
        remove_tree(name, dir_fd=pod.fd)
    with pod.lock_changes():
        if problems := take_back(settings, pod):
            raise PodError(
                f'pod "{pod.uuid}" cannot be started: its last run left {"; ".join(problems)}',
                hint="kill what is left in its cgroups",
            )
        _forget_last_run(pod)
        # While no image is collected: whoever reads which images pods need finds the pod in one of the two places.
        with lifecycle.lock_prepare(settings.data_dir):
            pod.move(lifecycle.RUN, sync=False)
        names.claim_again(pod)
        become(pod, settings, options)


def _check(pod: Pod, settings: Settings, options: RunOptions) -> None:
    """Refuse what can be refused while the pod is as it was."""
    apps = status.app_names(pod)
    if options.interactive and (options.mutable or len(apps) > 1):
        raise UsageError("interactive option only supports pods with one app")
    if pod.has(contract.OVERLAY_PREPARED) and (reason := roots.overlay_unsupported(settings.data_dir)):
        raise HostError(f"unable to start overlay-enabled pod: overlay not supported: {reason}")
    check_before(pod, settings, options)
    if options.mds_register:
        from rkt.stage0 import metadata

        metadata.probe()
    name = pod.read_text(names.FILE)
    if name and names.lookup(pod.pods_dir, name) != pod.uuid:
        names.check_free(pod.pods_dir, name)


def _refuse(pod: Pod) -> None:
    # Who takes back its networks locks a pod that is over, as one that runs is locked, for a moment.
    if pod.state == "running" and not status.wait_until(
        pod, lambda now: status.has_supervisor(now) or not now.is_running, _HELD_SECONDS
    ):
        raise _in_use(pod)
    if pod.state in _REFUSALS:
        reason, command = _REFUSALS[pod.state]
        raise PodError(f'pod "{pod.uuid}" {reason}', hint=command.format(pod.uuid.short))


def _in_use(pod: Pod) -> PodError:
    return PodError(f'pod "{pod.uuid}" is in use', hint=f"rkt status {pod.uuid.short}")


def _refuse_removed(pod: Pod) -> None:
    if not pod.refresh():
        raise NotFound(f'pod "{pod.uuid}" was removed', hint="rkt list") from None
    _refuse(pod)
    if pod.state == "exited deleting":
        raise PodError(f'pod "{pod.uuid}" is being deleted') from None


def take_exited(pod: Pod) -> None:
    """Lock a pod that is over for running it again.

    Raises:
        PodError: it is in another state, or in use.
        NotFound: it was removed meanwhile.
    """
    while True:
        _refuse(pod)
        try:
            if try_lock(pod):
                return
        except lifecycle.Moved:
            _refuse_removed(pod)  # else it was marked or started a moment ago
        else:
            _refuse_removed(pod)
            if pod.is_exited:
                raise _in_use(pod)


def _is_mutable(pod: Pod) -> bool:
    members = jsontext.parse(pod.read(contract.POD_MANIFEST) or b"{}", what=f'manifest of pod "{pod.uuid}"')
    return any(
        annotation.get("name") == contract.ANNOTATION_MUTABLE and annotation.get("value") == "true"
        for annotation in members.get("annotations") or []
    )


def _forget_last_run(pod: Pod) -> None:
    """Remove what told of the last run; what the apps changed and said stays."""
    base = status.stage1_writable_root(pod)
    for name in _OF_A_RUN:
        remove_tree(name, dir_fd=pod.fd)
    for app in status.app_names(pod):
        for name in ("", "-started", "-health"):
            remove_tree(f"{base}/{contract.STATUS_DIR}/{app}{name}", dir_fd=pod.fd)
        for name in _OF_AN_APP:
            remove_tree(f"appsinfo/{app}/{name}", dir_fd=pod.fd)
