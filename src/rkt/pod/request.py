# SPDX-License-Identifier: Apache-2.0
"""What the command line asks for: the apps of a pod and the pod itself, before images are looked at."""

from __future__ import annotations

from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.schema.appc import Volume


class MountRequest(Record):
    """One ``--mount volume=NAME,target=PATH``; or one ``--device``, a mount with a volume of its own."""

    volume: str
    target: str
    own: Volume | None = None


class AppRequest(Record):
    """One image argument with its per-app flags (spec cli §1.7); ``None`` means that the flag was not given.

    Attributes:
        reference: the image as typed.
        args: words after ``--``; ``None`` without ``--``.
        restart: the policy as typed.
        seccomp: the value of ``--seccomp`` as typed.
        memory, cpu: quantities as typed.
        ulimits, device_rates: values of ``--ulimit``, and of ``--device-KIND`` with the kind, as typed.
        annotations, user_annotations, user_labels, environment: in the order typed.
    """

    reference: str
    args: list[str] | None = None
    signature: str | None = None
    exec: str | None = None
    working_dir: str | None = None
    readonly_rootfs: bool | None = None
    mounts: list[MountRequest] = []
    user: str | None = None
    group: str | None = None
    supplementary_gids: list[int] | None = None
    name: str | None = None
    annotations: dict[str, str] = {}
    user_annotations: dict[str, str] | None = None
    user_labels: dict[str, str] | None = None
    environment: dict[str, str] = {}
    memory: str | None = None
    cpu: str | None = None
    cpu_shares: int | None = None
    caps_retain: list[str] | None = None
    caps_remove: list[str] | None = None
    seccomp: str | None = None
    no_new_privileges: bool | None = None
    oom_score_adj: int | None = None
    pids_limit: int | None = None
    ulimits: list[str] = []
    cpuset_cpus: str | None = None
    io_weight: int | None = None
    device_rates: list[tuple[str, str]] = []
    restart: str | None = None

    @property
    def has_limits(self) -> bool:
        """Whether a flag of ``pod/limit_flags.py`` was given."""
        numbers = (self.pids_limit, self.cpuset_cpus, self.io_weight)
        return bool(self.ulimits or self.device_rates) or any(value is not None for value in numbers)


class PodRequest(Record):
    """Everything ``prepare`` is told (spec runtime §1.2, §1.3).

    Attributes:
        apps: image arguments in order; empty with ``pod_manifest_path``.
        volumes, ports, sysctls: values of ``--volume``, ``--port``, ``--sysctl`` as typed.
        mounts: global ``--mount`` values, given before the first image.
        set_env: ``--set-env`` in order; ``inherited_env``: the caller's environment when asked for.
        name: users' own name for the pod, unique among live pods; empty for none.
        annotations: of the pod manifest, beside those of rkt.
        mutable: whether apps may come and go while the pod lives; then it may have none.
        pod_volumes: of the living pod that gets the apps.
        locked: path of the lock file that all images must be in; empty for none.
    """

    apps: list[AppRequest] = []
    pod_manifest_path: str | None = None
    volumes: list[str] = []
    mounts: list[MountRequest] = []
    ports: list[str] = []
    sysctls: list[str] = []
    set_env: dict[str, str] = {}
    set_env_files: list[str] = []
    inherited_env: dict[str, str] = {}
    user_annotations: dict[str, str] = {}
    user_labels: dict[str, str] = {}
    no_overlay: bool = False
    private_users: bool = False
    name: str = ""
    pull_policy: str = "new"
    annotations: dict[str, str] = {}
    mutable: bool = False
    pod_volumes: list[Volume] = []
    locked: str = ""
