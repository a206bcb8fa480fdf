# SPDX-License-Identifier: Apache-2.0
"""Writes the trust policy as ``rkt trust`` says: a file for each rule, below the local configuration directory.

::

    trust.d/registry.example-team.toml      one rule, for people to read and to change
    trust.d/keys/team.pub                   what it names: a copy of the file that was given

What is written is read by the same parser as every other policy (``trust.rules``) before it is put in its place, whole or
not at all. A rule that asks for something else than one that is there already is not written: who looks for images of a
prefix should find one answer.
"""

from __future__ import annotations

import errno
import hashlib
import os

from rkt.errors import CannotVerify, ConfigError, HostError, InvalidManifest, NotFound, UsageError, quoted
from rkt.linux.files import read_bounded, replace_file, sweep_unfinished, sync_directory
from rkt.privsep import libraries
from rkt.schema.record import Record
from rkt.trust.keystore import RULE_ROOT, Keystore, make_directory
from rkt.trust.rules import (
    KEYSTORE,
    OPENPGP,
    ROLLBACK_WARN,
    UNSIGNED,
    VERSION,
    Requirement,
    Rule,
    load_policy,
    parse_policy,
    rule_name,
    shown_name,
)
from rkt.values import DOCKER_HUB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.config.settings import Settings
    from rkt.trust.rules import Policy

#: Below the local configuration directory.
_DIRECTORY = "trust.d"
_KEYS = "keys"
_MAX_BYTES = 1 << 20
#: Members of a requirement in the order in which they are written.
_MEMBERS = ("kind", "keys", "lookaside", "key", "builder", "identity", "issuer", "root")
_FILES = ("keys", "key", "root")


class Written(Record):
    """What came of a rule.

    Attributes:
        rule: as it is read from now on.
        is_new: whether it was not there before.
        default: that the file got because no other has one; empty when there is one.
        fingerprints: of the keys, by the path of their copies.
        others: files with rules for the same prefix, which ask for something as well.
        passed_over: fingerprints of the key store that counted for the prefix, and do not any more.
    """

    rule: Rule
    is_new: bool
    default: str
    fingerprints: dict[str, str]
    others: list[str]
    passed_over: list[str]


class Removed(Record):
    """What is gone: the rules, the files, and the file that stays because it has the default."""

    rules: list[Rule]
    paths: list[str]
    kept: str


def typed_prefix(text: str) -> str:
    """A prefix as people type it to the form that rules have: ``alpine`` is ``docker.io/library/alpine``.

    Raises:
        UsageError: it is none.
    """
    name = text.removeprefix("docker://").removeprefix("docker:").rstrip("/")
    if name.endswith("/*"):
        raise UsageError(f"invalid --prefix: {quoted(text)}", hint=f"names below are included: {name[:-2]}")
    if "://" in name:
        raise UsageError(
            "--prefix must not contain a URL scheme", hint=f"--prefix={name.partition('://')[2]}"
        )
    first, slash, rest = name.partition("/")
    is_host = "." in first or first.startswith("[") or first.partition(":")[0].lower() == "localhost"
    is_host = is_host or bool(slash and ":" in first)
    last = rest or ("" if is_host else first)
    if "@" in name or ":" in last.rpartition("/")[2]:
        bare = name.partition("@")[0]
        bare = bare[: bare.rindex(":")] if ":" in bare.rpartition("/")[2] else bare
        raise UsageError(f"a rule is about a repository, not about {quoted(text)}", hint=f"--prefix={bare}")
    if not is_host:
        name = f"{DOCKER_HUB}/{name}" if slash else f"{DOCKER_HUB}/library/{name}"
    try:
        return shown_name(rule_name(f"{first.lower()}{slash}{rest}" if is_host else name))
    except InvalidManifest as e:
        raise UsageError(f"invalid --prefix: {e.message}") from None


def write_rule(
    prefix: str,
    requirements: Sequence[Requirement],
    settings: Settings,
    *,
    match_all: bool,
    rollback: str = ROLLBACK_WARN,
) -> Written:
    """Ask for signatures below a prefix from now on.

    Args:
        prefix: from ``typed_prefix``.
        requirements: with the paths of the files as given; these are copied.
        settings: the configuration directories.
        match_all: whether every requirement must be met, or one.
        rollback: one of ``ROLLBACKS``.
    Raises:
        UsageError: another rule for the prefix is there, or a file is not what it should be.
        ConfigError: the policy that is there cannot be read.
        HostError: the directory cannot be written.
    """
    libraries.enable(settings.installation)
    policy = load_policy(settings)
    directory = f"{settings.local_config_dir}/{_DIRECTORY}"
    keys = _Keys(f"{directory}/{_KEYS}")
    placed = [keys.place(requirement) for requirement in requirements]
    same = [rule for rule in policy.rules if rule.prefix == rule_name(prefix)]
    others = [rule for rule in same if os.path.dirname(rule.path) != directory]
    rule = Rule(
        prefix=rule_name(prefix), match_all=match_all, requirements=placed, path="", rollback=rollback
    )
    for known in same:
        if known in others:
            continue
        if not _is_same(known, rule):
            raise UsageError(
                f"{prefix} has another rule already: {known.path} asks for {asked(known)}",
                hint=f"rkt trust rm --prefix={prefix} takes it back, then type this again; or edit that file",
            )
        return Written(
            rule=known,
            is_new=False,
            default="",
            fingerprints=keys.fingerprints,
            others=[other.path for other in others],
            passed_over=[],
        )
    defaults = _defaults(policy.paths)
    path = _free_path(directory, prefix)
    default = "" if defaults else KEYSTORE
    text = _render(prefix, rule, defaults.get(path, default))
    _, (read,) = parse_policy(text.encode(), path)
    if not _is_same(read, rule):
        raise ConfigError(f"the rule for {prefix} would not be read as it was meant: {asked(read)}")
    passed_over = _passed_over(prefix, placed, policy, settings)
    try:
        make_directory(settings.local_config_dir)
        make_directory(directory)
        sweep_unfinished(directory)
        keys.write()
        replace_file(path, text.encode(), 0o644)
    except OSError as e:
        raise _cannot_write(directory, e) from e
    return Written(
        rule=read,
        is_new=True,
        default=default,
        fingerprints=keys.fingerprints,
        others=[other.path for other in others],
        passed_over=passed_over,
    )


def remove_rules(prefix: str, settings: Settings) -> Removed:
    """Take the rules for a prefix back, with the copies of files that nothing else names.

    Args:
        prefix: from ``typed_prefix``.
        settings: the configuration directories.
    Raises:
        NotFound: there is none.
        UsageError: it stands in a file that has to be edited by hand.
        HostError: a file cannot be removed.
    """
    policy = load_policy(settings)
    directory = f"{settings.local_config_dir}/{_DIRECTORY}"
    found = [rule for rule in policy.rules if rule.prefix == rule_name(prefix)]
    if not found:
        raise NotFound(f"there is no rule for {prefix}", hint="rkt trust list shows the rules")
    for rule in found:
        if os.path.dirname(rule.path) != directory:
            raise UsageError(
                f"the rule for {prefix} is the vendor's: {rule.path}", hint=f"edit or remove {rule.path}"
            )
        if sum(other.path == rule.path for other in policy.rules) > 1:
            raise UsageError(f"{rule.path} has other rules too", hint=f"edit {rule.path}")
    paths = list(dict.fromkeys(rule.path for rule in found))
    defaults = _defaults(policy.paths)
    rest = [path for path in policy.paths if path not in paths]
    kept = ""
    if rest and not defaults.keys() & set(rest):
        # Without a default the other files would refuse everything.
        kept = next(path for path in paths if path in defaults)
    if len(found) == len(policy.rules):
        # What is left says what is so without it, as this module wrote it.
        bare = _head(KEYSTORE).encode()
        paths += [
            path
            for path in rest
            if os.path.dirname(path) == directory and read_bounded(path, _MAX_BYTES) == bare
        ]
    left = {each.file for rule in policy.rules if rule not in found for each in rule.requirements}
    copies = {each.file for rule in found for each in rule.requirements if each.file} - left
    own = sorted(path for path in copies if os.path.dirname(path) == f"{directory}/{_KEYS}")
    gone = [*(path for path in paths if path != kept), *(path for path in own if os.path.exists(path))]
    try:
        if kept:
            replace_file(kept, _head(defaults[kept]).encode(), 0o644)
        for path in gone:
            os.unlink(path)
        for parent in {os.path.dirname(path) for path in gone}:
            sync_directory(parent)
    except OSError as e:
        raise _cannot_write(directory, e) from e
    return Removed(rules=found, paths=gone, kept=kept)


def asked(rule: Rule) -> str:
    """What a rule asks for, for people."""
    word = " and " if rule.match_all else " or "
    return word.join(str(requirement) for requirement in rule.requirements)


def summary(rule: Rule) -> str:
    """The same in few words, for tables."""
    return (" and " if rule.match_all else " or ").join(
        _short(requirement) for requirement in rule.requirements
    )


def _short(requirement: Requirement) -> str:
    if requirement.kind == UNSIGNED:
        return "nothing (unsigned)"
    what = os.path.basename(requirement.file) if requirement.file else KEYSTORE
    if requirement.identity:
        what = f"{requirement.identity} ({requirement.issuer})"
    builder = f" {requirement.builder} by" if requirement.builder else ""
    return f"{requirement.kind}{builder} {what}"


class _Keys:
    """The files that a rule names, checked, and where their copies go.

    Attributes:
        fingerprints: by the path of the copy.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._contents: dict[str, bytes] = {}
        self.fingerprints: dict[str, str] = {}

    def place(self, requirement: Requirement) -> Requirement:
        """The requirement with the paths that it will have."""
        changed = {}
        for member in _FILES:
            source = getattr(requirement, member)
            if not source or (member, source) == ("keys", KEYSTORE):
                continue
            data = _read(source)
            fingerprint = _CHECKS[member](source, data)
            changed[member] = path = self._path(os.path.basename(source), data)
            self._contents[path] = data
            if fingerprint:
                self.fingerprints[path] = fingerprint
        return requirement.replace(**changed)

    def write(self) -> None:
        """Copy them."""
        if self._contents:
            make_directory(self._directory)
        for path, data in self._contents.items():
            replace_file(path, data, 0o644)

    def _path(self, name: str, data: bytes) -> str:
        """The same for the same name and content; another content of that name goes beside."""
        stem, dot, ending = name.rpartition(".")
        mark = hashlib.sha256(data).hexdigest()[:12]
        for candidate in (name, f"{stem}-{mark}{dot}{ending}" if stem else f"{name}-{mark}"):
            path = f"{self._directory}/{candidate}"
            try:
                known = self._contents.get(path) or read_bounded(path, _MAX_BYTES)
            except OSError:
                known = data
            if known == data:
                return path
        return path


def _read(path: str) -> bytes:
    try:
        # Whatever the operator names, a link too; what counts is the copy.
        data = read_bounded(os.path.realpath(path), _MAX_BYTES)
    except OSError as e:
        raise UsageError(f"cannot read {path}: {e.strerror}") from e
    if b"PRIVATE KEY" in data:
        raise UsageError(
            f"{path} holds a private key; a rule names the public one",
            hint="cosign public-key --key=FILE, or openssl pkey -in FILE -pubout, shows it",
        )
    return data


def _check_key(path: str, data: bytes) -> str:
    """The fingerprint of a public key in PEM."""
    from rkt.trust.public_keys import load_public_key

    try:
        key = load_public_key(data)
    except CannotVerify as e:
        if b"PGP PUBLIC KEY" in data:
            hint = f"it is an OpenPGP key: --openpgp-key={path}"
        else:
            hint = "a file like cosign.pub is expected: -----BEGIN PUBLIC KEY-----"
        raise UsageError(f"{path} cannot be used: {e.message}", hint=hint) from None
    return f"{key.fingerprint} ({key.kind})"


def _check_openpgp(path: str, data: bytes) -> str:
    import time

    from rkt.trust.keys import parse_keys

    keys = parse_keys(data, what=path)
    for key in keys:
        if problem := key.problem(int(time.time())):
            raise UsageError(f"key {key.fingerprint} of {path} cannot count: {problem}")
    return ", ".join(key.fingerprint for key in keys)


def _check_root(path: str, data: bytes) -> str:
    from rkt.schema import jsontext

    try:
        document = jsontext.parse(data, what=path, limit_bytes=_MAX_BYTES)
    except InvalidManifest as e:
        raise UsageError(f"{path} is no trusted_root.json: {e.message}") from None
    if not isinstance(document, dict) or "certificateAuthorities" not in document:
        raise UsageError(f"{path} is no trusted_root.json: it has no certificateAuthorities")
    return ""


_CHECKS = {"keys": _check_openpgp, "key": _check_key, "root": _check_root}


def _is_same(one: Rule, other: Rule) -> bool:
    """Whether two rules for the same prefix ask for the same."""
    if len(one.requirements) > 1 and one.match_all != other.match_all:
        return False
    return one.rollback == other.rollback and _members(one) == _members(other)


def _members(rule: Rule) -> list[list[str]]:
    return sorted([getattr(each, member) for member in _MEMBERS] for each in rule.requirements)


def _defaults(paths: Sequence[str]) -> dict[str, str]:
    """Those files that have a default, and which."""
    found = {path: parse_policy(read_bounded(path, _MAX_BYTES), path)[0] for path in paths}
    return {path: default for path, default in found.items() if default}


def _free_path(directory: str, prefix: str) -> str:
    base = "".join(c if c.isalnum() or c in "._-" else "-" for c in prefix).strip("-.")
    number = 1
    while True:
        path = f"{directory}/{base}{f'-{number}' if number > 1 else ''}.toml"
        if not os.path.lexists(path) or not parse_policy(read_bounded(path, _MAX_BYTES), path)[1]:
            # Free, or left for its default when its rule was taken back.
            return path
        number += 1


def _passed_over(
    prefix: str, requirements: Sequence[Requirement], policy: Policy, settings: Settings
) -> list[str]:
    """Keys of the key store that count now, and will not any more."""
    if policy.rules_for(prefix) or any((r.kind, r.keys) == (OPENPGP, KEYSTORE) for r in requirements):
        return []
    try:
        keys = Keystore(settings).listing(prefix).keys
    except (ConfigError, InvalidManifest):
        return []
    return [file.fingerprint for file in keys.values() if file.rule != RULE_ROOT]


def _head(default: str) -> str:
    lines = ["# Written by rkt trust; rkt trust list shows all rules.", f"version = {VERSION}"]
    if default:
        lines.append(f"default = {_quote(default)}")
    return "\n".join(lines) + "\n"


def _render(prefix: str, rule: Rule, default: str) -> str:
    lines = ["", "[[rule]]", f"prefix = {_quote(prefix)}", "all = [" if rule.match_all else "any = ["]
    for requirement in rule.requirements:
        members = ((member, getattr(requirement, member)) for member in _MEMBERS)
        inner = ", ".join(f"{member} = {_quote(value)}" for member, value in members if value)
        lines.append(f"    {{ {inner} }},")
    lines += ["]", f"rollback = {_quote(rule.rollback)}"]
    return _head(default) + "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A basic string of TOML."""
    if not text.isprintable():
        raise UsageError(f"{quoted(text)} cannot stand in a rule")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cannot_write(path: str, e: OSError) -> HostError:
    hint = ""
    if e.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        hint = "run this as root, or with another --local-config"
    return HostError(f"cannot write the trust policy {e.filename or path}: {e.strerror}", hint=hint)
