# SPDX-License-Identifier: Apache-2.0
"""``rkt explain`` tells what a pod may do, as it then is (docs/explain.md)."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from rkt.pod.risk import LEVELS, POINTS
from tests.lib.images import fetch
from tests.lib.inspect import INSECURE, manifest_app, shell_app, stored, write_pod_manifest
from tests.lib.tree import read_text

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

NAME = "example.com/explained"
#: Flags before the image, flags after it: each gives the pod something more than the line without it.
DANGEROUS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "host network": (("--net=host",), ()),
    "host ipc": (("--ipc=parent",), ()),
    "sysctl": (("--sysctl=net.core.somaxconn=1024",), ()),
    "environment": (("--inherit-env",), ()),
    "capabilities off": (("--insecure-options=image,capabilities",), ()),
    "paths off": (("--insecure-options=image,paths",), ()),
    "seccomp off": (("--insecure-options=image,seccomp",), ()),
    "all off": (("--insecure-options=image,all-run",), ()),
    "volume": (("--volume=v,kind=host,source={tmp}", "--mount=volume=v,target=/v"), ()),
    "root volume": (("--volume=v,kind=host,source=/", "--mount=volume=v,target=/v"), ()),
    "etc volume": (("--volume=v,kind=host,source=/etc,readOnly=true", "--mount=volume=v,target=/v"), ()),
    "device": ((), ("--device=/dev/kmsg:r",)),
    "admin": ((), ("--caps-retain=CAP_SYS_ADMIN",)),
    "raw sockets": ((), ("--caps-retain=CAP_NET_RAW",)),
    "nice": ((), ("--caps-retain=CAP_SYS_NICE",)),
    "privileges": ((), ("--no-new-privileges=false",)),
    "calls": ((), ("--seccomp=mode=retain,@rkt/default-whitelist,mount",)),
    "all calls": ((), ("--seccomp=mode=retain,@appc.io/all",)),
    "oom": ((), ("--oom-score-adj=-100",)),
}


def explain(rkt: Rkt, *words: str, check: int = 0) -> dict[str, Any]:
    """The object that ``explain`` prints; options of the command first."""
    explained: dict[str, Any] = json.loads(rkt.run("explain", "--format=json", *words, check=check).stdout)
    return explained


def kinds(explained: dict[str, Any]) -> set[str]:
    """Kinds of the findings."""
    return {finding["kind"] for finding in explained["findings"]}


def modest(images: Images) -> str:
    """An image that asks for nothing and is no root."""
    return images.busybox(
        "example.com/modest", file="explain-modest", app={"user": "alice", "group": "alice"}
    )


def usual(images: Images) -> str:
    """An image that runs as root and wishes for one capability."""
    wish = {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_RAW", "CAP_CHOWN"]}}
    return images.busybox("example.com/pinger", file="explain-pinger", app={"isolators": [wish]})


def greedy(images: Images) -> str:
    """An image that asks for everything."""
    isolators = [
        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_SYS_ADMIN", "CAP_SYS_MODULE"]}},
        {"name": "os/linux/seccomp-retain-set", "value": {"set": ["@appc.io/all"]}},
        {"name": "os/linux/no-new-privileges", "value": False},
        {"name": "os/linux/oom-score-adj", "value": -1000},
    ]
    return images.busybox("example.com/greedy", file="explain-greedy", app={"isolators": isolators})


def test_a_harmless_image_is_said_to_be_harmless(rkt: Rkt, images: Images) -> None:
    """Signed, no root, no flags: the answer is that it reaches nothing, who signed stands there, and no pod is left."""
    path = modest(images)
    images.sign(path)
    rkt.run("trust", "--root", "--skip-fingerprint-review", images.key_file, check=0)
    result = rkt.run("explain", path, check=0)
    assert result.lines[0].startswith("Risk: low (")
    assert "reaches nothing of this machine but its kernel" in " ".join(result.stdout.split())
    assert "signed by signer@example.com" in " ".join(result.stdout.split())
    assert "none, and it cannot gain any" in result.stdout
    assert rkt.run("list", "--no-legend", check=0).stdout == ""
    assert rkt.run("explain", "--max-risk=19", path).status == 0
    explained = explain(rkt, path)
    assert explained["apps"][0]["verified"]["kind"] == "openpgp"
    assert explained["apps"][0]["user"] == {
        "name": "alice",
        "uid": 1000,
        "group": "alice",
        "gid": 1000,
        "source": "image",
    }
    assert kinds(explained) == {"no-user-namespace", "no-memory-limit", "writable-root"}


def test_every_remedy_of_a_harmless_image_works(rkt: Rkt, images: Images) -> None:
    """Who follows the advice of the last lines gets to a score of 0."""
    image = fetch(rkt, modest(images))
    explained = explain(rkt, INSECURE, "--private-users", image, "--memory=64M", "--readonly-rootfs=true")
    assert kinds(explained) == {"unverified-image"}


def test_a_wish_for_one_capability_is_cut_and_then_granted(rkt: Rkt, images: Images) -> None:
    """What the image asks for in vain is told with the flag that gives it; with the flag it is the flag's."""
    image = stored(rkt, usual(images))
    before = explain(rkt, INSECURE, image)
    app = before["apps"][0]
    assert app["capabilities"] == {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "source": "image"}
    assert app["cut_wishes"] == ["CAP_NET_RAW: give them by --caps-retain"]
    after = explain(rkt, INSECURE, image, "--caps-retain=CAP_NET_RAW")
    app = after["apps"][0]
    assert app["capabilities"]["bounding"] == ["CAP_NET_RAW"]
    assert app["capabilities"]["source"] == "flag"
    assert app["cut_wishes"] == []
    assert "strong-capabilities" in kinds(after) - kinds(before)
    assert after["risk"]["score"] > before["risk"]["score"]


def test_an_image_that_asks_for_everything_gets_nothing_of_it(rkt: Rkt, images: Images) -> None:
    """Wishes add no points; the flags that grant them make the risk critical and the status that of --max-risk."""
    image = stored(rkt, greedy(images))
    explained = explain(rkt, INSECURE, image)
    assert len(explained["apps"][0]["cut_wishes"]) == 4
    assert not kinds(explained) & {"host-capabilities", "no-system-call-filter", "gains-privileges"}
    result = rkt.run(
        "explain",
        "--max-risk=99",
        "--insecure-options=image,all-run",
        "--net=host",
        "--volume=all,kind=host,source=/",
        "--mount=volume=all,target=/host",
        image,
        "--no-new-privileges=false",
        check=3,
    )
    assert result.lines[0].startswith("Risk: critical (")
    assert "This pod can take over this machine:" in result.stdout
    assert re.search(r"explain: risk \d+ is above --max-risk=99", result.stderr)


def test_every_dangerous_flag_raises_the_score(module_rkt: Rkt, images: Images) -> None:
    """Each flag that gives the pod something is seen on the command line and costs points."""
    rkt = module_rkt
    image = stored(rkt, usual(images))
    plain = explain(rkt, INSECURE, image)["risk"]["score"]
    for name, (pod, app) in DANGEROUS.items():
        pod = tuple(flag.format(tmp=rkt.tmp) for flag in pod)  # noqa: PLW2901 - names the directory
        first = pod if any(flag.startswith("--insecure") for flag in pod) else (INSECURE, *pod)
        assert explain(rkt, *first, image, *app)["risk"]["score"] > plain, name


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--caps-retain=CAP_NET_ADMIN,CAP_CHOWN",),
        ("--user=alice", "--group=alice"),
        ("--no-new-privileges=false",),
        ("--no-new-privileges=false", "--user=alice"),
        ("--seccomp=mode=retain,@appc.io/all", "--no-new-privileges=false", "--user=1000"),
    ],
)
def test_the_pod_is_what_was_explained(module_rkt: Rkt, images: Images, flags: tuple[str, ...]) -> None:
    """Capabilities, ids, no_new_privs and the filter of a running app are the explained ones."""
    rkt = module_rkt
    image = stored(rkt, images.busybox("example.com/self", file="explain-self"))
    words = shell_app(image, "self", "cat /proc/self/status", *flags)
    told = explain(rkt, INSECURE, *words)["apps"][0]
    said = rkt.run("run", INSECURE, *words, check=0).stdout
    is_ = dict(re.findall(r"^(\w+):\s+(.*)$", said, re.MULTILINE))

    def mask(names: list[str]) -> int:
        from rkt.linux import capabilities

        return capabilities.mask(names)

    assert int(is_["CapBnd"], 16) == mask(told["capabilities"]["bounding"])
    assert int(is_["CapEff"], 16) == mask(told["capabilities"]["effective"])
    assert int(is_["Uid"].split()[0]) == told["user"]["uid"]
    assert int(is_["Gid"].split()[0]) == told["user"]["gid"]
    assert bool(int(is_["NoNewPrivs"])) == told["no_new_privileges"]["value"]
    assert (is_["Seccomp"] != "0") == (told["system_calls"]["filter"] != "off")


def test_a_pod_on_disk_is_explained(rkt: Rkt, images: Images) -> None:
    """A prepared pod says the same by UUID and by name as its command line did, with the flags of run-prepared."""
    image = stored(rkt, modest(images))
    before = explain(rkt, INSECURE, image)
    rkt.run("prepare", INSECURE, "--name=shop", image, check=0)
    after = explain(rkt, "--pod=shop")
    assert after["risk"] == before["risk"]
    assert after["apps"][0]["capabilities"] == before["apps"][0]["capabilities"]
    assert "host-network" in kinds(explain(rkt, "--pod=shop", "--net=host"))
    assert "decided when the pod was made" in rkt.run("explain", "--pod=shop", image, check=254).stderr
    rkt.run("run-prepared", "--net=host", "shop", check=0)
    uuid = rkt.run("list", "--full", "--no-legend", check=0).stdout.split()[0]
    assert "host-network" in kinds(explain(rkt, f"--pod={uuid}"))
    assert "started already" in rkt.run("explain", f"--pod={uuid}", "--net=none", check=254).stderr


def test_a_pod_manifest_is_explained_as_its_own(rkt: Rkt, images: Images) -> None:
    """What a manifest gives has it as its source, advice speaks of it, and an image used twice is told once."""
    image = stored(rkt, modest(images))
    isolator = {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_RAW"]}}
    path = write_pod_manifest(
        f"{rkt.tmp}/pod.json",
        [manifest_app(images.ids[modest(images)], name, "true", isolators=[isolator]) for name in ("a", "b")],
        volumes=[{"name": "files", "kind": "image", "source": images.ids[modest(images)]}],
    )
    explained = explain(rkt, INSECURE, f"--pod-manifest={path}")
    found = explained["findings"]
    assert [each["kind"] for each in found].count("unverified-image") == 1
    raw = [each for each in found if each["kind"] == "strong-capabilities"]
    assert {(each["app"], each["source"]) for each in raw} == {("a", "pod-manifest"), ("b", "pod-manifest")}
    assert all(each["remedy"] == "leave CAP_NET_RAW out of the pod manifest" for each in raw)
    assert next(each for each in found if each["kind"] == "no-memory-limit")["remedy"].startswith(
        "in the pod manifest"
    )
    volume = ("--volume=v,kind=image,source=" + image, "--mount=volume=v,target=/v")
    (mounted,) = explain(rkt, INSECURE, *volume, image)["apps"][0]["paths"]
    assert mounted == {
        "path": "/v",
        "kind": "image",
        "read_only": True,
        "source": "flag",
        "image_id": images.ids[modest(images)],
    }
    assert "/v: files of an image, read-only (flag)" in rkt.run("explain", INSECURE, *volume, image).stdout


def test_what_prepare_refuses_is_not_explained(rkt: Rkt, images: Images) -> None:
    """An image nobody vouches for, a flag that makes no sense, a bad number: status 254, as the command itself."""
    path = modest(images)
    if os.path.exists(f"{path}.asc"):
        path = usual(images)
    assert rkt.run("explain", path).status == 254
    assert rkt.run("explain", INSECURE, "--max-risk=low", path).status == 254
    assert rkt.run("explain", INSECURE, path, "--caps-retain=CAP_NONE_SUCH").status == 254
    assert rkt.run("explain").status == 254


def test_text_of_an_image_does_not_reach_the_terminal(rkt: Rkt, images: Images) -> None:
    """Control characters in arguments are escaped, and every line stays within narrow columns unless one word is longer."""
    image = stored(
        rkt, images.busybox("example.com/odd", ("/bin/sh", "\x1b]0;owned\x07"), file="explain-odd")
    )
    text = rkt.run("explain", INSECURE, image, check=0).stdout
    assert "\x1b" not in text
    assert "\\x1b]0;owned\\x07" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_is_run_beside_the_app_is_told(module_rkt: Rkt, images: Images) -> None:
    """Probes are named with what they run, and change no score: they may do what the app may."""
    image = stored(module_rkt, modest(images))
    flags = ("--readiness=exec:/bin/check now", "--liveness=http:8080/x", "--restart=always", "--log-rate=9")
    explained = explain(module_rkt, INSECURE, image, *flags)
    assert explained["apps"][0]["probes"] == [
        {"kind": "readiness", "method": "exec", "exec": ["/bin/check", "now"], "port": None},
        {"kind": "liveness", "method": "http", "exec": [], "port": 8080},
    ]
    assert explained["risk"] == explain(module_rkt, INSECURE, image)["risk"]
    text = module_rkt.run("explain", INSECURE, image, *flags, check=0).stdout
    assert "readiness: /bin/check now, confined as the app\n" in text
    assert "liveness: http to its port 8080, confined as the app\n" in text


def test_the_table_of_the_documents_is_the_one_that_counts() -> None:
    """docs/explain.md lists every finding with its points, and the levels."""
    text = read_text("docs/explain.md")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert {kind: (int(plain), int(private)) for kind, plain, private in rows} == POINTS
    for least, word in LEVELS:
        assert f"{word} from {least}" in text
