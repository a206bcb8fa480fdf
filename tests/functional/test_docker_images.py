# SPDX-License-Identifier: Apache-2.0
"""Docker and OCI images from a registry to a running pod, and what the store has of them (spec cli §7, §10.1, issue 6)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib import aci, layouts
from tests.lib.images import GROUP, PASSWD
from tests.lib.pace import SLOWNESS, rounds
from tests.lib.registry import PLAIN, LyingRegistry, Registry
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.lib.layouts import Image
    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root
INSECURE = "--insecure-options=image,http"
APPLETS = "cat echo id ls sh sleep stat trap"
OTHER = "arm64" if layouts.ARCHITECTURE != "arm64" else "amd64"


def base_layer() -> bytes:
    """busybox, users, groups, and some files to be hidden."""
    path = shutil.which("busybox")
    assert path is not None, "busybox is not installed: run make setup"
    with open(path, "rb") as stream:
        files: dict[str, bytes | tuple[bytes, int]] = {"bin/busybox": (stream.read(), 0o755)}
    files |= {"etc/passwd": PASSWD, "etc/group": GROUP, "data/seed": b"seed\n", "old/a": b"a", "gone": b"g"}
    return layouts.layer(files, [aci.symlink(f"bin/{name}", "busybox") for name in APPLETS.split()])


BASE = base_layer()
UPPER = layouts.layer(
    {"hello": b"hello from above\n"}, [aci.Entry(".wh.gone"), aci.Entry("old/.wh..wh..opq")]
)
RUN: dict[str, Any] = {"Env": ["PATH=/bin", "GREETING=hi"], "Cmd": ["cat", "/hello"]}
IMAGE = layouts.make_image(BASE, UPPER, config=RUN)


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    """One that serves pages, and counts who asks for them."""
    with LyingRegistry() as server:
        yield server


def asked(registry: LyingRegistry, kind: str) -> list[str]:
    """Paths of the requests for ``blobs`` or ``manifests``, with a body."""
    return [each.path for each in registry.requests if f"/{kind}/" in each.path and each.method == "GET"]


def run(rkt: Rkt, *words: str, **options: Any) -> str:
    """What a pod without a network says."""
    return rkt.run(INSECURE, "run", "--net=none", *words, **{"check": 0, **options}).stdout


def key_of(image: Image) -> str:
    """What the image is called in the store."""
    return image.digest.replace(":", "-")


def test_run_by_tag_and_digest(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 6, 1: an image runs by tag and by digest; its ID is the digest of its manifest; layers lie over each other."""
    reference = f"docker://{registry.image(IMAGE, 'team/app', '1')}"
    assert run(rkt, reference) == "hello from above\n"
    assert run(rkt, reference, "--", "ls", "/old", "/gone", check=1) == "/old:\n"
    by_digest = f"docker://{registry.name}/team/app@{IMAGE.digest}"
    assert rkt.run(INSECURE, "fetch", "--full", by_digest, check=0).stdout == f"{key_of(IMAGE)}\n"
    listed = json.loads(rkt.run("image", "list", "--format=json", check=0).stdout)
    assert [row["id"] for row in listed if row["id"].startswith("sha256-")] == [key_of(IMAGE)]
    for way in (key_of(IMAGE), IMAGE.digest, IMAGE.digest[:20], key_of(IMAGE)[:15]):
        assert run(rkt, way, "--", "echo", "by hash") == "by hash\n"
    for layer in IMAGE.document["layers"]:
        assert asked(registry, "blobs").count(f"/v2/team/app/blobs/{layer['digest']}") == 1


def test_f5_f9_f10_pull_policies(rkt: Rkt, registry: LyingRegistry) -> None:
    """Cli F5, F8, F9, F10: new asks once, update asks each time, never not at all; all ways to write it are one row."""
    name = registry.image(IMAGE, "app", "latest").removesuffix(":latest")
    failed = rkt.run(INSECURE, "fetch", "--pull-policy=never", f"docker://{name}", check=254).stderr
    assert f'unable to fetch docker image from URL "docker://{name}"' in failed
    first = rkt.run(INSECURE, "--debug", "fetch", "--pull-policy=new", f"docker://{name}", check=0)
    assert f'remote fetching from URL "docker://{name}"' in first.stderr
    registry.requests.clear()
    for policy, reference in (
        ("new", f"docker://{name}"),
        ("new", f"docker:{name}:latest"),
        ("never", f"docker://{name}:latest"),
    ):
        result = rkt.run(INSECURE, "--debug", "fetch", f"--pull-policy={policy}", reference, check=0)
        assert f"using image from local store for url {reference}" in result.stderr
    assert registry.requests == []
    again = rkt.run(INSECURE, "--debug", "fetch", "--pull-policy=update", f"docker://{name}", check=0)
    assert f'remote fetching from URL "docker://{name}"' in again.stderr
    assert asked(registry, "blobs") == []
    changed = layouts.make_image(BASE, UPPER, config={**RUN, "Cmd": ["echo", "changed"]})
    registry.image(changed, "app", "latest")
    assert run(rkt, f"docker://{name}") == "hello from above\n"
    assert run(rkt, "--pull-policy=update", f"docker://{name}") == "changed\n"


@pytest.mark.parametrize("verb", ["run", "prepare"])
def test_f6_f7_f8_run_and_prepare(rkt: Rkt, registry: LyingRegistry, verb: str) -> None:
    """Cli F6, F7, F8: run and prepare fetch what the store does not have, once, and never where that is the policy."""
    reference = f"docker://{registry.image(IMAGE, 'app', 'latest')}"
    flags = ["--net=none"] if verb == "run" else []
    failed = rkt.run(INSECURE, verb, *flags, "--pull-policy=never", reference, check=254).stderr
    assert f'unable to fetch docker image from URL "{reference}"' in failed
    for text in ("remote fetching from URL", "using image from local store for url"):
        result = rkt.run(INSECURE, "--debug", verb, *flags, reference, "--exec=/bin/echo", check=0)
        assert f"{text} " in result.stderr
        assert reference in result.stderr


def test_verdict(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 7, 1: where nobody is trusted for its name an image is refused before anybody is asked, with the very command (SG1)."""
    image = registry.image(IMAGE)
    reference = f"docker://{image}"
    name = image.rpartition(":")[0]
    for verb in ("fetch", "run", "prepare"):
        refused = rkt.run("--insecure-options=http", verb, reference, check=254).stderr
        assert f'image "{name}" verification failed' in refused
        assert f'no rule covers "{name}", and no OpenPGP key counts for it' in refused
        assert f"rkt trust --prefix={name} --cosign-key=FILE" in refused
        assert "--insecure-options=image" in refused
    assert registry.requests == []
    rkt.run(INSECURE, "fetch", reference, check=0)
    assert "was never verified" in rkt.run("run", reference, check=254).stderr
    listed = rkt.run("image", "list", "--fields=id,verdict", "--no-legend", check=0).stdout
    assert listed.split("\t")[-1].strip() == "NOT VERIFIED"


def test_shared_layers_come_once(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 6, 1: a layer that an image of the store has is neither downloaded nor unpacked again; gc takes the last user's."""
    other = layouts.make_image(BASE, layouts.layer({"other": b"x"}), config=RUN)
    references = [
        f"docker://{registry.image(image, repository)}"
        for image, repository in ((IMAGE, "one"), (other, "two"))
    ]
    rkt.run(INSECURE, "fetch", references[0], check=0)
    registry.requests.clear()
    rkt.run(INSECURE, "fetch", references[1], check=0)
    shared = IMAGE.document["layers"][0]["digest"]
    assert len(asked(registry, "blobs")) == 2
    assert f"/v2/two/blobs/{shared}" not in asked(registry, "blobs")
    layers = f"{rkt.data}/cas/layer"
    assert len([name for name in os.listdir(layers) if name.startswith("sha256-")]) == 3
    assert run(rkt, references[1], "--", "cat", "/other") == "x"
    rkt.run("image", "rm", references[0], check=0)
    assert run(rkt, references[1], "--", "cat", "/other") == "x"
    rkt.run("gc", "--grace-period=0s", "--expire-prepared=0s", check=0)
    rkt.run("image", "rm", references[1], check=0)
    rkt.run("image", "gc", "--grace-period=0s", check=0)
    for directory in ("layer", "split", "oci", "blob", "record", "manifest"):
        left = os.listdir(f"{rkt.data}/cas/{directory}")
        assert [name for name in left if not name.startswith("sha512-")] == [], directory


def test_platforms(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 6: of an index the host's image comes, or the one that --platform asks for; both can be in the store."""
    foreign = layouts.make_image(BASE, architecture=OTHER, config=RUN)
    platforms = [{"os": "linux", "architecture": name} for name in (OTHER, layouts.ARCHITECTURE)]
    index = layouts.make_index(
        *(
            image.descriptor(platform=platform)
            for image, platform in zip((foreign, IMAGE), platforms, strict=True)
        )
    )
    for image in (foreign, IMAGE):
        registry.image(image, "app", "unused")
    registry.manifest("app", "1", index)
    reference = f"docker://{registry.name}/app:1"
    fetch = [INSECURE, "fetch", "--full", "--pull-policy=new"]
    for _ in range(2):
        assert rkt.run(*fetch, reference, check=0).stdout == f"{key_of(IMAGE)}\n"
        there = rkt.run(*fetch, f"--platform=linux/{OTHER}", reference, check=0)
        assert there.stdout == f"{key_of(foreign)}\n"
    # The digest of an index is one as good as that of a manifest.
    pinned = f"docker://{registry.name}/app@{layouts.digest(index)}"
    registry.manifest("app", layouts.digest(index), index)
    assert rkt.run(*fetch, pinned, check=0).stdout == f"{key_of(IMAGE)}\n"
    missing = rkt.run(*fetch, "--platform=linux/s390x", reference, check=254).stderr
    assert "is not for linux/s390x" in missing
    assert "linux/amd64" in missing
    assert "invalid platform" in rkt.run(*fetch, "--platform=linux", reference, check=254).stderr
    only = f"docker://{registry.image(foreign, 'foreign', '1')}"
    refused = rkt.run(*fetch, only, check=254).stderr
    assert f"--platform=linux/{OTHER}" in refused


def test_the_digest_wins(rkt: Rkt, registry: LyingRegistry) -> None:
    """What comes for name:tag@digest has that digest, whatever the tag leads to; a server that sends another is refused."""
    other = layouts.make_image(UPPER)
    registry.image(IMAGE, "app", "1")
    registry.image(other, "app", "2")
    pinned = f"docker://{registry.name}/app:2@{IMAGE.digest}"
    assert rkt.run(INSECURE, "fetch", "--full", pinned, check=0).stdout == f"{key_of(IMAGE)}\n"
    lie = f"sha256:{'0' * 64}"
    registry.manifest("app", lie, other.manifest)
    rkt.run(INSECURE, "fetch", f"docker://{registry.name}/app@{lie}", check=254)
    assert len(rkt.run("image", "list", "--no-legend", check=0).lines) == 1


def test_diff_id_that_lies(rkt: Rkt, registry: LyingRegistry) -> None:
    """A layer whose tar is not what the configuration says is refused, and nothing of it stays (invariant UN15)."""
    honest = layouts.make_image(UPPER)
    config = json.loads(honest.config)
    config["rootfs"]["diff_ids"] = [f"sha256:{'1' * 64}"]
    data = layouts.json_bytes(config)
    manifest = honest.document
    manifest["config"] = layouts.descriptor(manifest["config"]["mediaType"], data)
    blobs = {hashlib.sha256(data).hexdigest(): data, **honest.blobs}
    liar = layouts.Image(honest.tars, layouts.json_bytes(manifest), data, blobs)
    refused = rkt.run(INSECURE, "fetch", f"docker://{registry.image(liar)}", check=254)
    assert "diff ID" in refused.stderr
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert os.listdir(f"{rkt.data}/cas/partial") == []
    assert os.listdir(f"{rkt.data}/cas/layer") == []


def test_a_layer_that_broke_off_is_continued(rkt: Rkt, registry: LyingRegistry) -> None:
    """What has come of a layer is kept when the transfer fails, and only the rest is asked for; whole layers stay too."""
    big = layouts.layer({"random": random.Random(1).randbytes(3 << 20)})
    image = layouts.make_image(UPPER, big)
    reference = f"docker://{registry.image(image)}"
    digest = image.document["layers"][1]["digest"]
    page = registry.pages[f"/v2/app/blobs/{digest}"]
    page.stall = 2 << 20
    process = rkt.popen(INSECURE, "fetch", reference)
    directory = f"{rkt.data}/cas/partial"
    deadline = time.monotonic() + 20 * SLOWNESS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if (
                max((os.stat(f"{directory}/{name}").st_size for name in os.listdir(directory)), default=0)
                > 1 << 20
            ):
                break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert os.listdir(directory) != []
    page.stall = None
    registry.requests.clear()
    rkt.run(INSECURE, "fetch", reference, check=0)
    ranges = [each.headers.get("Range") for each in registry.requests if digest in each.path]
    assert ranges != [None], "the layer came from its beginning"
    assert ranges[0] is not None
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) > 0
    assert os.listdir(directory) == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []


def test_kill_at_random_moments(rkt: Rkt, registry: LyingRegistry) -> None:
    """After SIGKILL at any moment of a fetch, the image is absent or complete, and one gc leaves no residue."""
    image = layouts.make_image(
        layouts.layer({f"data/{i}": os.urandom(2000) for i in range(200)}),
        layouts.layer({f"more/{i}": os.urandom(2000) for i in range(200)}),
    )
    reference = f"docker://{registry.image(image)}"
    start = time.monotonic()
    rkt.run(INSECURE, "fetch", reference, check=0)
    whole = time.monotonic() - start
    rkt.run("image", "rm", reference, check=0)
    dice = random.Random(3)
    for _ in range(rounds(8)):
        process = rkt.popen(INSECURE, "fetch", reference)
        time.sleep(dice.uniform(0, whole * 1.1))
        process.kill()
        process.wait(20)
        listed = rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0)
        assert listed.lines in ([], [key_of(image)])
        if listed.lines:
            rkt.run("image", "verify", reference, check=0)
            rkt.run("image", "rm", reference, check=0)
        rkt.run("image", "gc", check=0)
        for directory in ("record", "manifest", "layer", "split", "oci", "blob", "tmp"):
            assert os.listdir(f"{rkt.data}/cas/{directory}") == [], directory
    rkt.run(INSECURE, "fetch", reference, check=0)
    rkt.run("image", "verify", reference, check=0)


def test_several_images_at_once(rkt: Rkt, registry: LyingRegistry) -> None:
    """Images of one command come beside each other, and share what they share; hashes are printed in order."""
    images = [layouts.make_image(BASE, layouts.layer({f"f{i}": b"x"}), config=RUN) for i in range(3)]
    references = [f"docker://{registry.image(image, f'app{i}')}" for i, image in enumerate(images)]
    result = rkt.run(INSECURE, "fetch", "--full", *references, check=0)
    assert result.lines == [key_of(image) for image in images]
    shared = images[0].document["layers"][0]["digest"]
    assert len([path for path in asked(registry, "blobs") if path.endswith(shared)]) == 1


def test_arguments_and_entry_point(rkt: Rkt, registry: LyingRegistry) -> None:
    """Arguments replace the command and keep the entry point, --exec replaces both (spec cli §11 row 25)."""
    config = {"Env": ["PATH=/bin"], "Entrypoint": ["echo", "entry"], "Cmd": ["command"]}
    entry = f"docker://{registry.image(layouts.make_image(BASE, config=config), 'entry')}"
    plain = f"docker://{registry.image(IMAGE, 'plain')}"
    apps = [entry, "--name=a", entry, "--name=b", "--", "given", "---", plain, "--name=c", "--", "echo", "x"]
    more = ["---", entry, "--name=d", "--exec=/bin/ls", "--", "/old", "---", plain, "--name=e"]
    output = run(rkt, *apps, *more)
    said = dict(re.findall(r"^(\w+)\[\d+\]: (.*)$", output, re.MULTILINE))
    expected = {"a": "entry command", "b": "entry given", "c": "x", "d": "a", "e": "hello from above"}
    assert said == expected


def test_user_volumes_and_streams(rkt: Rkt, registry: LyingRegistry) -> None:
    """Cli R28: a user has his own group, an implicit volume the image's files, and /dev/stdout works for all."""
    config = {
        "Env": ["PATH=/bin"],
        "User": "alice",
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
        "Entrypoint": ["sh", "-c"],
        "Cmd": [
            "id -u; id -g; cat seed; echo out >/dev/stdout; echo err >/dev/stderr; ls -l /proc/self/fd >/dev/null"
        ],
    }
    reference = f"docker://{registry.image(layouts.make_image(BASE, config=config))}"
    result = rkt.run(INSECURE, "run", "--net=none", reference, check=0)
    assert result.lines == ["1000", "1000", "seed", "out"]
    assert "err\n" in result.stderr
    hidden = run(rkt, "--volume=volume-data,kind=empty,uid=1000", reference, "--", "ls /data; echo none")
    assert hidden == "none\n"


def test_stop_signal(rkt: Rkt, registry: LyingRegistry) -> None:
    """An app is asked to end by the signal that its image wants."""
    script = "trap 'echo asked; exit 0' QUIT; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    config = {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", script], "StopSignal": "SIGQUIT"}
    reference = f"docker://{registry.image(layouts.make_image(BASE, config=config))}"
    with rkt.popen(INSECURE, "run", "--net=none", reference) as pod:
        deadline = time.monotonic() + 20 * SLOWNESS
        while "ready" not in pod.texts()[0] and time.monotonic() < deadline:
            time.sleep(0.02)
        pod.send_signal(signal.SIGTERM)
        assert pod.wait(20) == 0
        assert pod.texts()[0] == "ready\nasked\n"


def test_ways_to_use_an_image(rkt: Rkt, registry: LyingRegistry, tmp_path: Path) -> None:
    """By pod manifest, as a volume, without overlay, with private users: an image of several layers is one tree."""
    reference = f"docker://{registry.image(IMAGE)}"
    rkt.run(INSECURE, "fetch", reference, check=0)
    manifest = {
        "acKind": "PodManifest",
        "acVersion": "0.8.11",
        "apps": [{"name": "app", "image": {"id": key_of(IMAGE)}}],
    }
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(manifest))
    assert run(rkt, f"--pod-manifest={path}") == "hello from above\n"
    look = ["--", "sh", "-c", "cat /hello; ls /old; ls -d /gone 2>/dev/null || echo gone"]
    for flags in (["--no-overlay"], ["--private-users"]):
        assert run(rkt, *flags, reference, *look) == "hello from above\ngone\n", flags
    volume = [f"--volume=v,kind=image,source={key_of(IMAGE)}", "--mount=volume=v,target=/mnt"]
    assert run(rkt, *volume, reference, "--", "cat", "/mnt/hello") == "hello from above\n"
    name = json.loads(rkt.run("image", "cat-manifest", reference, check=0).stdout)["name"]
    assert run(rkt, name, "--", "echo", "by name") == "by name\n"
    assert rkt.run("image", "rm", "docker://nowhere.example/x", check=254).stderr.startswith("rm: no image")


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_local_images(rkt: Rkt, tmp_path: Path, kind: str) -> None:
    """Image layouts and archives run as images of registries do, under the name that the operator gives."""
    if kind == "oci":
        path = layouts.write_layout(f"{tmp_path}/demo", IMAGE)
    elif kind == "oci-archive":
        files = layouts.layout_files(layouts.make_index(IMAGE.descriptor()), IMAGE.blobs)
        path = layouts.write_tar(f"{tmp_path}/demo.tar", files)
    else:
        path = layouts.write_tar(f"{tmp_path}/demo.tar", layouts.docker_files(IMAGE))
    assert run(rkt, f"{kind}:{path}") == "hello from above\n"
    assert run(rkt, "demo", "--", "echo", "again") == "again\n"


def test_references_that_are_bad(rkt: Rkt) -> None:
    """What is no reference is noticed at once, with the form that is expected."""
    refused = rkt.run(INSECURE, "run", "docker://example.com/UPPER", check=254).stderr
    assert "invalid docker reference" in refused
    assert "hint: use docker://[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]" in refused
    signed = rkt.run(INSECURE, "fetch", "docker://x", "--signature=/x.asc", check=254).stderr
    assert "--signature is for ACIs" in signed


def test_progress_for_programs(rkt: Rkt, registry: LyingRegistry) -> None:
    """--progress=json sums the layers up, under the reference."""
    reference = f"docker://{registry.image(IMAGE)}"
    result = rkt.run(INSECURE, "fetch", "--progress=json", reference, check=0)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    last = [event for event in events if event["event"] == "download"][-1]
    size = sum(layer["size"] for layer in IMAGE.document["layers"])
    assert last == {"event": "download", "url": reference, "done_bytes": size, "total_bytes": size}
    assert events[-1]["id"] == key_of(IMAGE)


@pytest.mark.parametrize("form", ["oci", "v2s2", "zstd"])
def test_images_of_other_programs(rkt: Rkt, tmp_path: Path, authority: Authority, form: str) -> None:
    """Issue 6, 1: what buildah or umoci made and skopeo pushed to Debian's registry, in every format, runs here."""
    for program in ("skopeo", "umoci", "docker-registry"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    layout = f"{tmp_path}/made"
    root = tmp_path / "rootfs"
    shutil.copytree(_unpacked(tmp_path), root, symlinks=True)
    for words in (
        ["umoci", "init", "--layout", layout],
        ["umoci", "new", "--image", f"{layout}:1"],
        ["umoci", "insert", "--image", f"{layout}:1", str(root), "/"],
        [
            "umoci",
            "config",
            "--image",
            f"{layout}:1",
            "--config.cmd",
            "/bin/echo",
            "--config.cmd",
            "made elsewhere",
        ],
    ):
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    with Registry(PLAIN, authority) as real:
        flags = {
            "oci": ["-f", "oci"],
            "v2s2": ["-f", "v2s2"],
            "zstd": ["--dest-compress-format=zstd", "-f", "oci"],
        }
        target = f"docker://{real.name}/team/app:1"
        command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *flags[form], f"oci:{layout}:1", target]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert run(rkt, target) == "made elsewhere\n"
        digest = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", target],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()
    assert rkt.run("image", "list", "--fields=id", "--full", check=0).stdout.count(digest[7:]) == 1
    rkt.run("image", "verify", digest, check=0)


def _unpacked(tmp_path: Path) -> Path:
    """A root file system with busybox."""
    root = tmp_path / "source"
    (root / "bin").mkdir(parents=True)
    path = shutil.which("busybox")
    assert path is not None
    shutil.copy(path, root / "bin/busybox")
    os.symlink("busybox", root / "bin/echo")
    return root


@pytest.mark.parametrize("upper", ["whiteout", "opaque", "other", "none"])
def test_explain_sees_the_users_that_the_app_has(rkt: Rkt, registry: LyingRegistry, upper: str) -> None:
    """The user that explain names is the one that runs; accounts that a layer hides name nobody, and that may be root."""
    layer = {
        "whiteout": layouts.layer({"x": b""}, [aci.Entry("etc/.wh.passwd")]),
        "opaque": layouts.layer({"etc/group": GROUP}, [aci.Entry("etc/.wh..wh..opq")]),
        "other": layouts.layer({"etc/passwd": b"alice:x:77:78::/:/bin/sh\n"}),
        "none": layouts.layer({"x": b""}),
    }[upper]
    image = layouts.make_image(BASE, layer, config={**RUN, "User": "alice", "Cmd": ["id", "-u"]})
    reference = f"docker://{registry.image(image)}"
    explained = json.loads(rkt.run("explain", "--format=json", INSECURE, reference, check=0).stdout)
    user = explained["apps"][0]["user"]
    ran = rkt.run(INSECURE, "run", "--net=none", reference)
    if upper in {"whiteout", "opaque"}:
        assert (user["uid"], user["gid"]) == (None, None)
        assert ran.status != 0
        assert '"alice" user not found' in ran.stderr
    else:
        assert ran.lines == [str(user["uid"])]
        assert (user["uid"], user["gid"]) == ((77, 78) if upper == "other" else (1000, 1000))
    rkt.run("prepare", INSECURE, "--name=told", key_of(image), check=0)
    again = json.loads(rkt.run("explain", "--format=json", "--pod=told", check=0).stdout)
    for told in (explained, again):
        (remedy,) = [each["remedy"] for each in told["findings"] if each["kind"] == "unverified-image"]
        assert "then fetch it again without --insecure-options=image" in remedy


def test_an_image_is_added_to_a_living_pod(rkt: Rkt, registry: LyingRegistry) -> None:
    """``app add`` takes a Docker image of the store by its reference or digest; its app sees and is what ``run`` makes it."""
    image = layouts.make_image(
        BASE, UPPER, config={**RUN, "User": "alice", "Cmd": ["sh", "-c", "id -u; cat /hello; ls /old"]}
    )
    reference = f"docker://{registry.image(image)}"
    pod = rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()
    refused = rkt.run("app", "add", INSECURE, uuid, reference, "--name=one", check=254)
    assert f"hint: rkt fetch {reference}" in refused.stderr
    rkt.run(INSECURE, "fetch", reference, check=0)
    rkt.run("app", "add", INSECURE, uuid, reference, "--name=one", check=0)
    rkt.run("app", "add", INSECURE, uuid, key_of(image), "--name=two", "--user=0", check=0)
    for name in ("one", "two"):
        rkt.run("app", "start", uuid, f"--app={name}", check=0)
    wait_for(lambda: all("from above" in rkt.log(uuid, name) for name in ("one", "two")), "their words")
    assert " 1000\n" in rkt.log(uuid, "one")
    assert " 0\n" in rkt.log(uuid, "two")
    rkt.run("image", "gc", "--grace-period=0s", check=0)
    rkt.run("app", "rm", uuid, "--app=one", check=0)
    rkt.run("stop", uuid, check=0)
    assert pod.wait(20) == 0, pod.texts()


def test_a_pod_is_exported_and_run_again(rkt: Rkt, registry: LyingRegistry) -> None:
    """``rkt export`` of a pod of a Docker image is an ACI that has all layers and what the app wrote, and runs alone."""
    reference = f"docker://{registry.image(IMAGE, 'app', '1')}"
    run(rkt, reference, "--exec=/bin/sh", "--", "-c", "echo new >/data/new; cat /data/seed")
    (uuid,) = rkt.pods()
    rkt.run("export", uuid, f"{rkt.base}/out.aci", check=0)
    rkt.run("rm", uuid, check=0)
    rkt.run("image", "rm", key_of(IMAGE), check=0)
    words = (
        "--exec=/bin/sh",
        "--",
        "-c",
        "cat /hello /data/new /data/seed; echo $GREETING; ls /old; ls /gone",
    )
    ran = rkt.run(INSECURE, "run", "--net=none", f"{rkt.base}/out.aci", *words, check=1)
    assert ran.stdout == "hello from above\nnew\nseed\nhi\n"
    assert run(rkt, f"{rkt.base}/out.aci") == "hello from above\n"


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_an_exported_image_in_another_store(rkt: Rkt, registry: LyingRegistry, kind: str) -> None:
    """Issue 6, 1: exported here and fetched elsewhere, an image runs the same and has the same layers and configuration."""
    rkt.run(INSECURE, "fetch", f"docker://{registry.image(IMAGE, 'app', '1')}", check=0)
    output = f"{rkt.base}/out{'' if kind == 'oci' else '.tar'}"
    flag = f"--format={kind.replace('oci-archive', 'oci')}"
    rkt.run("image", "export", flag, key_of(IMAGE), output, check=0)
    elsewhere = f"--dir={rkt.base}/elsewhere"
    there = rkt.run(elsewhere, INSECURE, "fetch", "--full", f"{kind}:{output}", check=0).stdout.strip()
    ran = rkt.run(elsewhere, INSECURE, "run", "--net=none", there, check=0)
    assert ran.stdout == "hello from above\n"
    for layer in os.listdir(f"{rkt.data}/cas/layer"):
        assert os.path.isdir(f"{rkt.base}/elsewhere/cas/layer/{layer}"), layer
    documents = [
        f"{data}/cas/oci/{key}/config"
        for data, key in ((rkt.data, key_of(IMAGE)), (f"{rkt.base}/elsewhere", there))
    ]
    for path in documents:
        with open(path, "rb") as stream:
            assert stream.read() == IMAGE.config
    rkt.run(elsewhere, "image", "verify", there, check=0)
    rkt.run(elsewhere, "gc", "--grace-period=0s", check=0)
