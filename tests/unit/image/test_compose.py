# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from rkt.errors import InvalidManifest, UsageError
from rkt.image.compose import compose_manifest
from tests.lib import aci


def compose(*words: str, base: bytes | None = None, **values: Any) -> dict[str, Any]:
    """The manifest as JSON; flags are keywords with underscores."""
    flags = {name.replace("_", "-"): value for name, value in values.items()}
    document: dict[str, Any] = json.loads(compose_manifest(flags, list(words), base))
    return document


def test_smallest_manifest() -> None:
    """A name alone makes a manifest with the host's labels and without app section."""
    assert compose(name="example.com/base") == {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/base",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": aci.ARCH}],
    }


def test_every_field_of_the_app() -> None:
    """Each flag ends up in its member."""
    document = compose(
        "/bin/app",
        "",
        "--flag",
        name="example.com/app:1.2",
        label=["channel=beta", "arch="],
        annotation=["authors=Alice"],
        user="1000",
        group="users",
        supplementary_gids=["5,6", "7"],
        working_dir="/srv",
        environment=["A=1", "B=", "C=x=y"],
        mount_point=["data,path=/data,readOnly=true", "tmp,path=/tmp"],
        port=["http,port=80", "dns,protocol=udp,port=53,count=2,socketActivated=true"],
        isolator=["os/linux/no-new-privileges=true"],
        memory="16M",
        cpu="500m",
        cpu_shares="512",
        oom_score_adj="-5",
        caps_retain=["CAP_CHOWN,CAP_KILL"],
        seccomp="mode=remove,errno=EPERM,reboot",
        event_handler=["pre-start=/bin/pre", 'post-stop=["/bin/post","x"]'],
        dependency=["example.com/base:2,os=linux,imageID=sha512-" + "ab" * 32 + ",size=10"],
        path_whitelist=["/bin/app"],
        user_label=["l=1"],
        user_annotation=["a=2"],
    )
    app = document["app"]
    assert document["labels"] == [
        {"name": "os", "value": "linux"},
        {"name": "version", "value": "1.2"},
        {"name": "channel", "value": "beta"},
    ]
    assert document["annotations"] == [{"name": "authors", "value": "Alice"}]
    assert document["pathWhitelist"] == ["/bin/app"]
    assert document["dependencies"] == [
        {
            "imageName": "example.com/base",
            "imageID": "sha512-" + "ab" * 32,
            "labels": [{"name": "version", "value": "2"}, {"name": "os", "value": "linux"}],
            "size": 10,
        }
    ]
    assert app["exec"] == ["/bin/app", "", "--flag"]
    assert (app["user"], app["group"], app["supplementaryGIDs"]) == ("1000", "users", [5, 6, 7])
    assert app["workingDirectory"] == "/srv"
    assert app["environment"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": ""},
        {"name": "C", "value": "x=y"},
    ]
    assert app["mountPoints"][0] == {"name": "data", "path": "/data", "readOnly": True}
    assert [port["name"] for port in app["ports"]] == ["http", "dns"]
    assert app["ports"][1]["count"] == 2
    assert {i["name"]: i["value"] for i in app["isolators"]} == {
        "os/linux/no-new-privileges": True,
        "resource/memory": {"request": "16M", "limit": "16M"},
        "resource/cpu": {"request": "500m", "limit": "500m"},
        "os/linux/cpu-shares": 512,
        "os/linux/oom-score-adj": -5,
        "os/linux/capabilities-retain-set": {"set": ["CAP_CHOWN", "CAP_KILL"]},
        "os/linux/seccomp-remove-set": {"set": ["reboot"], "errno": "EPERM"},
    }
    assert app["eventHandlers"] == [
        {"name": "pre-start", "exec": ["/bin/pre"]},
        {"name": "post-stop", "exec": ["/bin/post", "x"]},
    ]
    assert (app["userLabels"], app["userAnnotations"]) == ({"l": "1"}, {"a": "2"})


def test_the_command_may_be_a_flag() -> None:
    """The command is given after --, word by word, or as JSON; not twice."""
    assert compose(name="a", exec=["/bin/a", "b"])["app"]["exec"] == ["/bin/a", "b"]
    assert compose(name="a", exec=['["/bin/a", "b c"]'])["app"]["exec"] == ["/bin/a", "b c"]
    with pytest.raises(UsageError, match="twice"):
        compose("/bin/a", name="a", exec=["/bin/b"])


BASE = json.dumps(
    {
        "name": "example.com/base",
        "acVersion": "0.8.11",
        "acKind": "ImageManifest",
        "unknown": [1],
        "labels": [{"name": "os", "value": "linux"}],
        "app": {
            "Exec": ["/a"],
            "user": "7",
            "group": "8",
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "isolators": [{"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}}],
        },
    }
).encode()


def test_a_manifest_file_is_kept_to_the_byte() -> None:
    """Without flags that change it, the file's manifest is used as it is, unknown members too."""
    assert compose_manifest({}, [], BASE) == BASE


def test_flags_change_a_manifest_file() -> None:
    """Flags replace what has the same name and leave the rest."""
    app = compose(base=BASE, environment=["A=3"], caps_retain=["CAP_CHOWN"], user="9")["app"]
    assert (app["exec"], app["user"], app["group"]) == (["/a"], "9", "8")
    assert {e["name"]: e["value"] for e in app["environment"]} == {"A": "3", "B": "2"}
    assert [i["name"] for i in app["isolators"]] == ["os/linux/capabilities-retain-set"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "UPPER"},
        {"name": "a", "label": ["novalue"]},
        {"name": "a", "environment": ["=x"]},
        {"name": "a", "environment": ["1A=x"]},
        {"name": "a", "port": ["http"]},
        {"name": "a", "port": ["http,port=0"]},
        {"name": "a", "port": ["http,port=80,colour=red"]},
        {"name": "a", "mount_point": ["data"]},
        {"name": "a", "mount_point": ["Data,path=/x"]},
        {"name": "a", "isolator": ["resource/memory"]},
        {"name": "a", "isolator": ["resource/memory={"]},
        {"name": "a", "isolator": ["made/up={}"]},
        {"name": "a", "event_handler": ["during=/x"]},
        {"name": "a", "event_handler": ["pre-start"]},
        {"name": "a", "supplementary_gids": ["x"]},
        {"name": "a", "cpu_shares": "many"},
        {"name": "a", "caps_retain": ["CAP_KILL"], "caps_remove": ["CAP_KILL"]},
        {"name": "a", "working_dir": "relative"},
        {"name": "a", "path_whitelist": ["relative"]},
        {"name": "a", "exec": ["[1]"]},
        {"name": "a", "dependency": ["B"]},
        {"name": "a", "dependency": ["b,size=x"]},
    ],
    ids=str,
)
def test_mistakes_are_refused(values: dict[str, Any]) -> None:
    """What no manifest may say is refused when it is written, not when it is run."""
    with pytest.raises((UsageError, InvalidManifest)):
        compose(**values)
