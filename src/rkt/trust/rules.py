# SPDX-License-Identifier: Apache-2.0
"""The trust policy: which signatures are asked for, by image name (design §5, invariant SG14).

Files ``trust.d/*.toml`` below the system, the local and the user's configuration directory, in that order::

    version = 1
    default = "keystore"

    [[rule]]
    prefix = "registry.example:5000/team"
    all = [ { kind = "openpgp", keys = "keystore" }, { kind = "cosign", key = "/etc/rkt/keys/team.pub" } ]
    rollback = "refuse"

A prefix is that of an appc name, or ``REGISTRY/REPOSITORY`` of a Docker or OCI image; a registry keeps its port, and the
names of Docker Hub are one. The rules with the longest prefix that covers a name decide, all of them. Where none does,
``default`` does: ``keystore`` asks for an OpenPGP signature by a key of the key store, ``refuse`` refuses. Without any
file it is ``keystore``.

Whatever is not understood, in whichever file, refuses every image: a policy that is half read is none.
"""

from __future__ import annotations

import os

from rkt.errors import ConfigError, InvalidManifest, quoted
from rkt.schema.record import Record
from rkt.trust.keystore import name_components

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rkt.config.settings import Settings

#: What ``default`` may say.
KEYSTORE = "keystore"
REFUSE = "refuse"
#: Kinds of requirements.
OPENPGP = "openpgp"
COSIGN = "cosign"
KEYLESS = "keyless"
SLSA = "slsa"
UNSIGNED = "unsigned"
#: What ``rollback`` may say.
ROLLBACKS = (ROLLBACK_WARN, ROLLBACK_REFUSE, ROLLBACK_ALLOW) = ("warn", "refuse", "allow")

MAX_FILE_BYTES = 1 << 20
VERSION = 1
_DEFAULTS = (KEYSTORE, REFUSE)
#: kind -> (members that must be there, members that may be)
_MEMBERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    OPENPGP: (frozenset(("keys",)), frozenset(("lookaside",))),
    COSIGN: (frozenset(("key",)), frozenset()),
    KEYLESS: (frozenset(("issuer", "identity", "root")), frozenset()),
    # By a key, or by an identity, never both: _requirement.
    SLSA: (frozenset(("builder",)), frozenset(("key", "issuer", "identity", "root"))),
    UNSIGNED: (frozenset(), frozenset()),
}
_WRITABLE_BY_OTHERS = 0o022
#: As ``fetch.oci_reference`` names it.
_HUB = "registry-1.docker.io"
_HUB_NAMES = frozenset(("docker.io", "index.docker.io"))


class Requirement(Record):
    """What is asked for, once; members that its kind does not have are empty.

    Attributes:
        kind: ``openpgp``, ``cosign``, ``keyless``, ``slsa``; or ``unsigned``, which is always met.
        keys: ``keystore``, or the absolute path of a file of OpenPGP keys.
        lookaside: URL below which simple signatures are, ``URL/REPOSITORY@sha256=HEX/signature-1``.
        key: absolute path of a public key, PEM.
        issuer, identity: of the certificate, both compared as they are.
        root: absolute path of a ``trusted_root.json``.
        builder: ``builder.id`` of the provenance, compared as it is.
    """

    kind: str
    keys: str = ""
    lookaside: str = ""
    key: str = ""
    issuer: str = ""
    identity: str = ""
    root: str = ""
    builder: str = ""


class Rule(Record):
    """What is asked for below a prefix.

    Attributes:
        prefix: of image names, compared by component.
        match_all: whether every requirement must be met, or one.
        requirements: not empty.
        rollback: one of ``ROLLBACKS``: what an older signed version than the newest that was seen means.
        path: the file.
    """

    prefix: str
    match_all: bool
    requirements: list[Requirement]
    path: str
    rollback: str = ROLLBACK_WARN


class Policy(Record):
    """All files together.

    Attributes:
        default: ``keystore`` or ``refuse``.
        rules: in the order of the files.
        paths: of the files.
    """

    default: str = KEYSTORE
    rules: list[Rule] = []
    paths: list[str] = []

    def rules_for(self, name: str) -> list[Rule]:
        """The rules that decide about a name; none where the default does.

        Args:
            name: an appc name, or ``REGISTRY/REPOSITORY``.
        Raises:
            InvalidManifest: ``name`` is neither.
        """
        components = rule_name(name).split("/")
        for length in range(len(components), 0, -1):
            prefix = "/".join(components[:length])
            found = [rule for rule in self.rules if rule.prefix == prefix]
            if found:
                return found
        return []


def rule_name(text: str) -> str:
    """A name or prefix as rules compare it: the registry with its port, and one name for Docker Hub.

    Raises:
        InvalidManifest: it is neither an appc name nor ``REGISTRY[/REPOSITORY]``.
    """
    first, slash, rest = text.partition("/")
    host, colon, port = first.partition(":")
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise InvalidManifest(f"invalid name {text!r}: {port!r} is no port")
    # The grammar of appc names has no ports.
    name_components(f"{host}{slash}{rest}")
    return f"{_HUB if first in _HUB_NAMES else first}{slash}{rest}"


def policy_files(directories: Sequence[str]) -> list[str]:
    """Paths of the policy's files, in the order in which they count.

    Raises:
        ConfigError: a directory cannot be read, or holds a policy that is no regular file.
    """
    paths = []
    for directory in directories:
        place = f"{directory}/trust.d"
        try:
            names = sorted(os.listdir(place))
        except FileNotFoundError:
            continue
        except OSError as e:
            raise ConfigError(f"cannot read the trust policy {place}: {e.strerror}") from e
        paths += [f"{place}/{name}" for name in names if name.endswith(".toml") and not name.startswith(".")]
    return paths


def load_policy(settings: Settings) -> Policy:
    """Read all files.

    Raises:
        ConfigError: one of them is not understood in full, or others than root could have written it.
    """
    paths = policy_files(settings.config_dirs)
    defaults: dict[str, str] = {}
    rules: list[Rule] = []
    for path in paths:
        document = _read(path)
        default = _default(document, path)
        if default:
            defaults[path] = default
        rules += _rules(document, path)
    if paths and not defaults:
        raise ConfigError(
            f"the trust policy in {', '.join(paths)} has no default, so no image may be used",
            hint='put default = "keystore" or default = "refuse" at the top of one of the files',
        )
    words = sorted(set(defaults.values()))
    if len(words) > 1:
        places = ", ".join(f'{path} says "{word}"' for path, word in defaults.items())
        raise ConfigError(f"the trust policy contradicts itself: the default in {places}")
    return Policy(default=words[0] if words else KEYSTORE, rules=rules, paths=paths)


def parse_policy(data: bytes, path: str) -> tuple[str, list[Rule]]:
    """One file to its default, which may be empty, and its rules.

    Raises:
        ConfigError: it is not understood in full.
    """
    document = _parse(data, path)
    return _default(document, path), _rules(document, path)


def _read(path: str) -> dict[str, Any]:
    from rkt.linux.files import read_fd_bounded

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            data = read_fd_bounded(fd, MAX_FILE_BYTES, path)
        finally:
            os.close(fd)
    except OSError as e:
        raise _error(path, f"cannot be read: {e.strerror}") from e
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITABLE_BY_OTHERS:
        raise ConfigError(
            f"trust policy {path} can be changed by others than root",
            hint=f"chown root {path} && chmod go-w {path}",
        )
    return _parse(data, path)


def _parse(data: bytes, path: str) -> dict[str, Any]:
    import tomllib

    try:
        # Refuses what is there twice.
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise _error(path, "is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise _error(path, f"is not TOML: {e}") from None
    _only(document, frozenset(("version",)), frozenset(("default", "rule")), path, "the file")
    if type(document["version"]) is not int or document["version"] != VERSION:
        raise _error(path, f"has version {document['version']!r}, this rkt reads version {VERSION}")
    return document


def _default(document: dict[str, Any], path: str) -> str:
    if "default" not in document:
        return ""
    return _word(document["default"], _DEFAULTS, path, "default")


def _rules(document: dict[str, Any], path: str) -> list[Rule]:
    tables = document.get("rule", [])
    if type(tables) is not list or not all(type(table) is dict for table in tables):
        raise _error(path, "has a rule that is no table: rules start by [[rule]]")
    return [_rule(table, path, f"rule {number}") for number, table in enumerate(tables, 1)]


def _rule(table: dict[str, Any], path: str, what: str) -> Rule:
    _only(table, frozenset(("prefix",)), frozenset(("all", "any", "rollback")), path, what)
    try:
        prefix = rule_name(_text(table["prefix"], path, f"{what}, prefix"))
    except InvalidManifest as e:
        raise _error(path, f"{what}: {e.message}") from None
    what = f"the rule for {prefix}"
    if ("all" in table) == ("any" in table):
        raise _error(path, f"{what} must have either all = […] or any = […]")
    word = "all" if "all" in table else "any"
    listed = table[word]
    if type(listed) is not list or not listed:
        raise _error(path, f"{what}: {word} must be a list of what is asked for, and not empty")
    return Rule(
        prefix=prefix,
        match_all=word == "all",
        requirements=[_requirement(item, path, f"{what}, {word}[{i}]") for i, item in enumerate(listed)],
        path=path,
        rollback=_word(table.get("rollback", ROLLBACK_WARN), ROLLBACKS, path, f"{what}, rollback"),
    )


def _requirement(value: object, path: str, what: str) -> Requirement:
    if type(value) is not dict:
        raise _error(path, f'{what} must be a table, such as {{ kind = "openpgp", keys = "keystore" }}')
    kind = _word(value.get("kind"), tuple(_MEMBERS), path, f"{what}, kind")
    required, optional = _MEMBERS[kind]
    _only(value, required | {"kind"}, optional, path, what)
    texts = {name: _text(member, path, f"{what}, {name}") for name, member in value.items()}
    by_identity = [name for name in ("issuer", "identity", "root") if name in texts]
    if kind == SLSA and ("key" in texts) == bool(by_identity):
        raise _error(path, f"{what} must have either key, or issuer, identity and root")
    if by_identity and len(by_identity) < 3:
        raise _error(path, f"{what} has {' and '.join(by_identity)}, but needs issuer, identity and root")
    for name in ("keys", "key", "root"):
        if name in texts and (name, texts[name]) != ("keys", KEYSTORE):
            _check_absolute(texts[name], path, f"{what}, {name}")
    return Requirement(**texts)


def _only(
    table: dict[str, Any], required: frozenset[str], optional: frozenset[str], path: str, what: str
) -> None:
    for name in table:
        if name not in required and name not in optional:
            known = ", ".join(sorted(required | optional))
            raise _error(path, f"{what} has the unknown member {quoted(name)}, known are: {known}")
    missing = sorted(required - table.keys())
    if missing:
        raise _error(path, f"{what} has no {missing[0]}")


def _text(value: object, path: str, what: str) -> str:
    if type(value) is not str or not value or not value.isprintable():
        raise _error(path, f"{what} must be text of one line, not empty")
    return value


def _word(value: object, words: tuple[str, ...], path: str, what: str) -> str:
    if value not in words or type(value) is not str:
        shown = quoted(value) if isinstance(value, str) else repr(value)
        raise _error(path, f"{what} is {shown}, but must be one of {', '.join(words)}")
    return value


def _check_absolute(text: str, path: str, what: str) -> None:
    if not text.startswith("/"):
        raise _error(path, f"{what} must be an absolute path, not {quoted(text)}")


def _error(path: str, text: str) -> ConfigError:
    return ConfigError(f"trust policy {path} {text}", hint=f"no image may be used until {path} is mended")
