# SPDX-License-Identifier: Apache-2.0
"""Take back what pods that are over left of their networks: ``rkt net gc``, and its part of ``rkt gc``.

A pod that was killed has its namespace, addresses and rules until somebody takes them back, by what is written down in its
directory. Where a plugin refuses, as one that was uninstalled does, the pod may go and the records stay, to be tried again::

    $DATA/net-left/UUID/netns, net/     as in the pod directory

What no record of this data directory names is another engine's, and is left alone.
"""

from __future__ import annotations

import os

from rkt.errors import NetworkError, RktError, reason_of
from rkt.linux.files import sync_directory
from rkt.linux.locks import lock_directory
from rkt.pod import lifecycle
from rkt.stage0 import contract
from rkt.stage0.messages import tell
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.config.settings import Settings
    from rkt.net.config import Network
    from rkt.pod.lifecycle import Pod

DIRECTORY = "net-left"
#: Member of a configuration that GC reads (CNI 1.1.0, "GC").
_VALID = "cni.dev/valid-attachments"
_NETNS_DIRECTORY = "/run/netns"
#: Interfaces that a pod of another engine may have; it says so nowhere.
_MAX_INTERFACES = 32


def is_left(pod: Pod) -> bool:
    """Whether a pod has networks that were not taken back."""
    return pod.has(contract.NETNS) or pod.has(contract.NET)


def keep(settings: Settings, pod: Pod) -> None:
    """Keep the records of networks that could not be taken back, of a pod that is about to be deleted.

    Raises:
        OSError: they cannot be kept; the pod has to stay.
    """
    if not is_left(pod):
        return
    directory = f"{settings.data_dir}/{DIRECTORY}/{pod.uuid}"
    os.makedirs(directory, mode=lifecycle.DIRECTORY_MODE, exist_ok=True)
    for name in (contract.NET, contract.NETNS):
        if pod.has(name):
            os.rename(name, f"{directory}/{name}", src_dir_fd=pod.fd)
    sync_directory(directory)
    tell(settings, f'networks of pod "{pod.uuid}" are not taken back yet: rkt net gc tries again')


def collect(settings: Settings) -> bool:
    """Take back everything that pods of this data directory left, and have plugins look for what nobody wrote down.

    Returns:
        whether nothing is left.
    """
    is_clean = True
    for pod in over(settings):
        with pod:
            is_clean = _take_back(settings, pod) and is_clean
    return collect_left(settings) and is_clean and _ask_plugins(settings)


def over(settings: Settings) -> Iterator[Pod]:
    """Pods that are over and have networks, each opened; the caller closes it."""
    pods_dir = settings.pods_dir
    for place in (lifecycle.RUN, lifecycle.EXITED_GARBAGE):
        for uuid in sorted(lifecycle.uuids_in(pods_dir, place)):
            pod = lifecycle.open_pod_at(pods_dir, PodUUID(uuid), place)
            if pod is None:
                continue
            if pod.locked or not is_left(pod):
                pod.close()
            else:
                yield pod


def left(settings: Settings) -> list[str]:
    """UUIDs of pods that are gone and have networks."""
    return sorted(lifecycle.uuids_in(settings.data_dir, DIRECTORY))


def take_back(settings: Settings, pod: Pod) -> None:
    """Take back what a pod that is over, and locked by this process, has left of its networks."""
    from rkt.stage0 import gc

    for problem in gc.take_back(settings, pod):
        tell(settings, f'cgroup of pod "{pod.uuid}" not removed: {problem}')


def collect_left(settings: Settings) -> bool:
    """Try again what could not be taken back before its pod was deleted; whether nothing is left."""
    is_clean = True
    for uuid in left(settings):
        path = f"{settings.data_dir}/{DIRECTORY}/{uuid}"
        try:
            with lock_directory(path, exclusive=True, blocking=False):
                is_clean = _release(settings, path) and is_clean
        except (BlockingIOError, FileNotFoundError):
            continue  # somebody else is at it, or was
        except OSError as e:
            tell(settings, f'networks of pod "{uuid}" not taken back: {e.strerror}: {path}')
            is_clean = False
    return is_clean


def _take_back(settings: Settings, pod: Pod) -> bool:
    from rkt.stage0 import gc

    try:
        if not gc.try_lock(pod):
            return True  # started again, or being collected
        take_back(settings, pod)
    except (RktError, OSError) as e:
        tell(settings, f'networks of pod "{pod.uuid}" not taken back: {reason_of(e)}')
        return False
    if is_left(pod):
        return False  # told by stage1
    tell(settings, f'networks of pod "{pod.uuid}" taken back')
    return True


def _release(settings: Settings, path: str) -> bool:
    from rkt.net import names, teardown

    uuid = os.path.basename(path)
    names.leave(uuid)
    if not teardown.release(path, hold_fd=-1, report=lambda text: tell(settings, text)):
        return False
    os.rmdir(path)
    tell(settings, f'networks of pod "{uuid}" taken back')
    return True


def _ask_plugins(settings: Settings) -> bool:
    """GC of networks whose version of CNI has it; whether all plugins did it."""
    from rkt.net import config
    from rkt.stage0 import net_report

    is_clean = True
    for network in net_report.networks(settings).networks.values():
        if config.at_least(network.version, "1.1.0"):
            is_clean = _ask(settings, network) and is_clean
    return is_clean


def _ask(settings: Settings, network: Network) -> bool:
    from rkt.net import plugin, record, setup
    from rkt.net.plugin import Attachment
    from rkt.schema import jsontext

    search = plugin.directories(settings.local_config_dir, "")
    nobody = Attachment(container_id="", netns="", interface="", args="", search=search)
    is_clean = True
    with record.lock_plugins(exclusive=True):
        valid = _attachments(settings)
        for index, each in enumerate(network.plugins):
            members = setup.configuration(network, index, {})
            members[_VALID] = valid
            try:
                program = plugin.find(each["type"], search)
                raw = jsontext.dump(members).encode()
                plugin.run(program, plugin.GC, raw, nobody, version=network.version)
            except NetworkError as e:
                tell(settings, f'network "{network.name}": {e.message}')
                is_clean = False
    return is_clean


def _attachments(settings: Settings) -> list[dict[str, str]]:
    """What plugins must not touch: everything that somebody has written down, or that has a namespace with a name.

    A name is there before the first plugin is asked, and every rkt of this host names its pods' namespaces alike.
    """
    from rkt.net import record

    found = set()
    for place in (lifecycle.RUN, lifecycle.EXITED_GARBAGE):
        for uuid in lifecycle.uuids_in(settings.pods_dir, place):
            path = f"{settings.pods_dir}/{place}/{uuid}"
            found |= {(uuid, interface) for interface in record.names(path)}
    for uuid in left(settings):
        path = f"{settings.data_dir}/{DIRECTORY}/{uuid}"
        found |= {(uuid, interface) for interface in record.names(path)}
    for name in named_namespaces():
        found |= {(name, f"eth{number}") for number in range(_MAX_INTERFACES)}
    return [{"containerID": uuid, "ifname": interface} for uuid, interface in sorted(found)]


def named_namespaces() -> list[str]:
    """UUIDs of pods of any rkt whose network namespaces have names."""
    try:
        names = os.listdir(_NETNS_DIRECTORY)
    except FileNotFoundError:
        return []
    return sorted(name.removeprefix("rkt-") for name in names if name.startswith("rkt-"))
