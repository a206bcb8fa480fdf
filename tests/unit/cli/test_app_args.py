# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli.app_args import ALL_APP_FLAGS, APP_FLAGS, AppReader, parse_mount
from rkt.errors import RktError, UsageError
from rkt.pod.request import AppRequest


def app(*flags: tuple[str, str]) -> AppRequest:
    """One image with these flags."""
    reader = AppReader(ALL_APP_FLAGS)
    reader.add_image("img")
    for name, text in flags:
        reader.put(APP_FLAGS[name], text)
    return reader.requests()[0]


def test_every_flag_reaches_its_field() -> None:
    """Each per-app flag fills the field of its name."""
    request = app(
        ("annotation", "a=1"),
        ("annotation", "b=x=y"),
        ("caps-retain", "CAP_KILL,cap_chown"),
        ("cpu", "500m"),
        ("cpu-shares", "1024"),
        ("environment", "A="),
        ("exec", "/bin/sh"),
        ("group", "0"),
        ("memory", "64M"),
        ("name", "web"),
        ("oom-score-adj", "-1000"),
        ("readonly-rootfs", "true"),
        ("seccomp", "mode=remove,errno=EPERM,chown"),
        ("signature", "img.asc"),
        ("supplementary-gids", "1,2"),
        ("supplementary-gids", "3"),
        ("user", "nobody"),
        ("user-annotation", "k=v"),
        ("user-label", "l=w"),
        ("working-dir", "/tmp"),
    )
    assert request == AppRequest(
        reference="img",
        annotations={"a": "1", "b": "x=y"},
        caps_retain=["CAP_KILL", "CAP_CHOWN"],
        cpu="500m",
        cpu_shares=1024,
        environment={"A": ""},
        exec="/bin/sh",
        group="0",
        memory="64M",
        name="web",
        oom_score_adj=-1000,
        readonly_rootfs=True,
        seccomp="mode=remove,errno=EPERM,chown",
        signature="img.asc",
        supplementary_gids=[1, 2, 3],
        user="nobody",
        user_annotations={"k": "v"},
        user_labels={"l": "w"},
        working_dir="/tmp",
    )


def test_a_deprecated_flag_is_its_successor() -> None:
    """--cap-retain fills what --caps-retain fills."""
    assert app(("cap-retain", "CAP_KILL")) == app(("caps-retain", "CAP_KILL"))


def test_every_flag_has_a_setter_and_words() -> None:
    """No flag of the table is accepted without effect or shown without help."""
    for flag in APP_FLAGS.values():
        assert flag.deprecated in APP_FLAGS or (flag.help and flag.metavar)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("annotation", "novalue", "must be specified as key=value"),
        ("annotation", "Bad Name=1", "invalid annotation name"),
        ("environment", "=x", "must be specified as key=value"),
        ("user-label", "x", "must be specified as key=value"),
        ("cpu-shares", "1", "a number from 2 to 262144"),
        ("cpu-shares", "262145", "a number from 2 to 262144"),
        ("cpu-shares", "x", "a number from 2 to 262144"),
        ("cpu-shares", "٣٣", "a number from 2 to 262144"),
        ("oom-score-adj", "1001", "a number from -1000 to 1000"),
        ("oom-score-adj", "-", "a number from -1000 to 1000"),
        ("readonly-rootfs", "maybe", "--readonly-rootfs must be set with a boolean"),
        ("supplementary-gids", "1,x", '"x" is not a gid'),
        ("supplementary-gids", "-1", '"-1" is not a gid'),
        ("supplementary-gids", "4294967295", '"4294967295" is not a gid'),
        ("caps-retain", "CAP_KILL,", "empty capability name"),
        ("name", "Bad", 'invalid app name "Bad"'),
        ("seccomp", "chown", "invalid seccomp mode command-line override"),
        ("seccomp", "mode=keep,chown", "invalid seccomp mode command-line override"),
        ("seccomp", "mode=retain,x=y", "invalid seccomp command-line override"),
        ("mount", "volume=v", 'mount parameter "target" missing'),
        ("mnt-volume", "name=a,target=/b,kind=x", "invalid value in --mnt-volume flag"),
    ],
)
def test_bad_values_are_refused(name: str, text: str, error: str) -> None:
    """A value that cannot be right is refused before anything is made."""
    with pytest.raises(RktError, match=error):
        app((name, text))


def test_mounts_are_split_on_commas_only() -> None:
    """Nothing in a mount is decoded: +, %, ; and & stand for themselves."""
    mount = parse_mount("target=/a+b%20c;d&e,volume=v")
    assert (mount.volume, mount.target) == ("v", "/a+b%20c;d&e")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("volume=v,target=/x,mode=1", 'unknown mount parameter "mode"'),
        ("volume=v,volume=w,target=/x", 'mount parameter "volume" given twice'),
        ("volume=,target=/x", 'mount parameter "volume" has no value'),
        ("volume=v,target", 'mount parameter "target" has no value'),
    ],
)
def test_bad_mounts_are_refused(text: str, error: str) -> None:
    """A mount has exactly a volume and a target."""
    with pytest.raises(UsageError, match=error):
        parse_mount(text)
