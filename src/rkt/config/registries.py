# SPDX-License-Identifier: Apache-2.0
"""Kind ``registry`` of ``fetch.d``.

Of single registries: mirrors, who issues its tokens, whether it is reached by plain http. Of none: where names without a
host are searched.
"""

from __future__ import annotations

from rkt.config.auth import registry_key
from rkt.config.files import read_directory
from rkt.config.network import FETCH_KINDS, is_host
from rkt.errors import quoted
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings

#: Registries whose owners are known to issue tokens on another of their hosts (invariant RG1).
_TOKEN_HOSTS = {DOCKER_HUB_REGISTRY: ["auth.docker.io"], "registry.gitlab.com": ["gitlab.com"]}
_MAX_MIRRORS = 16
_MAX_SEARCHED = 8
_PATH_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")
_URL_CHARACTERS = _PATH_CHARACTERS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ%~+=,:@")


class RegistryConfig(Record):
    """What is particular about a registry.

    Attributes:
        http: it is reached by plain http, and never sent a credential.
        mirrors: URLs, asked before the registry itself, in this order.
        token_hosts: hosts, perhaps with a port, besides its own that may issue its tokens and get its credentials.
        lookaside: URL below which the OpenPGP signatures of its images are; empty for none.
    """

    http: bool = False
    mirrors: list[str] = []
    token_hosts: list[str] = []
    lookaside: str = ""


def load_registries(settings: Settings) -> dict[str, RegistryConfig]:
    """Merge all directories, by registry as ``registry_key`` names it; later directories win."""
    found: dict[str, RegistryConfig] = {}
    for directory in settings.config_dirs:
        own: dict[str, RegistryConfig] = {}
        for file in read_directory(f"{directory}/fetch.d", FETCH_KINDS):
            if file.kind == "registry" and not _is_search(file):
                _read(file, own)
        found |= own
    return found


def load_search(settings: Settings) -> list[str]:
    """Registries, perhaps with a path, in which short names are looked for, in this order.

    The last directory that says so decides alone.
    """
    found: list[str] = []
    for directory in settings.config_dirs:
        own: list[str] | None = None
        for file in read_directory(f"{directory}/fetch.d", FETCH_KINDS):
            if file.kind != "registry" or not _is_search(file):
                continue
            if own is not None:
                raise file.error("where to search is already specified")
            own = _read_search(file)
        found = found if own is None else own
    return found


def token_hosts(registry: str, config: RegistryConfig) -> list[str]:
    """Hosts besides the registry's own that may issue its tokens: those of the configuration, and the well-known ones."""
    return [*config.token_hosts, *_TOKEN_HOSTS.get(registry_key(registry), ())]


def _is_search(file: ConfigFile) -> bool:
    return "search" in file.members


def _read_search(file: ConfigFile) -> list[str]:
    if other := sorted({"registries", "http", "mirrors", "tokenHosts", "lookaside"} & set(file.members)):
        raise file.error(f'"search" is not of single registries: {quoted(other[0])} needs a file of its own')
    places = file.texts("search")
    if len(places) > _MAX_SEARCHED:
        raise file.error(f"more than {_MAX_SEARCHED} registries to search")
    for place in places:
        host, slash, path = place.partition("/")
        # As in references: else it would be a name on Docker Hub.
        has_host = is_host(host) and ("." in host or ":" in host or host == "localhost")
        has_path = all(path.split("/")) and _PATH_CHARACTERS.issuperset(path)
        if not has_host or bool(slash) != bool(path) or (path and not has_path):
            raise file.error(
                f"{quoted(place)} is not a registry, perhaps with a path, such as docker.io/library"
            )
    return places


def _read(file: ConfigFile, found: dict[str, RegistryConfig]) -> None:
    registries = file.texts("registries")
    if not registries:
        raise file.error("no registries specified")
    http = file.members.get("http", False)
    if not isinstance(http, bool):
        raise file.error('"http" is neither true nor false')
    config = RegistryConfig(
        http=http,
        mirrors=file.texts("mirrors"),
        token_hosts=file.texts("tokenHosts"),
        lookaside=_lookaside(file),
    )
    if not (config.http or config.mirrors or config.token_hosts or config.lookaside):
        raise file.error("none of http, mirrors, tokenHosts and lookaside specified")
    if len(config.mirrors) > _MAX_MIRRORS:
        raise file.error(f"more than {_MAX_MIRRORS} mirrors")
    for mirror in config.mirrors:
        scheme, _, rest = mirror.partition("://")
        host, _, path = rest.partition("/")
        if scheme not in {"https", "http"} or not is_host(host) or not _PATH_CHARACTERS.issuperset(path):
            raise file.error(
                f"{quoted(mirror)} is not the URL of a mirror, such as https://mirror.example.com/prefix"
            )
    for host in config.token_hosts:
        if not is_host(host):
            raise file.error(f"{quoted(host)} is not a host, in lower case")
    for registry in registries:
        if not is_host(registry):
            raise file.error(f"{quoted(registry)} is not a registry, in lower case")
        key = registry_key(registry)
        if key in found:
            raise file.error(f"registry {quoted(registry)} is already specified")
        found[key] = config


def _lookaside(file: ConfigFile) -> str:
    url = file.text("lookaside") if "lookaside" in file.members else ""
    if problem := lookaside_problem(url) if url else "":
        raise file.error(problem)
    return url


def lookaside_problem(url: str) -> str:
    """Why a text is not the URL of signatures, empty if it is."""
    scheme, separator, rest = url.partition("://")
    host, _, path = rest.partition("/")
    is_local = scheme == "file" and not host and path.isprintable()
    is_remote = scheme in {"https", "http"} and is_host(host.lower()) and _URL_CHARACTERS.issuperset(path)
    if separator and (is_local or is_remote):
        return ""
    return (
        f"{quoted(url)} is not the URL of signatures, such as https://signatures.example.com/prefix or "
        "file:///var/lib/containers/sigstore"
    )
