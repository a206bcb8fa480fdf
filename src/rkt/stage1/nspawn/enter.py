# SPDX-License-Identifier: Apache-2.0
"""The ``enter`` entrypoint: in an app as everywhere, and without a name in the pod's own root, beside systemd.

What runs there has the rights of the pod's systemd and no more: its namespaces, cgroups and bounding set, and the filter
of the whole pod. Programs are the host's, from its ``/usr``, which nobody in the pod can write; apps have fewer
capabilities, so none of them can look into it.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import capabilities, cgroup_processes, files, libc, namespaces
from rkt.stage0 import contract
from rkt.stage1.common import enter
from rkt.stage1.common.arguments import load_run
from rkt.stage1.common.exec_plan import pod_filter
from rkt.stage1.common.groups import INIT_GROUP, open_groups
from rkt.stage1.common.pod import load_pod
from rkt.stage2.exec import ExecPlan

_LIMIT_BYTES = 64 << 10


def main(argv: list[str]) -> int:
    """Run ``enter --pid=PID --appname=APP -- CMD…``, with an empty APP for the pod itself; returns the command's status.

    Raises:
        Stage1Error: the app or the pod is not running, or a step was refused.
    """
    name, command = enter.parse(argv)
    if not name:
        return _enter_pod(command)
    # nspawn takes some capabilities from a pod with a user namespace of its own, and so from its apps.
    return enter.main(argv, most=_bounding(_leader()))


def _leader() -> int:
    return int(files.read_bounded(contract.PID, 64))


def _bounding(pid: int) -> int:
    """What a process of the pod, and whatever it starts, can have.

    Raises:
        Stage1Error: it is gone.
    """
    try:
        return capabilities.read_status(pid)["CapBnd"]
    except (FileNotFoundError, ProcessLookupError) as e:
        raise Stage1Error("the pod is not running", hint="rkt status UUID") from e


def _enter_pod(command: list[str]) -> int:
    arguments = load_run()
    pid = _leader()
    try:
        pidfd = os.pidfd_open(pid)
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as e:
        raise Stage1Error("the pod is not running", hint="rkt status UUID") from e
    groups = open_groups(arguments.uuid)
    joiner = groups.open_child(INIT_GROUP, pid).joiner()
    # The lock of the pod says that it lives, and is its supervisor's: what has the number since is another process.
    if not cgroup_processes.has_member(groups, pid):
        raise Stage1Error("the pod is not running", hint="rkt status UUID")
    plan = ExecPlan(
        argv=[word.encode("utf-8", "surrogateescape") for word in command],
        environment={
            **{name.encode(): value.encode() for name, value in contract.DEFAULT_ENVIRONMENT.items()},
            b"container": b"rkt",
            b"TERM": os.environb.get(b"TERM", b"vt100"),
        },
        uid=0,
        gid=0,
        groups=[0],
        working_directory=b"/",
        capabilities=_bounding(pid),
        no_new_privileges=True,
        seccomp=pod_filter(load_pod(), arguments),
    )
    # Until the command is executed, no process of the pod may look into ours (CVE-2016-9962).
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    score = int(files.read_bounded(f"/proc/{pid}/oom_score_adj", 64))
    entering = enter.Entering(
        plan,
        joiner,
        pidfd,
        namespaces.differing(pid) & ~libc.CLONE_NEWUSER,
        root_fd,
        score,
        enter.join_users(pid, arguments),
    )
    # systemd may have killed what was in its group before: see ``ns.plan``.
    entering.cgroup_fd = -1
    return entering.run()
