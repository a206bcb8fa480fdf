# SPDX-License-Identifier: Apache-2.0
"""``rkt run``: prepare a pod and become it (spec cli §2.1)."""

from __future__ import annotations

from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import Command, Flag
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, pod_request, run_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Does not return on success: the process becomes the pod."""
    from rkt.stage0.prepare import prepare
    from rkt.stage0.run import run as become
    from rkt.stage0.stage1 import choose

    settings = invocation.settings
    request = pod_request(invocation)
    choice = choose(invocation.values)
    options = run_options(invocation)
    pod = prepare(
        request,
        choice,
        settings,
        uuid_file=invocation.values["uuid-file-save"],
        single_app=options.interactive,
        networks=options.networks,
        sync=False,
    )
    become(pod, settings, options)


COMMAND = Command(
    name="run",
    summary="run image(s) in a pod",
    usage="[--volume=VOLUME…] [--mount=MOUNT…] IMAGE [--name=APP…] [-- ARG… [---]]…",
    description=(
        "Finds or fetches the images, verifies them, makes a pod of them, and becomes that pod: the process that was "
        "started as rkt supervises it, and ends with the status of the first app that failed.\n\n"
        "Flags after an image are that app's. Flags before the first image are the pod's."
    ),
    run=run,
    flags=(
        *PREPARE_FLAGS,
        *RUN_FLAGS,
        Flag(
            name="uuid-file-save",
            default="",
            help="write the pod's UUID to a file as soon as the pod exists",
            metavar="FILE",
            completes="file",
        ),
    ),
    app_flags=ALL_APP_FLAGS,
    needs_root=True,
    completes="image",
    examples=(
        ("rkt run example.com/web:1.0", "run an image by name"),
        (
            "rkt run --name=shop example.com/web -- --port 80 --- example.com/db",
            "two apps, one with arguments",
        ),
    ),
)
