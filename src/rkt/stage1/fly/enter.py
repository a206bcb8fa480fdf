# SPDX-License-Identifier: Apache-2.0
"""The ``enter`` entrypoint: become a command in the app's root, with the app's environment, ids and what else it has."""

from __future__ import annotations

import os
import sys

from rkt.errors import Stage1Error
from rkt.linux import disk, files, libc, pidfd
from rkt.stage0 import contract
from rkt.stage1.common import steps
from rkt.stage1.common.arguments import load_run
from rkt.stage1.common.enter import find_app, parse
from rkt.stage1.common.groups import open_groups
from rkt.stage1.common.pod import load_pod
from rkt.stage1.fly import plan as plans
from rkt.stage2.exec import become

_LIMIT_BYTES = 4 << 20
_RECORD_BYTES = 64 << 10


def main(argv: list[str]) -> int:
    """Become ``enter --pid=PID --appname=APP -- CMD…``; does not return when that works.

    Raises:
        Stage1Error: the app is not running, or a step was refused.
    """
    name, command = parse(argv)
    arguments = load_run()
    app = load_pod().app(name)
    pid, app_pidfd = find_app(name)
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    plan = plans.build(app, root_fd, arguments, argv=command, entering=True)
    plan = plan.replace(environment=_environment(name))
    plan.environment.setdefault(b"TERM", b"vt100")
    if b"TERM" in os.environb:
        plan.environment[b"TERM"] = os.environb[b"TERM"]
    joiner = open_groups(arguments.uuid).joiner()
    # No import can be served from the image's files from here on (invariant EN2).
    sys.meta_path.clear()
    sys.path.clear()
    try:
        joiner.join(unified=True)
        joiner.close()
        libc.setns(app_pidfd, libc.CLONE_NEWNS)
        os.fchdir(root_fd)
        os.chroot(".")
        if pidfd.wait_exit(app_pidfd, 0):
            raise Stage1Error(f"app {name!r} ended meanwhile", hint="rkt status UUID")
        become(plan)
    except OSError as e:
        # Whoever tells of it could import nothing any more.
        raise Stage1Error(f"cannot enter: {steps.failure(None, e)}", hint=disk.remedy(e.errno)) from e
    return 0


def _environment(name: str) -> dict[bytes, bytes]:
    """What the app started with."""
    root = contract.STAGE1_ROOTFS
    if os.path.exists(contract.OVERLAY_PREPARED):
        # Mounted in the pod's own namespace.
        tree = files.read_bounded(contract.STAGE1_TREE_ID, _RECORD_BYTES).decode().strip()
        root = f"overlay/{tree}/upper"
    return plans.decode_environment(files.read_bounded(f"{root}/{plans.ENVIRONMENT}/{name}", _LIMIT_BYTES))
