# SPDX-License-Identifier: Apache-2.0
"""``rkt run``: prepare a pod and become it (spec cli §2.1)."""

from __future__ import annotations

from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import Command, Flag
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, pod_request, run_options
from rkt.errors import UsageError

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
    if options.interactive and any(app.restart not in {None, "no"} for app in request.apps):
        raise UsageError("--interactive and --restart exclude each other")
    pod = prepare(
        request,
        choice,
        settings,
        uuid_file=invocation.values["uuid-file-save"],
        single_app=options.interactive,
        options=options,
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
        "An image is a name, a hash, a file, a URL, or a Docker or OCI image as in docker://busybox (see rkt help fetch). What follows it, up to the next image, is about it: options of the "
        "app, and after -- the arguments of its program, up to --- or the end. Options of the pod may stand anywhere but "
        "there.\n\n"
        "The arguments of an ACI's program go behind its own. Those for a Docker or OCI image replace its command and keep its "
        "entry point, as for docker run; where it has no entry point they are program and arguments, unless they begin by an "
        "option.\n\n"
        "Of a variable that is set several times --environment counts before --set-env, that before --set-env-file, that "
        "before the image, and that before the caller's, which only --inherit-env passes on."
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
        ("rkt run --insecure-options=image docker://busybox -- echo hello", "an image of Docker Hub"),
        (
            "rkt run --name=shop example.com/web -- --port 80 --- example.com/db",
            "two apps, one with arguments",
        ),
    ),
)
