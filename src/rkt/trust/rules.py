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

import errno
import os

from rkt.errors import ConfigError, InvalidManifest, quoted
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.trust.keystore import name_components
from rkt.trust.policy import POLICY_DIRECTORY
from rkt.values import DOCKER_HUB, DOCKER_HUB_NAMES, DOCKER_HUB_REGISTRY, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
#: Numbers from here on are not repeated in messages.
_LONGEST_SHOWN = 10**18
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
_WRITABLE_BY_EVERYBODY = 0o002


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
        digest: of the content of the file that one of these names; filled in by ``rkt.trust.compiled``, no member of a rule.
        problem: why that file cannot be used, likewise; then nothing meets the requirement.
    """

    kind: str
    keys: str = ""
    lookaside: str = ""
    key: str = ""
    issuer: str = ""
    identity: str = ""
    root: str = ""
    builder: str = ""
    digest: str = ""
    problem: str = ""

    @property
    def file(self) -> str:
        """Path of the file of keys or roots; empty when there is none."""
        return self.key or self.root or (self.keys if self.keys != KEYSTORE else "")

    @property
    def pinned(self) -> str:
        """Text that changes with everything that decides whether the requirement is met, the content of its file too.

        Where signatures are looked for decides nothing.
        """
        if self.kind == OPENPGP:
            return f"{OPENPGP}:{self.digest or KEYSTORE}"
        if self.kind == COSIGN:
            return f"{COSIGN}:{self.digest}"
        if self.kind == UNSIGNED:
            return UNSIGNED
        # As JSON, so that no two requirements come to the same text.
        return f"{self.kind}:{jsontext.dump([self.digest, self.issuer, self.identity, self.builder])}"

    def __str__(self) -> str:
        """What is asked for, for people."""
        if self.kind == OPENPGP:
            place = "of the key store" if self.keys == KEYSTORE else f"of {self.keys}"
            return f"an OpenPGP signature by a key {place}"
        if self.kind == COSIGN:
            return f"a cosign signature by {self.key}"
        if self.kind == UNSIGNED:
            return "no signature"
        by = f"by {self.key}" if self.key else f"of {self.identity} ({self.issuer})"
        return f"SLSA provenance of {self.builder} {by}" if self.kind == SLSA else f"a keyless signature {by}"


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

    def __str__(self) -> str:
        """Which rule it is, for people."""
        return f"the rule for {self.prefix} ({self.path})" if self.prefix else 'the default "keystore"'


class Policy(Record):
    """All files together.

    Attributes:
        default: ``keystore`` or ``refuse``.
        rules: in the order of the files.
        paths: of the files.
        default_path: of the first file that has the default; empty when there are no files.
    """

    default: str = KEYSTORE
    rules: list[Rule] = []
    paths: list[str] = []
    default_path: str = ""

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
    name_components(text)
    # As ``fetch.oci_reference`` names it.
    return f"{DOCKER_HUB_REGISTRY if first in DOCKER_HUB_NAMES else first}{slash}{rest}"


def shown_name(name: str) -> str:
    """What ``rule_name`` returned as people write it."""
    first, slash, rest = name.partition("/")
    return f"{DOCKER_HUB}{slash}{rest}" if first == DOCKER_HUB_REGISTRY else name


def policy_files(directories: Sequence[str]) -> list[str]:
    """Paths of the policy's files, in the order in which they count.

    Raises:
        ConfigError: a directory cannot be read, or everybody can write to it.
    """
    paths = []
    for directory in directories:
        place = f"{directory}/{POLICY_DIRECTORY}"
        try:
            if os.stat(place).st_mode & _WRITABLE_BY_EVERYBODY:
                raise ConfigError(
                    f"everybody can write to {place}, so the trust policy in it cannot be believed",
                    hint=f"look at what is in it, then chmod o-w {place}",
                )
            names = sorted(os.listdir(place))
        except FileNotFoundError:
            continue
        except OSError as e:
            if isinstance(e, NotADirectoryError) and not os.path.isdir(directory):
                # A configuration directory that is none, such as /dev/null, has nothing in it.
                continue
            raise ConfigError(f"cannot read the trust policy in {place}: {e.strerror}") from e
        paths += [f"{place}/{name}" for name in names if name.endswith(".toml") and not name.startswith(".")]
    return paths


def load_policy(settings: Settings, read: Callable[[str], bytes] | None = None) -> Policy:
    """Read all files; of the files that rules name nothing is known yet (``rkt.trust.compiled`` adds that).

    Args:
        settings: the configuration directories.
        read: gives the content of a file, or refuses it; ``read_policy_file`` unless given.
    Raises:
        ConfigError: one of them is not understood in full, or others than root could have written it.
    """
    paths = policy_files(settings.config_dirs)
    defaults: dict[str, str] = {}
    rules: list[Rule] = []
    for path in paths:
        default, found = parse_policy((read or read_policy_file)(path), path)
        if default:
            defaults[path] = default
        rules += found
    if paths and not defaults:
        raise ConfigError(
            f"the trust policy in {', '.join(paths)} has no default, so no image may be used",
            hint='put default = "keystore" or default = "refuse" at the top of one of the files',
        )
    words = sorted(set(defaults.values()))
    if len(words) > 1:
        places = ", ".join(f'{path} says "{word}"' for path, word in defaults.items())
        raise ConfigError(
            f"the trust policy contradicts itself, so no image may be used: as default {places}",
            hint="leave one default, or make them the same",
        )
    return Policy(
        default=words[0] if words else KEYSTORE,
        rules=rules,
        paths=paths,
        default_path=next(iter(defaults), ""),
    )


def parse_policy(data: bytes, path: str) -> tuple[str, list[Rule]]:
    """One file to its default, which may be empty, and its rules.

    Raises:
        ConfigError: it is not understood in full.
    """
    return _File(data, path).parse()


def read_policy_file(path: str) -> bytes:
    """The content of a file of the policy.

    Raises:
        ConfigError: it cannot be read, or others than root could have written it.
    """
    fd = open_policy_file(path)
    try:
        return read_open_file(fd, path)
    finally:
        os.close(fd)


def open_policy_file(path: str) -> int:
    """A descriptor of a file of the policy; the caller closes it.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as e:
        what = "is a symbolic link" if e.errno == errno.ELOOP else f"cannot be read: {e.strerror}"
        raise _error(path, what) from e


def read_open_file(fd: int, path: str) -> bytes:
    """As ``read_policy_file``, of an open file."""
    from rkt.linux.files import read_fd_bounded

    status = os.fstat(fd)
    if not is_private(status):
        raise ConfigError(
            f"trust policy {path} can be changed by others than root, so no image may be used",
            hint=f"look at what is in it, then chown root {path} && chmod go-w {path}",
        )
    try:
        return read_fd_bounded(fd, MAX_FILE_BYTES, path)
    except OSError as e:
        raise _error(path, f"cannot be read: {e.strerror}") from e


def is_private(status: os.stat_result) -> bool:
    """Whether only root, or the caller where the caller is not root, could have written a file."""
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & _WRITABLE_BY_OTHERS


class _File:
    """One file, while it is read; knows on which line what is refused stands."""

    def __init__(self, data: bytes, path: str) -> None:
        self._path = path
        try:
            self._text = data.decode()
        except UnicodeDecodeError:
            raise _error(path, "is not UTF-8") from None
        # The rule that is looked at, counted from 1, and the words that lead to the member.
        self._rule = 0

    def parse(self) -> tuple[str, list[Rule]]:
        """Its default and its rules."""
        import tomllib

        try:
            # Refuses what is there twice.
            document = tomllib.loads(self._text)
        except (tomllib.TOMLDecodeError, RecursionError) as e:
            raise _error(self._path, f"is not TOML: {self._worded(e)}") from None
        except ValueError:
            # The interpreter's bound of digits (CVE-2020-10735), which the parser lets through as it is.
            raise _error(
                self._path, "has a number of more digits than any number that could be meant"
            ) from None
        self._only(document, frozenset(("version",)), frozenset(("default", "rule")), "the file")
        if type(document["version"]) is not int or document["version"] != VERSION:
            raise self._refusal(
                f"has version {_shown(document['version'])}, this rkt reads version {VERSION}", "version"
            )
        default = self._word(document["default"], _DEFAULTS, "default") if "default" in document else ""
        tables = document.get("rule", [])
        if type(tables) is not list or not all(type(table) is dict for table in tables):
            raise self._refusal("has a rule that is no table: rules start by [[rule]]", "rule")
        rules = []
        for self._rule, table in enumerate(tables, 1):
            rules.append(self._read_rule(table))
        return default, rules

    def _worded(self, e: Exception) -> str:
        """The parser's words, with the line that it means."""
        words = str(e).replace("Cannot overwrite a value", "a member is there twice")
        _, found, rest = words.rpartition("(at line ")
        number = rest.partition(",")[0]
        if not found or not is_number(number):
            return words
        line = self._text.split("\n")[int(number) - 1].strip()
        return f"{words}: {quoted(line)}" if line else words

    def _read_rule(self, table: dict[str, Any]) -> Rule:
        what = f"rule {self._rule}"
        self._only(table, frozenset(("prefix",)), frozenset(("all", "any", "rollback")), what)
        try:
            prefix = rule_name(self._one_line(table["prefix"], f"{what}, prefix"))
        except InvalidManifest as e:
            raise self._refusal(f"{what}: {e.message}", "prefix") from None
        what = f"the rule for {prefix}"
        if ("all" in table) == ("any" in table):
            raise self._refusal(f"{what} must have either all = […] or any = […]", "prefix")
        word = "all" if "all" in table else "any"
        listed = table[word]
        if type(listed) is not list or not listed:
            raise self._refusal(f"{what}: {word} must be a list of what is asked for, and not empty", word)
        requirements = [self._requirement(item, f"{what}, {word}[{i}]") for i, item in enumerate(listed)]
        if len(requirements) > 1 and any(each.kind == UNSIGNED for each in requirements):
            raise self._refusal(f"{what}: {UNSIGNED} asks for nothing, and cannot stand beside others", word)
        return Rule(
            prefix=prefix,
            match_all=word == "all",
            requirements=requirements,
            path=self._path,
            rollback=self._word(table.get("rollback", ROLLBACK_WARN), ROLLBACKS, f"{what}, rollback"),
        )

    def _requirement(self, value: object, what: str) -> Requirement:
        if type(value) is not dict:
            raise self._refusal(
                f'{what} must be a table, such as {{ kind = "openpgp", keys = "keystore" }}',
                what.rsplit(", ", maxsplit=1)[-1].partition("[")[0],
            )
        kind = self._word(value.get("kind"), tuple(_MEMBERS), f"{what}, kind")
        required, optional = _MEMBERS[kind]
        self._only(value, required | {"kind"}, optional, what)
        texts = {name: self._one_line(member, f"{what}, {name}") for name, member in value.items()}
        by_identity = [name for name in ("issuer", "identity", "root") if name in texts]
        if kind == SLSA and ("key" in texts) == bool(by_identity):
            raise self._refusal(f"{what} must have either key, or issuer, identity and root", "builder")
        if by_identity and len(by_identity) < 3:
            raise self._refusal(
                f"{what} has {' and '.join(by_identity)}, but needs issuer, identity and root", by_identity[0]
            )
        for name in ("keys", "key", "root"):
            if name in texts and (name, texts[name]) != ("keys", KEYSTORE) and not _is_plain(texts[name]):
                raise self._refusal(
                    f"{what}, {name} must be an absolute path without . and .., not {quoted(texts[name])}",
                    name,
                )
        if "lookaside" in texts:
            from rkt.config.registries import lookaside_problem

            if problem := lookaside_problem(texts["lookaside"]):
                raise self._refusal(f"{what}, lookaside: {problem}", "lookaside")
        return Requirement(**texts)

    def _only(
        self, table: dict[str, Any], required: frozenset[str], optional: frozenset[str], what: str
    ) -> None:
        for name in table:
            if name not in required and name not in optional:
                known = ", ".join(sorted(required | optional))
                raise self._refusal(f"{what} has the unknown member {quoted(name)}, known are: {known}", name)
        missing = sorted(required - table.keys())
        if missing:
            raise self._refusal(f"{what} has no {missing[0]}", "")

    def _one_line(self, value: object, what: str) -> str:
        if type(value) is not str or not value or not value.isprintable():
            raise self._refusal(f"{what} must be text of one line, not empty", what.rpartition(" ")[2])
        return value

    def _word(self, value: object, words: tuple[str, ...], what: str) -> str:
        if value not in words or type(value) is not str:
            shown = "missing" if value is None else _shown(value)
            raise self._refusal(
                f"{what} is {shown}, but must be one of {', '.join(words)}", what.rpartition(" ")[2]
            )
        return value

    def _refusal(self, text: str, member: str) -> ConfigError:
        """The error, with the line on which the member stands where that can be told."""
        number = self._line_of(member)
        return _error(f"{self._path}, line {number}" if number else self._path, text, self._path)

    def _line_of(self, member: str) -> int:
        """Number of the first line of the rule that has the member, from 1; of the rule where it has none; 0 for the file."""
        rule = start = 0
        for number, line in enumerate(self._text.split("\n"), 1):
            bare = line.replace(" ", "").replace('"', "")
            if bare.startswith("[[rule]]"):
                rule += 1
                start = number if rule == self._rule else start
            if rule == self._rule and member and f"{member}=" in bare:
                return number
        return start


def _shown(value: object) -> str:
    """A value for a message, as short as a person needs it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int) and abs(value) >= _LONGEST_SHOWN:
        # Hexadecimal digits are not bounded by the parser, and decimal ones by the interpreter.
        return "a very large number"
    return repr(value) if isinstance(value, (int, float)) else f"of type {type(value).__name__}"


def _is_plain(path: str) -> bool:
    return path.startswith("/") and {".", ".."}.isdisjoint(path.split("/"))


def _error(place: str, text: str, path: str = "") -> ConfigError:
    return ConfigError(
        f"trust policy {place} {text}", hint=f"no image may be used until {path or place} is mended"
    )
