# SPDX-License-Identifier: Apache-2.0
"""What a pod is given, as findings with points: ``docs/explain.md`` has the same table for people, a test compares them.

The score is a plain sum. A finding is counted once for each app it is about, or once for the pod. None takes points away,
so nothing that is asked for on top can lower the sum.
"""

from __future__ import annotations

from rkt.schema.isolators import DEFAULT_CAPABILITIES
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: Finding -> points; with a user namespace of the pod's own, where that makes a difference.
POINTS: dict[str, tuple[int, int]] = {
    "unverified-image": (30, 30),
    "unverified-stage1": (100, 100),
    "unconfined": (100, 100),
    "root-user": (10, 3),
    "default-capabilities": (4, 2),
    "more-capabilities": (8, 3),
    "strong-capabilities": (20, 8),
    "host-capabilities": (100, 20),
    "gains-privileges": (10, 4),
    "wider-system-calls": (15, 15),
    "no-system-call-filter": (30, 30),
    "paths-not-hidden": (60, 25),
    "volume-read": (3, 3),
    "volume-write": (10, 10),
    "sensitive-read": (25, 25),
    "sensitive-write": (100, 100),
    "device": (15, 15),
    "sensitive-device": (100, 100),
    "protected-from-oom": (5, 5),
    "no-memory-limit": (3, 3),
    "writable-root": (1, 1),
    "no-user-namespace": (5, 0),
    "host-network": (25, 25),
    "host-ipc": (15, 15),
    "sysctls": (4, 4),
    "caller-environment": (10, 10),
}
#: Lowest score of each level.
LEVELS = ((100, "critical"), (50, "high"), (20, "moderate"), (0, "low"))
#: Findings of so many points can each be enough to own the machine.
TAKEOVER_POINTS = 60

#: Each of them is, or easily becomes, root of the host (capabilities(7)).
HOST_CAPABILITIES = frozenset(
    (
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
        "CAP_DAC_READ_SEARCH",
        "CAP_MAC_ADMIN",
        "CAP_MAC_OVERRIDE",
        "CAP_PERFMON",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_MODULE",
        "CAP_SYS_PTRACE",
        "CAP_SYS_RAWIO",
    )
)
#: Each of them changes or shows something that other programs of the host rely on.
STRONG_CAPABILITIES = frozenset(
    (
        "CAP_AUDIT_CONTROL",
        "CAP_AUDIT_READ",
        "CAP_LINUX_IMMUTABLE",
        "CAP_MKNOD",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_SYSLOG",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
    )
)
#: Who may write below one of these owns the host, or other containers; who may read finds keys and passwords.
_SENSITIVE_TREES = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/rkt",
    "/var/spool/cron",
)
#: Likewise, but single directories below are ordinary.
_SENSITIVE_WHOLE = ("/home", "/opt", "/srv", "/var/log")
_SOCKETS = frozenset(
    ("containerd.sock", "crio.sock", "docker.sock", "dockershim.sock", "podman.sock", "system_bus_socket")
)


class Finding(Record):
    """One thing that a pod is given.

    Attributes:
        kind: a key of ``POINTS``.
        app: whom it is about; empty for the pod.
        source: who gives it: ``image``, ``flag``, ``pod-manifest`` or ``default``.
        text: a sentence about it.
        remedy: the flag or change that takes it away.
    """

    kind: str
    app: str
    points: int
    source: str
    text: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """The finding as ``--format=json`` has it."""
        members = {
            "kind": self.kind,
            "points": self.points,
            "source": self.source,
            "text": self.text,
            "remedy": self.remedy,
        }
        return {"app": self.app, **members} if self.app else members


def level(score: int) -> str:
    """The word for a score."""
    return next(word for least, word in LEVELS if score >= least)


def capability_kinds(names: Iterable[str]) -> dict[str, list[str]]:
    """Capabilities by the finding that they make, the gravest first."""
    kinds: dict[str, list[str]] = {
        "host-capabilities": [],
        "strong-capabilities": [],
        "more-capabilities": [],
        "default-capabilities": [],
    }
    for name in names:
        if name in HOST_CAPABILITIES:
            kinds["host-capabilities"].append(name)
        elif name in STRONG_CAPABILITIES:
            kinds["strong-capabilities"].append(name)
        elif name in DEFAULT_CAPABILITIES:
            kinds["default-capabilities"].append(name)
        else:
            kinds["more-capabilities"].append(name)
    return {kind: found for kind, found in kinds.items() if found}


def is_sensitive(path: str, data_dir: str) -> bool:
    """Whether a path of the host, without links, leads to what the host is made of.

    Args:
        path: absolute.
        data_dir: of this rkt.
    """
    if path.rpartition("/")[2] in _SOCKETS:
        return True
    below = path.rstrip("/") + "/"
    for tree in (*_SENSITIVE_TREES, data_dir):
        if f"{tree}/".startswith(below) or below.startswith(f"{tree}/"):
            return True
    return any(f"{whole}/".startswith(below) for whole in _SENSITIVE_WHOLE)
