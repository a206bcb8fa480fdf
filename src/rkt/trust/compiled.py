# SPDX-License-Identifier: Apache-2.0
r"""Today's trust policy as a start needs it: rules with the digests of their files, kept in one record.

A start must not pay for a TOML parser, nor for reading keys. So whoever reads the policy leaves what came of it in
``$DATA/trust/policy``, with the identity of every file that it came from::

    {"rkt": "0.1.0", "uid": 0, "directories": ["/usr/lib/rkt", "/etc/rkt"], "paths": ["/etc/rkt/trust.d/team.toml"],
     "watched": ["/etc/rkt/trust.d/team.toml", DEVICE, INODE, SIZE, MTIME, CTIME, MODE, UID, GID, …],
     "default": "keystore", "defaultPath": "/etc/rkt/trust.d/team.toml",
     "rows": ["PREFIX\tNUMBER\tall\tPATH\tROLLBACK\tKIND\tKEYS\t…", …]}

One row is one requirement, of the rule with that number. It is that flat because a start reads it: nested, a hundred rules
would take three times as long.

The record is a cache and no more: directories are listed and files are looked at every time, and where anything is not
what it was, or the record is missing, damaged, or another's, the files are read again. A policy that changed within the
last two seconds is not kept: the clock of a file system is coarse, and a second change could look like the first.
"""

from __future__ import annotations

import os
import time

import rkt
from rkt.errors import ConfigError, RktError
from rkt.linux.files import read_bounded, read_fd_bounded, replace_file
from rkt.schema.envelope import MAX_RECORD_BYTES, open_sealed, seal, sha256_hex
from rkt.trust import rules as policy_rules
from rkt.trust.rules import Policy, Requirement, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rkt.config.settings import Settings

    #: Path, and what identifies the file's content: nothing but zeros for a file that is not there.
    Watched: TypeAlias = list[str | int]

FORMAT = "rkt.policy"
VERSION = 1
#: Below the data directory.
DIRECTORY = "trust"
_NAME = "policy"
_SETTLED_NS = 2 * 10**9
#: Values for one file in ``watched``.
_WIDTH = 9
_FIELDS = Requirement._fields


def todays_policy(settings: Settings, name: str) -> Policy:
    """The policy of this moment, from the record where that is still true.

    Args:
        settings: the configuration directories, and where the record is.
        name: an appc name, or ``REGISTRY/REPOSITORY``; rules that do not cover it may be left out.
    Raises:
        ConfigError: its files are not understood in full, or others than root could have written them.
    """
    paths = policy_rules.policy_files(settings.config_dirs)
    if not paths:
        return Policy()
    kept = _kept(settings, paths, policy_rules.rule_name(name))
    return read_policy(settings) if kept is None else kept


def read_policy(settings: Settings) -> Policy:
    """The policy of this moment, from its files; the record says the same afterwards.

    Raises:
        ConfigError: its files are not understood in full, or others than root could have written them.
    """
    reading = _Reading()
    policy = policy_rules.load_policy(settings, reading.policy_file)
    policy = policy.replace(rules=[reading.complete(rule) for rule in policy.rules])
    if policy.paths:
        _keep(settings, policy, reading)
    return policy


class _Reading:
    """Reads files, and remembers which."""

    def __init__(self) -> None:
        self.watched: dict[str, Watched] = {}
        #: Whether what was read can be recognised later.
        self.is_certain = True
        self._digests: dict[str, tuple[str, str]] = {}

    def policy_file(self, path: str) -> bytes:
        fd = policy_rules.open_policy_file(path)
        try:
            # Before the content: what changes meanwhile is seen next time.
            self._watch(path, os.fstat(fd))
            return policy_rules.read_open_file(fd, path)
        finally:
            os.close(fd)

    def complete(self, rule: Rule) -> Rule:
        """With what there is to say of the files it names."""
        return rule.replace(requirements=[self._complete(each) for each in rule.requirements])

    def _complete(self, requirement: Requirement) -> Requirement:
        path = requirement.file
        if not path:
            return requirement
        if path not in self._digests:
            self._digests[path] = self._digest(path)
        digest, problem = self._digests[path]
        return requirement.replace(digest=digest, problem=problem)

    def _digest(self, path: str) -> tuple[str, str]:
        from rkt.trust.keyfiles import read_key_file

        try:
            # Again before the content.
            self._watch(path, os.lstat(path))
        except FileNotFoundError:
            self.watched[path] = [path, *[0] * (_WIDTH - 1)]
        except OSError:
            self.is_certain = False
        try:
            return f"sha256:{sha256_hex(read_key_file(path))}", ""
        except ConfigError as e:
            return "", e.message

    def _watch(self, path: str, status: os.stat_result) -> None:
        self.watched[path] = _identity(path, status)
        if max(status.st_ctime_ns, status.st_mtime_ns) > time.time_ns() - _SETTLED_NS:
            self.is_certain = False


def _identity(path: str, status: os.stat_result) -> Watched:
    return [
        path,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    ]


def _are_as_they_were(watched: Watched) -> bool:
    for start in range(0, len(watched), _WIDTH):
        known = watched[start : start + _WIDTH]
        path = known[0]
        assert isinstance(path, str)
        try:
            if _identity(path, os.lstat(path)) != known:
                return False
        except FileNotFoundError:
            if any(known[1:]):
                return False
        except OSError:
            return False
    return True


def _kept(settings: Settings, paths: list[str], name: str) -> Policy | None:
    """What the record says, if that is still true."""
    path = f"{settings.data_dir}/{DIRECTORY}/{_NAME}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not policy_rules.is_private(os.fstat(fd)):
                return None
            data = read_fd_bounded(fd, MAX_RECORD_BYTES, path)
        finally:
            os.close(fd)
        version, body = open_sealed(data, FORMAT, path)
        if (
            version != VERSION
            or (body["rkt"], body["uid"]) != (rkt.__version__, os.geteuid())
            or (body["directories"], body["paths"]) != (settings.config_dirs, paths)
            or not _are_as_they_were(body["watched"])
        ):
            return None
        return _from_json(body, name)
    except (OSError, RktError, KeyError, TypeError, ValueError):
        # Only a cache.
        return None


def _keep(settings: Settings, policy: Policy, reading: _Reading) -> None:
    rows = [
        [rule.prefix, str(number), "all" if rule.match_all else "any", rule.path, rule.rollback]
        + [getattr(each, field) for field in _FIELDS]
        for number, rule in enumerate(policy.rules)
        for each in rule.requirements
    ]
    if not reading.is_certain or any("\t" in text for row in rows for text in row):
        return
    body = {
        "rkt": rkt.__version__,
        "uid": os.geteuid(),
        "directories": settings.config_dirs,
        "paths": policy.paths,
        "watched": [value for each in reading.watched.values() for value in each],
        "default": policy.default,
        "defaultPath": policy.default_path,
        "rows": ["\t".join(row) for row in rows],
    }
    record = seal(FORMAT, VERSION, body)
    if len(record) > MAX_RECORD_BYTES:
        return
    path = f"{settings.data_dir}/{DIRECTORY}/{_NAME}"
    try:
        make_directory(settings.data_dir)
        try:
            if read_bounded(path, MAX_RECORD_BYTES) == record:
                return
        except OSError:
            pass  # absent, or nothing that we wrote
        replace_file(path, record, 0o640, sync=False)
    except OSError:
        # Then the next command reads the files again, too.
        pass


def make_directory(data_dir: str) -> None:
    """Make ``$DATA/trust`` where it is missing; what is in it counts only when its owner wrote it.

    Raises:
        OSError: the data directory is not there, or cannot be written.
    """
    path = f"{data_dir}/{DIRECTORY}"
    try:
        os.mkdir(path, 0o750)
    except FileExistsError:
        return
    os.chmod(path, 0o2750)


def _from_json(body: dict[str, Any], name: str) -> Policy:
    """The policy with the rules that cover a name."""
    below = f"{name}/"
    rules: dict[str, Rule] = {}
    for row in body["rows"]:
        # Making all of them costs more than everything else.
        if not below.startswith(f"{row[: row.index(chr(9))]}/"):
            continue
        prefix, number, word, path, rollback, *texts = row.split("\t")
        requirement = Requirement(**dict(zip(_FIELDS, texts, strict=True)))
        if number in rules:
            rules[number].requirements.append(requirement)
        else:
            rules[number] = Rule(
                prefix=prefix,
                match_all=word == "all",
                path=path,
                rollback=rollback,
                requirements=[requirement],
            )
    return Policy(
        default=body["default"],
        default_path=body["defaultPath"],
        paths=body["paths"],
        rules=list(rules.values()),
    )
