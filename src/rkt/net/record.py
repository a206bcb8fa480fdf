# SPDX-License-Identifier: Apache-2.0
"""What is written down of a pod's interfaces before they are made; enough to check and to remove them.

``net/ethN.json`` in the pod directory is an object::

    {"version": 1, "network": …, "interface": "eth0", "copy": "net/10-x.conf", "cniVersion": …, "args": …, "search": […],
     "check": true, "calls": [{"program": "/usr/lib/cni/bridge", "configuration": {…}}, …], "result": {…}}

with what each plugin was given, and what they answered up to the last one that was called; without ``result`` before the second.
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, NetworkError
from rkt.linux import files
from rkt.linux.locks import lock_file
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0.contract import NET
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.linux.locks import Lock

#: Where network namespaces have names, as ip-netns(8) has it.
NETNS_DIRECTORY = "/run/netns"
#: Held around ADD, and exclusively around GC, of plugins that have GC.
_LOCK_DIRECTORY = "/run/rkt/plugins"
_LOCK = f"{_LOCK_DIRECTORY}/.lock"
_VERSION = 1
_MAX_BYTES = 4 << 20
_PREFIX = "eth"
_SUFFIX = ".json"


class Call(Record):
    """One plugin of a network and what it reads."""

    program: str
    configuration: dict[str, Any]


class Interface(Record):
    """One interface of a pod, made or about to be made.

    Attributes:
        name: in the pod.
        network: name of its network.
        copy: relative path of the copy of the network's configuration.
        version: of the CNI specification.
        args: of the operator.
        search: directories of plugins.
        check: whether CHECK may be called.
        calls: plugins in the order of ADD.
        result: what those answered that were called so far, empty before.
    """

    name: str
    network: str
    copy: str
    version: str
    args: str
    search: list[str]
    calls: list[Call]
    check: bool = True
    result: dict[str, Any] = {}

    def write(self, pod_path: str) -> None:
        """Write or replace the record."""
        members = {
            "version": _VERSION,
            "network": self.network,
            "interface": self.name,
            "copy": self.copy,
            "cniVersion": self.version,
            "args": self.args,
            "search": self.search,
            "check": self.check,
            "calls": [each.as_dict() for each in self.calls],
        }
        if self.result:
            members["result"] = self.result
        path = f"{pod_path}/{NET}/{self.name}{_SUFFIX}"
        files.replace_file(path, jsontext.dump(members).encode(), 0o644, sync=False)

    def forget(self, pod_path: str) -> None:
        """Remove the record and the copy of the configuration; fine when they are gone."""
        for path in (f"{NET}/{self.name}{_SUFFIX}", self.copy):
            try:
                os.unlink(f"{pod_path}/{path}")
            except FileNotFoundError:
                continue


def lock_plugins(*, exclusive: bool) -> Lock:
    """Keep ADD and GC apart: what GC is not told of it takes back, and the list that it is told grows old.

    Raises:
        OSError: the lock cannot be had.
    """
    for directory, mode in ((os.path.dirname(_LOCK_DIRECTORY), 0o755), (_LOCK_DIRECTORY, 0o700)):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            continue
    return lock_file(_LOCK, exclusive=exclusive, mode=0o600)


def copy_path(file_name: str) -> str:
    """Relative path of the copy of a network's configuration; its name is the file's, unless that is a record's."""
    return f"{NET}/{'network-' if _number_of(file_name) >= 0 else ''}{file_name}"


def names(pod_path: str) -> list[str]:
    """Interfaces that there are records of, in order."""
    try:
        entries = os.listdir(f"{pod_path}/{NET}")
    except FileNotFoundError:
        return []
    return [f"{_PREFIX}{number}" for number in sorted(map(_number_of, entries)) if number >= 0]


def _number_of(entry: str) -> int:
    """The interface of which a file with this name is the record; -1 for no record."""
    number = entry.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    return int(number) if is_number(number) and entry == f"{_PREFIX}{int(number)}{_SUFFIX}" else -1


def load(pod_path: str, name: str) -> Interface:
    """Read one record.

    Raises:
        NetworkError: it is damaged, or of another version.
    """
    path = f"{pod_path}/{NET}/{name}{_SUFFIX}"
    try:
        members = jsontext.parse(
            files.read_bounded(path, _MAX_BYTES), what=f'record "{path}"', limit_bytes=_MAX_BYTES
        )
        if members["version"] != _VERSION:
            raise NetworkError(f'record "{path}" has another version than {_VERSION}')
        return Interface(
            name=members["interface"],
            network=members["network"],
            copy=members["copy"],
            version=members["cniVersion"],
            args=members["args"],
            search=members["search"],
            check=members["check"],
            calls=[Call(**each) for each in members["calls"]],
            result=members.get("result") or {},
        )
    except (InvalidManifest, AttributeError, KeyError, TypeError) as e:
        raise NetworkError(f'record "{path}" is damaged') from e
    except OSError as e:
        raise NetworkError(f'cannot read record "{path}": {e.strerror}') from e
