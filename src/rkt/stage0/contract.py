# SPDX-License-Identifier: Apache-2.0
"""What stage0 and stage1 promise each other (spec runtime §1.5 and §1.6; docs/stage1-contract.md).

The only module both sides import. Paths are relative to the pod directory unless said otherwise.
"""

from __future__ import annotations

#: Interface version that we speak and that our own flavours declare.
INTERFACE_VERSION = 6

ANNOTATION_PREFIX = "coreos.com/rkt/stage1/"
ANNOTATION_RUN = ANNOTATION_PREFIX + "run"
ANNOTATION_ENTER = ANNOTATION_PREFIX + "enter"
#: A stage1 whose pods have a root of their own beside those of their apps, and whose ``enter`` takes an empty ``--appname=``
#: to run a command there, has this annotation.
ANNOTATION_ENTER_POD = ANNOTATION_PREFIX + "enter-pod"
ANNOTATION_GC = ANNOTATION_PREFIX + "gc"
ANNOTATION_STOP = ANNOTATION_PREFIX + "stop"
ANNOTATION_APP_ADD = ANNOTATION_PREFIX + "app/add"
ANNOTATION_APP_START = ANNOTATION_PREFIX + "app/start"
ANNOTATION_APP_STOP = ANNOTATION_PREFIX + "app/stop"
ANNOTATION_APP_RM = ANNOTATION_PREFIX + "app/rm"
ANNOTATION_APP_UPDATE = ANNOTATION_PREFIX + "app/update"
ANNOTATION_ATTACH = ANNOTATION_PREFIX + "attach"
ANNOTATION_INTERFACE_VERSION = ANNOTATION_PREFIX + "interface-version"
#: Pod manifest annotation that says whether apps may be added and removed while the pod lives.
ANNOTATION_MUTABLE = ANNOTATION_PREFIX + "mutable"

#: App annotation: when the app is started again, as ``schema/restart.py`` reads it. A stage1 that does so has an annotation
#: of the second name.
ANNOTATION_RESTART = "coreos.com/rkt/restart-policy"
ANNOTATION_RESTARTS = ANNOTATION_PREFIX + "restart-policy"
#: A stage1 that probes apps, as ``schema/probes.py`` has it, has this annotation.
ANNOTATION_PROBES = ANNOTATION_PREFIX + "probes"
#: How annotations of apps begin that are to be probed.
ANNOTATIONS_OF_PROBES = ("coreos.com/rkt/readiness", "coreos.com/rkt/liveness")

#: The same for what ``schema/log_options.py`` has.
ANNOTATION_LOGS = ANNOTATION_PREFIX + "log-options"
ANNOTATIONS_OF_LOGS = ("coreos.com/rkt/log-",)
ANNOTATION_LOG_DRIVER = "coreos.com/rkt/log-driver"
#: A stage1 that takes the token for the metadata service from a file, not from an argument, has this annotation.
ANNOTATION_METADATA = ANNOTATION_PREFIX + "metadata-file"
#: Pod annotation: what the pod may talk to, as ``net/egress.py`` reads it; and of a stage1 that sees to that.
ANNOTATION_EGRESS = "coreos.com/rkt/egress"
ANNOTATION_EGRESSES = ANNOTATION_PREFIX + "egress"
#: A stage1 that mounts what the host has, with the host's propagation: its ``run`` gets ``ENV_HOST_MOUNTS`` always.
ANNOTATION_HOST_MOUNTS = ANNOTATION_PREFIX + "host-mounts"
#: What a stage1 does not enforce of what pods may ask for: words of ``stage0/enforcement.py``, joined by commas.
ANNOTATION_NOT_ENFORCED = ANNOTATION_PREFIX + "not-enforced"
#: Where journald listens.
JOURNAL_SOCKET = "/run/systemd/journal/socket"

#: Environment: number of the open, exclusively locked descriptor of the pod directory.
ENV_LOCK_FD = "RKT_LOCK_FD"
#: Environment of ``run`` and ``gc``: numbers of descriptors of the mount namespace that the caller was in, where network
#: plugins run and the pod's network namespace is mounted, and of its root directory, which below a chroot is not that
#: namespace's; and further directories of network configurations, by ``:``.
ENV_HOST_MOUNTS = "RKT_HOST_MOUNTS_FD"
ENV_HOST_ROOT = "RKT_HOST_ROOT_FD"
ENV_NET_DIRECTORIES = "RKT_NET_DIRECTORIES"
#: Environment of the ``app/…`` entrypoints: the ``enter`` program, and the process to hand to it.
ENV_ENTER_COMMAND = "RKT_STAGE1_ENTERCMD"
ENV_ENTER_PID = "RKT_STAGE1_ENTERPID"

POD_MANIFEST = "pod"
#: Of a pod whose stage1 says so: the words of what it does not enforce, then a line for each wish of an image that is lost.
NOT_ENFORCED = "not-enforced"
POD_CREATED = "pod-created"
#: Locked exclusively around changes of a mutable pod.
POD_LOCK = "pod.lck"
STAGE1_MANIFEST = "stage1/manifest"
STAGE1_ROOTFS = "stage1/rootfs"
STAGE1_TREE_ID = "stage1TreeStoreID"
OVERLAY_PREPARED = "overlay-prepared"
#: ``FIRST:COUNT``, the host's ids that the pod has leased; only with ``--private-users``.
PRIVATE_USERS_PREPARED = "private-users-prepared"
#: Written by stage1: decimal pid of the pod's pid 1 as seen on the host, and last of all files.
PID = "pid"
PPID = "ppid"
#: Written by a stage1 that becomes the app: the process group it was in.
PGID = "pgid"
#: Written by stage1 before the pid: the pod's cgroup below the root of each hierarchy.
SUBCGROUP = "subcgroup"
#: Of ``appsinfo/APP``, written by stage1: how many processes of the app were killed for want of memory.
OOM_KILLS = "oom-kills"
#: Of ``appsinfo/APP``, written by stage1: how often the app was started again, and with which status it had ended.
RESTARTS = "restarts"
#: Written by stage1 before it makes them: path of the pod's network namespace; a directory with a copy of each network's
#: configuration and a record of each interface; and, when all is set up, what ``list`` and ``status`` show.
NETNS = "netns"
NET = "net"
NET_INFO = "net-info.json"
#: Written by stage1: the egress rules in force, with the addresses of the names in them.
EGRESS = "egress"
#: Exists while ``rkt pause`` wants the pod's processes frozen; only the kernel knows whether they are.
PAUSED = "paused"
#: Written by stage1: one log file per app, CRI format, ``logs/APP.log``. Not reachable from the pod.
LOGS = "logs"
#: Backing directories of empty volumes.
SHARED_VOLUMES = "sharedVolumes"
#: Volumes of images, each mounted read-only at ``NAME/rootfs`` before stage1 starts.
IMAGE_VOLUMES = "imageVolumes"
#: Written by stage1: what apps of a pod on networks see as ``/etc/hosts``; other pods change it.
HOSTS = "hosts"
#: Of a pod that the metadata service may know, for root alone: its token and the port of the service, a line each.
MDS_REGISTERED = "mds-registered"
#: Below the data directory: what the service remembers of each pod.
MDS_PODS = "metadata/pods"
#: Written by stage1, for root alone: the value of ``AC_METADATA_URL``.
METADATA_URL = "metadata-url"
#: Listening socket of the pod's supervisor (SOCK_SEQPACKET, mode 0600), for stop and live changes.
CONTROL_SOCKET = "control"
#: Written by stage1: ``APP/endpoints`` and the sockets that ``rkt attach`` connects to, as ``iottymux`` of rkt had them.
ENDPOINTS = "iottymux"

#: Exit status of ``app/stop`` for an app that does not run.
EXIT_APP_NOT_RUNNING = 5

#: Relative to the stage1 root.
APPS_DIR = "opt/stage2"
STATUS_DIR = "rkt/status"
ENV_DIR = "rkt/env"
#: A socket for each app with ``--readiness=notify``.
NOTIFY_DIR = "rkt/notify"
SUPERVISOR_STATUS = "rkt/supervisor-status"

#: What an app gets when neither image nor operator says otherwise (spec runtime §1.6).
DEFAULT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/sh",
    "USER": "root",
    "LOGNAME": "root",
    "HOME": "/root",
}
