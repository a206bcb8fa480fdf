# SPDX-License-Identifier: Apache-2.0
"""The files of the trust policy: what they mean, and that whatever is not understood refuses everything (SG14)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError, InvalidManifest
from rkt.trust.rules import Policy, Requirement, Rule, load_policy, parse_policy, rule_name

if TYPE_CHECKING:
    from pathlib import Path

HEAD = 'version = 1\ndefault = "keystore"\n'
RULE = '[[rule]]\nprefix = "registry.example/team"\nall = [ { kind = "cosign", key = "/k.pub" } ]\n'
PATH = "/etc/rkt/trust.d/x.toml"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Private configuration directories."""
    (tmp_path / "system").mkdir()
    (tmp_path / "local").mkdir()
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        data_dir=str(tmp_path / "data"),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


def write(settings: Settings, text: str, name: str = "team.toml", *, system: bool = False) -> str:
    """Write a file of the policy; returns its path."""
    directory = f"{settings.system_config_dir if system else settings.local_config_dir}/trust.d"
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/{name}"
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, 0o644)
    return path


def rule(prefix: str) -> Rule:
    """A rule."""
    return Rule(prefix=prefix, match_all=True, requirements=[Requirement(kind="unsigned")], path=PATH)


def test_every_kind_is_read_as_it_is_written() -> None:
    """A file says what it says: prefix, all or any, each requirement's members, rollback."""
    default, rules = parse_policy(
        b"""version = 1
default = "refuse"
[[rule]]
prefix = "docker.io/library"
any = [
  { kind = "openpgp", keys = "/etc/rkt/k.asc", lookaside = "https://sigs.example" },
  { kind = "keyless", issuer = "https://i.example", identity = "me@example.com", root = "/r.json" },
  { kind = "slsa", builder = "https://b.example", key = "/k.pub" },
  { kind = "slsa", builder = "https://b.example", issuer = "i", identity = "a", root = "/r.json" },
]
rollback = "refuse"
[[rule]]
prefix = "registry.example:5000"
all = [ { kind = "unsigned" } ]
""",
        PATH,
    )
    assert default == "refuse"
    first, second = rules
    assert (first.prefix, first.match_all, first.rollback) == (
        "registry-1.docker.io/library",
        False,
        "refuse",
    )
    assert [each.kind for each in first.requirements] == ["openpgp", "keyless", "slsa", "slsa"]
    assert [each.file for each in first.requirements] == ["/etc/rkt/k.asc", "/r.json", "/k.pub", "/r.json"]
    assert (second.prefix, second.match_all, second.rollback) == ("registry.example:5000", True, "warn")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no version"),
        ("version = 2", "version 2"),
        ("version = true", "version True"),
        ("version = 1\nversion = 1", "a member is there twice"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nprefix = 'a.c'\nall = []", "a member is there twice (at line 5"),
        (HEAD + RULE.replace("key =", "key = '/a', key ="), "key 'key' (at line 5"),
        (HEAD + "\n= 1", "is not TOML"),
        (HEAD + "rules = []", 'line 3 the file has the unknown member "rules"'),
        (HEAD + "[rule]\nprefix = 'a.b'", "rules start by [[rule]]"),
        ('version = 1\ndefault = "allow"', 'line 2 default is "allow"'),
        ("version = 1\ndefault = true", "line 2 default is True"),
        (HEAD + RULE + "extra = 1", 'line 6 rule 1 has the unknown member "extra"'),
        (HEAD + RULE + "any = [ { kind = 'unsigned' } ]", "line 4 the rule for registry.example/team must have either"),
        (HEAD + "[[rule]]\nprefix = 'a.b'", "must have either all"),
        (HEAD + "[[rule]]\nall = [ { kind = 'unsigned' } ]", "line 3 rule 1 has no prefix"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nall = []", "line 5 the rule for a.b: all must be a list"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nall = 'unsigned'", "line 5 the rule for a.b: all must be a list"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nall = [ 'unsigned' ]", "line 5 the rule for a.b, all[0] must be a table"),
        (HEAD + RULE.replace("cosign", "cosine"), 'line 5 the rule for registry.example/team, all[0], kind is "cosine"'),
        (HEAD + RULE.replace('kind = "cosign", ', ""), "kind is missing"),
        (HEAD + RULE.replace("}", ", keys = 'keystore' }"), 'line 5 the rule for registry.example/team, all[0] has the unknown member "keys"'),
        (HEAD + RULE.replace("/k.pub", "k.pub"), "line 5 the rule for registry.example/team, all[0], key must be an absolute path"),
        (HEAD + RULE.replace("/k.pub", "/a/../k.pub"), "must be an absolute path"),
        (HEAD + RULE.replace("/k.pub", ""), "key must be text of one line, not empty"),
        (
            HEAD + "[[rule]]\nprefix = 'a.b'\nall = [ { kind = 'openpgp', keys = 'keystore', lookaside = '/x' } ]",
            'line 5 the rule for a.b, all[0], lookaside: "/x" is not the URL of signatures',
        ),
        (HEAD + RULE + "rollback = 'never'", "line 6 the rule for registry.example/team, rollback is"),
        (HEAD + RULE.replace("} ]", "}, { kind = 'unsigned' } ]"), "unsigned asks for nothing"),
        (HEAD + RULE.replace("registry.example/team", "registry.example/../x"), "line 4 rule 1: invalid"),
        (HEAD + RULE.replace("registry.example/team", "https://registry.example"), "line 4 rule 1: invalid"),
        (HEAD + RULE.replace("registry.example/team", ""), "line 4 rule 1, prefix must be text"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nall = [ { kind = 'keyless', issuer = 'i' } ]", "has no identity"),
        (HEAD + "[[rule]]\nprefix = 'a.b'\nall = [ { kind = 'slsa', builder = 'b' } ]", "either key, or issuer"),
        (
            HEAD + "[[rule]]\nprefix = 'a.b'\nall = [ { kind = 'slsa', builder = 'b', issuer = 'i' } ]",
            "needs issuer, identity and root",
        ),
    ],
)  # fmt: skip
def test_whatever_is_not_understood_is_refused_with_its_line(text: str, expected: str) -> None:
    """Unknown, duplicate, empty, contradictory or of the wrong type: the file, its line and the member are named (SG14)."""
    with pytest.raises(ConfigError) as caught:
        parse_policy(text.encode(), PATH)
    assert PATH in caught.value.message
    assert expected in caught.value.message
    assert caught.value.hint == f"no image may be used until {PATH} is mended"


def test_the_line_is_that_of_the_right_rule() -> None:
    """Of two rules with the same mistake in the second one, the second one's line is named."""
    text = HEAD + RULE + RULE.replace('"/k.pub"', '"relative"')
    with pytest.raises(ConfigError, match=r"line 8 .* key must be an absolute path"):
        parse_policy(text.encode(), PATH)


def test_the_longest_prefix_decides_alone() -> None:
    """Rules are compared by component, and a shorter prefix has no say beside a longer one (SG2)."""
    names = [
        "registry.example",
        "registry.example/team",
        "registry.example/team/app",
        "registry.example/team",
    ]
    policy = Policy(rules=[rule(name) for name in names])
    found = {
        name: [each.prefix for each in policy.rules_for(name)]
        for name in (
            "registry.example/team/app",
            "registry.example/team/app/part",
            "registry.example/team/apple",
            "registry.example/teams",
            "registry.example:5000/team",
            "registry.example.org/team",
            "registry",
        )
    }
    assert found == {
        "registry.example/team/app": ["registry.example/team/app"],
        "registry.example/team/app/part": ["registry.example/team/app"],
        "registry.example/team/apple": ["registry.example/team", "registry.example/team"],
        "registry.example/teams": ["registry.example"],
        "registry.example:5000/team": [],
        "registry.example.org/team": [],
        "registry": [],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker.io/library/busybox", "registry-1.docker.io/library/busybox"),
        ("index.docker.io", "registry-1.docker.io"),
        ("registry.example:5000/a__b", "registry.example:5000/a__b"),
        ("[::1]:5000/team", "[::1]:5000/team"),
        ("[fe80::1]/team", "[fe80::1]/team"),
    ],
)
def test_names_have_one_form(text: str, expected: str) -> None:
    """Docker Hub has one name, a registry keeps its port or address."""
    assert rule_name(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "/a", "a/", "a//b", "a:b/c", "a:123456/c", "A.b/c", "a/../b", "[::1/a", "[x]/a", "[1]/a", "a:/b"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """A prefix that can never be a name's is an error, not a rule that covers nothing."""
    with pytest.raises(InvalidManifest):
        rule_name(text)


def test_without_files_the_key_store_decides(settings: Settings) -> None:
    """No policy: an OpenPGP signature by a key of the key store is asked for (SG1)."""
    policy = load_policy(settings)
    assert (policy.default, policy.rules, policy.paths) == ("keystore", [], [])


def test_files_of_all_directories_count_together(settings: Settings) -> None:
    """The vendor's files come first, hidden files and others than TOML are none, one default is enough."""
    first = write(settings, HEAD + RULE, system=True)
    second = write(settings, "version = 1\n" + RULE, "10.toml")
    third = write(settings, "version = 1\ndefault = 'keystore'\n" + RULE, "20.toml")
    write(settings, "nonsense", ".hidden.toml")
    write(settings, "nonsense", "README")
    policy = load_policy(settings)
    assert policy.paths == [first, second, third]
    assert [each.path for each in policy.rules_for("registry.example/team/app")] == [first, second, third]
    assert policy.default_path == first


def test_a_policy_without_default_is_none(settings: Settings) -> None:
    """All files are named when none has a default (SG14)."""
    path = write(settings, "version = 1\n" + RULE)
    with pytest.raises(ConfigError, match=f"{path} has no default") as caught:
        load_policy(settings)
    assert 'default = "keystore"' in caught.value.hint


def test_a_policy_that_contradicts_itself_is_none(settings: Settings) -> None:
    """Two defaults that differ refuse everything, and both places are named (SG14)."""
    first = write(settings, HEAD, system=True)
    second = write(settings, 'version = 1\ndefault = "refuse"')
    with pytest.raises(ConfigError) as caught:
        load_policy(settings)
    assert f'{first} says "keystore", {second} says "refuse"' in caught.value.message


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_what_others_can_write_is_refused(settings: Settings, mode: int) -> None:
    """The hint is the command that mends it (SG14)."""
    path = write(settings, HEAD)
    os.chmod(path, mode)
    with pytest.raises(ConfigError, match="can be changed by others than root") as caught:
        load_policy(settings)
    assert f"chmod go-w {path}" in caught.value.hint


@pytest.mark.parametrize("how", ["link", "directory", "owner", "size", "encoding", "absent", "pipe"])
def test_a_file_that_cannot_be_read_is_no_missing_one(settings: Settings, how: str) -> None:
    """Links, directories, pipes, strangers' files, huge ones: an error that names the file (SG14)."""
    path = write(settings, HEAD)
    if how == "owner":
        if os.geteuid() != 0:
            pytest.skip("giving a file away needs root")
        os.chown(path, 65534, 65534)
    elif how == "size":
        with open(path, "a", encoding="ascii") as stream:
            stream.write("#" * (1 << 20))
    elif how == "encoding":
        with open(path, "ab") as binary:
            binary.write(b"# \xff\n")
    else:
        os.unlink(path)
        if how == "link":
            os.symlink("/dev/null", path)
        elif how == "absent":
            os.symlink("/nonexistent/file", path)
        elif how == "pipe":
            os.mkfifo(path)
        else:
            os.mkdir(path)
    with pytest.raises(ConfigError, match=path):
        load_policy(settings)


def test_a_directory_that_everybody_can_write_is_refused(settings: Settings) -> None:
    """Who can write there could remove a rule (SG14)."""
    directory = os.path.dirname(write(settings, HEAD))
    os.chmod(directory, 0o777)
    with pytest.raises(ConfigError, match="everybody can write"):
        load_policy(settings)


def test_what_cannot_be_listed_is_not_empty(settings: Settings) -> None:
    """A file in place of ``trust.d`` is an error; a configuration directory that is none has nothing in it."""
    with open(f"{settings.local_config_dir}/trust.d", "w", encoding="ascii"):
        pass
    with pytest.raises(ConfigError, match="cannot read the trust policy"):
        load_policy(settings)
    assert load_policy(settings.replace(local_config_dir="/dev/null")) == Policy()


def test_what_is_pinned_changes_with_everything_that_is_asked_for() -> None:
    """Two requirements that differ in a key, an issuer, an identity, a root or a builder are never taken for each other."""
    texts = {"issuer": "i", "identity": "a", "root": "/r", "digest": "sha256:1"}
    requirements = [
        Requirement(kind="openpgp", keys="keystore"),
        Requirement(kind="openpgp", keys="/k", digest="sha256:1"),
        Requirement(kind="cosign", key="/k", digest="sha256:1"),
        Requirement(kind="cosign", key="/k", digest="sha256:2"),
        Requirement(kind="unsigned"),
        Requirement(kind="keyless", **texts),
        Requirement(kind="keyless", **{**texts, "issuer": 'i","a'}),
        Requirement(kind="keyless", **{**texts, "identity": "b"}),
        Requirement(kind="keyless", **{**texts, "digest": "sha256:2"}),
        Requirement(kind="slsa", builder="b", **texts),
        Requirement(kind="slsa", builder="c", **texts),
        Requirement(kind="slsa", builder="b", key="/k", digest="sha256:1"),
    ]
    assert len({each.pinned for each in requirements}) == len(requirements)
    # Where signatures are looked for, and where a key lies, decides nothing.
    moved = Requirement(
        kind="openpgp", keys="/elsewhere", digest="sha256:1", lookaside="https://sigs.example"
    )
    assert moved.pinned == requirements[1].pinned
