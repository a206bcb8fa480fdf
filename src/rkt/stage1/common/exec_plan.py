# SPDX-License-Identifier: Apache-2.0
"""From a pod manifest to what a process of an app becomes: ids, capabilities, filter, limits, environment."""

from __future__ import annotations

import os
import sys

from rkt.errors import Stage1Error
from rkt.linux import capabilities
from rkt.schema import isolators
from rkt.stage1.common import users as accounts
from rkt.stage1.common.arguments import ids_of
from rkt.stage1.common.environment import build_environment
from rkt.stage2.exec import ExecPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp

#: Compiled filters, beside the entrypoint: ``enter`` runs where the pod's own stage1 root is not mounted.
_FILTERS = os.path.dirname(sys.argv[0])
_MAX_FILTER_BYTES = 1 << 20


def build_exec_plan(
    app: PodApp,
    root_fd: int,
    arguments: RunArguments,
    *,
    argv: Sequence[str] | None = None,
    as_root: bool = False,
    entering: bool = False,
    confined: bool = True,
) -> ExecPlan:
    """What a process of the app becomes, its own or a command entering it: the same confinement for all (CVE-2019-10144).

    Args:
        app: the app.
        root_fd: its root, for users and groups.
        arguments: of ``run``; the ``--disable-…`` ones loosen.
        argv: the command instead of the app's own.
        entering: it joins a running app, so it gets no more than the caller may give.
        confined: whether an app that asks for nothing has the default capabilities, filter and no_new_privs. Else it has
            what rkt itself has, and only what is asked for is taken away.
        as_root: run it as 0:0 of the image, which is all that sets an event handler apart (spec runtime §3.4).
    """
    words = list(argv if argv is not None else app.app.exec)
    if not words or not words[0]:
        raise Stage1Error(f"app {app.name!r} has nothing to execute", hint="rkt run IMAGE --exec=PROGRAM")
    ids = ids_of(arguments)
    kept = _capabilities(app, arguments, confined=confined)
    uid = gid = 0
    groups: list[int] = []
    if not as_root:
        groups = app.app.supplementary_gids
        try:
            uid, gid = accounts.resolve_both(
                root_fd,
                app.app.user,
                app.app.group,
                annotations=app.image.annotations,
                ids=ids,
            )
        except Stage1Error as e:
            raise Stage1Error(f"app {app.name!r}: {e.message}", hint=e.hint) from e
    seccomp = b"" if arguments.disable_seccomp else _filter(app, confined=confined)
    plan = ExecPlan(
        argv=[word.encode("utf-8", "surrogateescape") for word in words],
        environment=build_environment(app.name, app.app, arguments.metadata_url),
        uid=uid,
        gid=gid,
        # The app's own group too, or a file that denies that group something would grant it (CVE-2022-36109).
        groups=[gid, *(each for each in groups if each != gid)],
        working_directory=(app.app.working_directory or "/").encode(),
        capabilities=kept,
        no_new_privileges=isolators.fixes_privileges(
            app.app.isolators, uid=uid, filtered=bool(seccomp), default=confined
        ),
        seccomp=seccomp,
        rlimits=_rlimits(app, entering=entering),
    )
    if ids is not None:
        from rkt.stage1.common.private_users import check_ids

        check_ids(app.name, plan, ids)
    return plan


def _rlimits(app: PodApp, *, entering: bool) -> list[tuple[int, int, int]]:
    if isolators.last(app.app.isolators, isolators.RLIMITS) is None:
        return []
    from rkt.stage1.common import rlimits

    return rlimits.app_limits(app, entering=entering)


def _capabilities(app: PodApp, arguments: RunArguments, *, confined: bool) -> int:
    """The app's bounding set; what rkt itself lacks cannot be passed on, and is an error if it was asked for by name."""
    kept = capabilities.full_mask()
    has_wish = any(
        isolators.last(app.app.isolators, name) is not None
        for name in (isolators.CAPABILITIES_RETAIN, isolators.CAPABILITIES_REMOVE)
    )
    if not arguments.disable_capabilities_restriction and (confined or has_wish):
        default = isolators.DEFAULT_CAPABILITIES if confined else capabilities.NAMES
        kept = capabilities.mask(isolators.retained_capabilities(app.app.isolators, default))
    lacking = capabilities.missing(kept)
    if (
        lacking
        and not arguments.disable_capabilities_restriction
        and isolators.last(app.app.isolators, isolators.CAPABILITIES_RETAIN) is not None
    ):
        names = ", ".join(capabilities.names(lacking))
        raise Stage1Error(f"app {app.name!r} is to have {names}, which rkt itself does not have here")
    return kept & ~lacking


def _filter(app: PodApp, *, confined: bool) -> bytes:
    """The app's compiled system call filter; one that cannot be had is an error (CVE-2023-2431)."""
    wanted = [i for i in app.app.isolators if i.name.startswith("os/linux/seccomp-")]
    if wanted:
        from rkt.linux import seccomp_isolators

        return seccomp_isolators.compile_isolators(
            [(i.name, i.value.names, i.value.errno) for i in wanted], default_filter()
        )
    return default_filter() if confined else b""


def default_filter() -> bytes:
    """The compiled filter that came with this stage1.

    Raises:
        Stage1Error: there is none for this machine.
    """
    return _read_filter("default")


def pod_filter(pod: LoadedPod, arguments: RunArguments) -> bytes:
    """What is refused to all of a pod whose apps systemd confines (``linux.seccomp.compile_pod_filter``); empty for nothing.

    Raises:
        Stage1Error: there is none for this machine.
    """
    return _read_filter("pod") if has_pod_filter(pod, arguments) else b""


def has_pod_filter(pod: LoadedPod, arguments: RunArguments) -> bool:
    """Whether the pod has that filter: not where an app is to have none; then units say it for the others as far as they can.

    Nobody knows beforehand what apps will be added to a pod, so one that changes has it, and all of its apps.
    """
    if arguments.disable_seccomp:
        return False
    return arguments.mutable or not any(is_unfiltered(app) for app in pod.apps)


def is_unfiltered(app: PodApp) -> bool:
    """Whether the app is to have no filter of its own."""
    return any(
        each.name == isolators.SECCOMP_RETAIN and isolators.SECCOMP_ALL in each.value.names
        for each in app.app.isolators
    )


def _read_filter(name: str) -> bytes:
    from rkt.linux import files

    path = f"{_FILTERS}/seccomp-{name}-{os.uname().machine}.bpf"
    try:
        return files.read_bounded(path, _MAX_FILTER_BYTES)
    except FileNotFoundError as e:
        raise Stage1Error(
            f"this stage1 has no system call filter for {os.uname().machine}: {path}",
            hint="rkt run --insecure-options=seccomp",
        ) from e
