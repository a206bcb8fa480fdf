# SPDX-License-Identifier: Apache-2.0
"""Network configurations: which files count, what each must be, which networks a pod gets and in what order.

Directories are given in the order in which they win: a network that several define is the first one's. A file is a
single configuration (``.conf``, ``.json``) or a list of plugins (``.conflist``) of CNI 0.1.0 to 1.1.0; a network is known
by its ``name``, and the networks of a pod are set up in the order of the names of their files (spec runtime §4.1, §4.2).

A plugin is executed as root, so only root may say which: files and directories that somebody else owns or may write to
are refused (invariant NT5).

Source: https://www.cni.dev/docs/spec/, "Network configuration format".
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, NetworkError, quoted
from rkt.linux import files
from rkt.schema import jsontext
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

#: Versions of the specification that are spoken, oldest first.
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
#: Names that a user may not give to a network: they mean something else on the command line.
RESERVED = frozenset(("all", "host", "none"))
#: Where the directories of each place have their networks.
SUBDIRECTORY = "net.d"
#: Below stage1's root: the networks that a stage1 image brings.
STAGE1_DIRECTORY = "etc/rkt/net.d"
#: Networks that stage1 images of ours bring.
BUILT_IN = ("default", "default-restricted")
#: And the plugins that these need.
BUILT_IN_PLUGINS = ("bridge", "host-local")
#: Member of a plugin's configuration that is for us; plugins pass over what they do not know.
MASQUERADE = "rktMasquerade"
_SUFFIXES = (".conf", ".json", ".conflist")
_LIST_SUFFIX = ".conflist"
_MAX_FILE_BYTES = 1 << 20
_WRITABLE_BY_OTHERS = 0o022
_KIND = 0o170000
_REGULAR = 0o100000
_MAX_NAME_LENGTH = 255
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Network(Record):
    """One configured network.

    Attributes:
        name: what ``--net`` calls it.
        path: of the file that defines it.
        version: of the CNI specification that its plugins are spoken to in.
        plugins: configuration of each plugin, in order; one for a single configuration.
        is_list: whether it is a list, whose plugins get name and version from it.
        check: whether CHECK may be called.
        raw: the file's bytes: a single configuration is handed to its plugin as it stands.
    """

    name: str
    path: str
    version: str
    plugins: list[dict[str, Any]]
    raw: bytes
    is_list: bool = False
    check: bool = True

    @property
    def file_name(self) -> str:
        """By which networks are ordered."""
        return self.path.rpartition("/")[2]

    @property
    def masquerades(self) -> bool:
        """Whether a plugin hides the pod's addresses behind the host's (``ipMasq``)."""
        return any(plugin.get("ipMasq") is True for plugin in self.plugins)

    @property
    def is_masqueraded_by_us(self) -> bool:
        """Whether the same is asked of rkt itself (``rktMasquerade``): one transaction instead of several runs of iptables."""
        return any(plugin.get(MASQUERADE) is True for plugin in self.plugins)

    @property
    def has_capabilities(self) -> bool:
        """Whether one of the plugins takes a ``runtimeConfig`` at all."""
        return any(plugin.get("capabilities") for plugin in self.plugins)

    def has_capability(self, name: str) -> bool:
        """Whether one of the plugins wants that in its ``runtimeConfig``."""
        return any((plugin.get("capabilities") or {}).get(name) is True for plugin in self.plugins)


class Request(Record):
    """One network that a pod is to join; ``args`` goes to its plugins as ``CNI_ARGS``."""

    name: str
    args: str = ""


class Found(Record):
    """What the directories have.

    Attributes:
        networks: by name.
        notices: definitions that do not count, in words.
    """

    networks: dict[str, Network] = {}
    notices: list[str] = []


def at_least(version: str, least: str) -> bool:
    """Whether one version of the specification is another or a later one."""
    return VERSIONS.index(version) >= VERSIONS.index(least)


def parse_requests(items: Iterable[str]) -> list[Request]:
    """The list that stage1 is given: each ``NAME`` or ``NAME:ARGS``."""
    requests = []
    for item in items:
        name, _, args = item.partition(":")
        requests.append(Request(name=name, args=args))
    return requests


def load(directories: Sequence[str]) -> Found:
    """Read the networks of all directories; those that are missing are passed over.

    Args:
        directories: the one that wins first.
    Raises:
        NetworkError: a file or directory is not what it must be, or may be changed by others than root.
    """
    networks: dict[str, Network] = {}
    notices: list[str] = []
    for directory in directories:
        own: dict[str, Network] = {}
        for path in paths(directory):
            network = load_network(path)
            if network.name in own:
                notices.append(f"{quoted(network.name)} network already defined, ignoring {path}")
            elif network.name in networks:
                winner = networks[network.name].path
                notices.append(f"overriding {quoted(network.name)} network with one from {winner}")
                own[network.name] = networks[network.name]
            else:
                own[network.name] = network
        networks = {**own, **networks}
    return Found(networks=networks, notices=notices)


def paths(directory: str) -> list[str]:
    """Files of a directory that may be configurations, in their order; none when there is no such directory.

    Raises:
        NetworkError: it cannot be read, or may be changed by others than root.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIXES))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise NetworkError(f'cannot read networks in "{directory}": {e.strerror}') from e
    if names:
        check_owner(os.stat(directory), f'directory "{directory}"')
    return [f"{directory}/{name}" for name in names if not os.path.isdir(f"{directory}/{name}")]


def load_network(path: str) -> Network:
    """Read one file.

    Raises:
        NetworkError: it cannot be read, is no network configuration, or may be changed by others than root.
    """
    return parse(_read(path), path)


def parse(raw: bytes, path: str) -> Network:
    """Bytes of a configuration to a network; the end of the path says whether it is a list.

    Raises:
        NetworkError: it is not one.
    """
    what = f'network configuration "{path}"'
    try:
        members = jsontext.parse(raw, what=what, limit_bytes=_MAX_FILE_BYTES)
    except InvalidManifest as e:
        raise NetworkError(e.message) from None
    if not isinstance(members, dict):
        raise NetworkError(f"{what} is not a JSON object")
    is_list = path.endswith(_LIST_SUFFIX)
    name = members.get("name")
    if not is_name(name):
        raise NetworkError(f"{what}: name {_shown(name)} is not that of a network")
    assert isinstance(name, str)
    if name in RESERVED:
        raise NetworkError(f'{what}: no network can be called "{name}"')
    plugins = members.get("plugins") if is_list else [members]
    if not isinstance(plugins, list) or not plugins:
        raise NetworkError(f"{what} has no plugins", hint="a single plugin belongs into a .conf file")
    if not is_list and "plugins" in members:
        raise NetworkError(f"{what} is a list of plugins", hint="name the file .conflist")
    for plugin in plugins:
        _check_plugin(plugin, what)
    disable = members.get("disableCheck", False)
    if not isinstance(disable, bool):
        disable = disable == "true"
    return Network(
        name=name,
        path=path,
        version=_version(members, what),
        plugins=plugins,
        raw=raw,
        is_list=is_list,
        check=not disable,
    )


def select(found: Found, requests: Sequence[Request]) -> list[tuple[Network, str]]:
    """The networks of a pod with their arguments, in the order in which they are set up.

    Args:
        found: what there is.
        requests: without ``host`` and ``none``; ``all`` is every network there is.
    Raises:
        NetworkError: one is missing, or named twice.
    """
    arguments: dict[str, str] = {}
    for request in requests:
        if request.name in arguments:
            raise NetworkError(f'found duplicate netname "{request.name}"')
        arguments[request.name] = request.args
    if "all" in arguments:
        del arguments["all"]
        arguments = {**dict.fromkeys(found.networks, ""), **arguments}
    missing = [name for name in arguments if name not in found.networks]
    if missing:
        known = ", ".join(sorted(found.networks))
        raise NetworkError(
            f"networks not found: {', '.join(missing)}",
            hint=f"--net=none, --net=host, or one of: {known}" if known else "--net=none or --net=host",
        )
    chosen = [(found.networks[name], args) for name, args in arguments.items()]
    return sorted(chosen, key=lambda pair: pair[0].file_name)


def is_name(value: object) -> bool:
    """Whether this may be the name of a network (CNI, "Network configuration format")."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_NAME_LENGTH
        and value[0] in _ALPHANUMERIC
        and _ALPHANUMERIC.union("_.-").issuperset(value)
    )


def is_type(value: object) -> bool:
    """Whether this may be the name of a plugin: one component of a path, never a way out of its directory (NT5)."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_NAME_LENGTH
        and _LOWER.issuperset(value)
        and value not in {".", ".."}
    )


def check_owner(status: os.stat_result, what: str) -> None:
    """Refuse what others than root, or whoever runs this, could have written.

    Raises:
        NetworkError: naming ``what``.
    """
    if status.st_uid not in {0, os.geteuid()}:
        raise NetworkError(f"{what} belongs to user {status.st_uid}, not to root", hint="chown root")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise NetworkError(f"{what} may be written by others than root", hint="chmod go-w")


def _read(path: str) -> bytes:
    try:
        # A link is followed, as configuration managers make them; what counts is the file at its end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if status.st_mode & _KIND != _REGULAR:
                raise NetworkError(f'network configuration "{path}" is not a regular file')
            check_owner(status, f'network configuration "{path}"')
            return files.read_fd_bounded(fd, _MAX_FILE_BYTES, path)
        finally:
            os.close(fd)
    except OSError as e:
        raise NetworkError(f'cannot read network configuration "{path}": {e.strerror}') from e


def _check_plugin(plugin: Any, what: str) -> None:
    if not isinstance(plugin, dict):
        raise NetworkError(f"{what}: a plugin is not a JSON object")
    kinds = [plugin.get("type")]
    ipam = plugin.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        raise NetworkError(f"{what}: ipam is not a JSON object")
    if ipam and "type" in ipam:
        kinds.append(ipam["type"])
    for kind in kinds:
        if not is_type(kind):
            raise NetworkError(f"{what}: type {_shown(kind)} is not the name of a plugin")
    capabilities = plugin.get("capabilities")
    if capabilities is not None and not isinstance(capabilities, dict):
        raise NetworkError(f"{what}: capabilities is not a JSON object")


def _version(members: dict[str, Any], what: str) -> str:
    """The newest version that both sides know."""
    version = members.get("cniVersion", "")
    several = members.get("cniVersions")
    if isinstance(several, list):
        known = [each for each in VERSIONS if each in several or each == version]
        if known:
            return known[-1]
    if version == "":
        return VERSIONS[0]  # what CNI takes it for
    if version not in VERSIONS:
        raise NetworkError(
            f"{what}: cniVersion {_shown(version)} is not supported", hint=f"{VERSIONS[0]} to {VERSIONS[-1]}"
        )
    assert isinstance(version, str)
    return version


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else "of another kind than text"
