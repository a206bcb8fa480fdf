# SPDX-License-Identifier: Apache-2.0
"""Sockets of the host's service manager for the apps that declare them (spec runtime §3.10).

They stay where they were passed, from 3 on, for as long as the supervisor lives, so that an app that is started again
gets them again; nothing else is ever opened at these numbers.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import listening
from rkt.schema import activation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage2.exec import ExecPlan


def passed() -> list[listening.Listening]:
    """All that there are, in order."""
    try:
        return listening.passed(dict(os.environ), os.getpid())
    except ValueError as e:
        raise Stage1Error(str(e)) from e


def served(pod: LoadedPod) -> frozenset[str]:
    """Names of the ports for which there is a socket.

    Raises:
        UsageError: there are sockets that no app declares.
    """
    apps = [(app.name, app.app) for app in pod.apps]
    return frozenset(
        wish.port for wish in activation.assign(passed(), activation.expected(apps, pod.manifest.ports))
    )


def check(pod: LoadedPod) -> None:
    """Refuse sockets that no app declares.

    Raises:
        UsageError: there are such.
    """
    served(pod)


def own(pod: LoadedPod, app: PodApp) -> list[listening.Listening]:
    """Those of one app, in the order in which they were passed."""
    wishes = activation.expected([(app.name, app.app)], pod.manifest.ports)
    return [
        each
        for each in passed()
        if any(activation.fits(each, wish) and activation.has_address(each, wish) for wish in wishes)
    ]


def give(pod: LoadedPod, app: PodApp, plan: ExecPlan) -> None:
    """Let the app's process have its sockets, in the order in which they were passed."""
    sockets = own(pod, app)
    if sockets:
        plan.sockets.extend(each.fd for each in sockets)
        plan.environment[b"LISTEN_FDS"] = b"%d" % len(sockets)
        plan.environment[b"LISTEN_FDNAMES"] = ":".join(each.name for each in sockets).encode()
