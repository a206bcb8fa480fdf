# SPDX-License-Identifier: Apache-2.0
"""Registers pods with the metadata service (spec runtime §5.6); imported for pods that are to be registered, or were.

``mds-registered`` in the pod directory, for root alone, has the pod's token and the port of the service. It is there before
the service knows the pod, so that whoever deletes the pod knows that it may be registered.
"""

from __future__ import annotations

import os
import time

from rkt.errors import HostError, RktError
from rkt.linux import metadata_socket
from rkt.linux.files import replace_file
from rkt.pod import status
from rkt.schema import jsontext
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.pod.lifecycle import Pod

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
_REQUEST_SECONDS = 5.0
_TOKEN_BYTES = 32
_HINT = "systemctl start rkt-metadata, or rkt metadata-service"


def probe() -> int:
    """The port of the service, which must be there.

    Raises:
        HostError: it is not.
    """
    _, text = _ask("GET", "/", b"")
    try:
        port = jsontext.parse(text, what="answer of the metadata service")["port"]
    except (RktError, KeyError, TypeError):
        return metadata_socket.DEFAULT_PORT  # one of rkt 1.x
    return int(port)


def register(pod: Pod) -> str:
    """Tell the service of a pod that is about to run, anew if it ran before.

    Returns:
        its token.
    Raises:
        HostError: the service cannot be reached, or refuses; it knows nothing of the pod then.
    """
    port = probe()
    token = os.urandom(_TOKEN_BYTES).hex()
    replace_file(f"{pod.path}/{contract.MDS_REGISTERED}", f"{token}\n{port}\n".encode(), 0o600, sync=False)
    try:
        _register(pod, token)
    except BaseException:
        forget(pod)
        raise
    return token


def _register(pod: Pod, token: str) -> None:
    _expect("PUT", f"/pods/{pod.uuid}?token={token}", pod.read(contract.POD_MANIFEST) or b"")
    for app in status.app_names(pod):
        _expect("PUT", f"/pods/{pod.uuid}/{app}", pod.read(f"appsinfo/{app}/manifest") or b"")


def refresh(pod: Pod) -> None:
    """Tell the service that the apps of a registered pod have changed.

    Raises:
        HostError: it cannot be reached, or refuses.
    """
    record = pod.read_text(contract.MDS_REGISTERED)
    if record:
        _register(pod, record.split("\n", 1)[0])


def forget(pod: Pod) -> None:
    """Have the service forget a pod; that it cannot be reached is no reason to keep a pod that is over.

    A service that does not run now will not find the pod when it starts again, if it has the same data directory.
    """
    paths = [f"{pod.path}/{contract.MDS_REGISTERED}"]
    try:
        metadata_socket.ask("DELETE", f"/pods/{pod.uuid}", seconds=_REQUEST_SECONDS)
    except OSError:
        paths.append(f"{os.path.dirname(pod.pods_dir)}/{contract.MDS_PODS}/{pod.uuid}")
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _expect(method: str, target: str, body: bytes) -> None:
    answer, text = _ask(method, target, body)
    if answer != 200:
        raise HostError(
            f"failed to register the pod: failed to register pod with metadata svc: {text} (status {answer})"
        )


def _ask(method: str, target: str, body: bytes) -> tuple[int, str]:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            return metadata_socket.ask(method, target, body, seconds=_REQUEST_SECONDS)
        except OSError as e:
            failure = e
    reason = failure.strerror or str(failure)
    raise HostError(
        "failed to register the pod: failed to register pod with metadata svc: could not reach the metadata service: "
        f"{metadata_socket.SOCKET_PATH}: {reason}",
        hint=_HINT,
    )
