# SPDX-License-Identifier: Apache-2.0
"""Ports that a pod wants of the host: looked at before there is a pod, or before it is started (spec runtime §4.6)."""

from __future__ import annotations

from rkt.errors import PodError, RktError, UsageError
from rkt.linux.files import read_bounded
from rkt.net.ports import check_listeners, forwards_of
from rkt.pod import lifecycle, status
from rkt.schema import appc
from rkt.stage0 import contract
from rkt.stage0.messages import tell
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.config.settings import Settings
    from rkt.net.ports import Forward
    from rkt.pod.lifecycle import Pod
    from rkt.schema.appc import ImageManifest, PodManifest

_LIMIT_BYTES = 4 << 20


def forwards(manifest: PodManifest, images: Sequence[ImageManifest]) -> list[Forward]:
    """The ports of a pod manifest, whose names are those of its apps' ports.

    Raises:
        InvalidManifest: a name is unknown or not unique, or two ports want the same one of the host.
    """
    sections = [
        (str(runtime.name), runtime.app or image.app)
        for runtime, image in zip(manifest.apps, images, strict=True)
    ]
    return forwards_of(manifest.ports, [(name, section.ports) for name, section in sections if section])


def check_ports(
    ports: Sequence[Forward],
    networks: list[str],
    settings: Settings,
    *,
    own: str = "",
    served: frozenset[str] = frozenset(),
) -> None:
    """Refuse ports that cannot be had.

    With the host's network apps have the host's ports anyway, which is worth a notice.

    Args:
        ports: the pod's.
        networks: normalised ``--net`` list.
        settings: of the running command.
        own: UUID of the pod, if there is one already.
        served: names of ports for which a service manager passed sockets.
    Raises:
        UsageError: there is no network to forward them to.
        PodError: another pod has one, or a program of the host.
    """
    wanted = [each for each in ports if each.name not in served]
    if not wanted:
        return
    if networks == ["host"]:
        tell(settings, "ports are not forwarded with 'host' networking: the apps listen on the host itself")
    elif networks == ["none"]:
        raise UsageError("the pod's ports do not work with 'none' networking", hint="--net=host")
    else:
        _check_pods(wanted, settings, own)
        check_listeners(wanted)


def check_ports_of(
    pod: Pod, networks: list[str], settings: Settings, *, served: frozenset[str] = frozenset()
) -> None:
    """The same for a pod on disk that is about to be run.

    Raises:
        UsageError, PodError: as ``check_ports``.
        InvalidManifest: a manifest of the pod is damaged.
    """
    check_ports(_ports_of(pod), networks, settings, own=pod.uuid, served=served)


def _ports_of(pod: Pod) -> list[Forward]:
    manifest = appc.parse_pod_manifest(read_bounded(contract.POD_MANIFEST, _LIMIT_BYTES, dir_fd=pod.fd))
    images = [
        appc.parse_image_manifest(
            read_bounded(f"appsinfo/{runtime.name}/manifest", _LIMIT_BYTES, dir_fd=pod.fd)
        )
        for runtime in manifest.apps
    ]
    return forwards(manifest, images)


def _check_pods(wanted: Sequence[Forward], settings: Settings, own: str) -> None:
    from rkt.stage0.run import kept_options

    for text in lifecycle.uuids_in(settings.pods_dir, lifecycle.RUN):
        if text == own:
            continue
        try:
            pod = lifecycle.open_pod_at(settings.pods_dir, PodUUID(text), lifecycle.RUN)
            if pod is None:
                continue
            with pod:
                if not pod.is_running or not status.has_ports(pod):
                    continue
                if kept_options(pod).networks in (["none"], ["host"]):
                    # Those of the host's network are among its listeners.
                    continue
                theirs = _ports_of(pod)
        except (OSError, RktError):
            # Gone meanwhile, or damaged; the firewall, which nobody can pass by, is asked once more.
            continue
        for forward in wanted:
            for other in theirs:
                if forward.meets(other.protocol, other.host_port, other.host_ip):
                    raise PodError(
                        f"port {forward} is forwarded to pod {text} already", hint=f"rkt stop {text[:8]}"
                    )
