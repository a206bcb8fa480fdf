# SPDX-License-Identifier: Apache-2.0
"""Images that depend on others: fetched, verified, rendered, run (spec cli §5.9, §5.10, §10.2)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.aci import ARCH, image_id, write_aci
from tests.lib.images import fetch
from tests.lib.site import Site

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
BUSYBOX = "example.com/busybox"


def dependency(name: str, **more: Any) -> dict[str, Any]:
    """One element of ``dependencies``."""
    return {"imageName": name, **more}


def make(rkt: Rkt, name: str, **image: Any) -> str:
    """Make an image with dependencies, fetch it, return what ``fetch`` printed; keywords as for ``write_aci``."""
    path = f"{rkt.base}/{name.replace('/', '_')}.aci"
    exec_ = image.pop("exec_", None)
    write_aci(path, exec_, name=name, **image)
    return rkt.run(INSECURE, "fetch", "--pull-policy=new", path, check=0).lines[-1]


def trees(rkt: Rkt) -> list[str]:
    """Names of the rendered trees."""
    return sorted(os.listdir(f"{rkt.data}/cas/tree"))


@pytest.fixture
def layered(rkt: Rkt, images: Images) -> Rkt:
    """``app`` over ``upper`` over ``busybox``; each says who it is in ``/who``."""
    fetch(rkt, images.busybox())
    make(rkt, "example.com/upper", files={"who": b"upper", "upper": b"u"}, dependencies=[dependency(BUSYBOX)])
    make(
        rkt,
        "example.com/app",
        exec_=["/bin/sh", "-c", "cat /who /upper; ls / | tr '\\n' ' '; touch /new"],
        files={"who": b"app"},
        dependencies=[dependency("example.com/upper")],
    )
    return rkt


@pytest.mark.parametrize("flags", [(), ("--no-overlay",)])
def test_layers_run(layered: Rkt, flags: tuple[str, ...]) -> None:
    """The app sees all layers, the upper over the lower, with overlays and without; nothing is rendered for it."""
    result = layered.run(INSECURE, "run", *flags, "example.com/app", check=0)
    assert "appu" in result.stdout
    assert "bin" in result.stdout
    assert trees(layered) == []


def test_layers_are_prepared_for_later(layered: Rkt) -> None:
    """A prepared pod keeps its layers through removal of every image, and its verdicts through time."""
    uuid = layered.run(INSECURE, "prepare", "example.com/app", check=0).lines[-1]
    for name in ("example.com/app", "example.com/upper", BUSYBOX):
        layered.run("image", "rm", name, check=0)
    layered.run("image", "gc", "--grace-period=0", check=0)
    assert "appu" in layered.run("run-prepared", uuid, check=0).stdout


def test_rm_tells_of_dependents(layered: Rkt) -> None:
    """Removing an image that others stand on warns of each; not of those that go with it, nor when nothing does."""
    result = layered.run("image", "rm", "example.com/upper", BUSYBOX, check=0)
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    (line,) = warnings
    assert "example.com/app" in line
    assert "2 image(s) successfully removed" in result.stderr
    assert "warning" not in layered.run("image", "rm", "example.com/app", check=0).stderr


def test_gc_keeps_what_a_prepared_pod_depends_on(layered: Rkt) -> None:
    """Images below the app's own count as its pod's."""
    layered.run(INSECURE, "prepare", "example.com/app", check=0)
    layered.run("image", "gc", "--grace-period=0", check=0)
    listed = layered.run("image", "list", "--no-legend", "--fields=name", check=0).lines
    assert {"example.com/app", "example.com/upper", BUSYBOX} <= set(listed)


def test_a_dependency_is_judged_by_itself(rkt: Rkt, images: Images) -> None:
    """A signed image does not vouch for what it depends on."""
    rkt.run("trust", "--root", "--skip-fingerprint-review", images.key_file, check=0)
    fetch(rkt, images.busybox())
    path = images.script("example.com/signed-top", "true", dependencies=[dependency(BUSYBOX)])
    images.sign(path)
    rkt.run("fetch", "--pull-policy=new", path, check=0)
    refused = rkt.run("run", "example.com/signed-top", check=254)
    assert BUSYBOX in refused.stderr
    assert rkt.pods() == {}


def test_a_missing_dependency(rkt: Rkt) -> None:
    """Its name is told, and no pod is made; ``fetch`` says it too."""
    path = f"{rkt.base}/a.aci"
    write_aci(path, name="example.com/a", dependencies=[dependency("localhost/none", labels=[])])
    for words in (
        ("fetch", "--pull-policy=never", path),
        ("--debug", "run", "--pull-policy=never", "example.com/a"),
    ):
        assert "localhost/none" in rkt.run(INSECURE, *words, check=254).stderr
    assert rkt.pods() == {}
    refused = rkt.run("image", "render", "example.com/a", f"{rkt.base}/out", check=254)
    assert "localhost/none" in refused.stderr
    assert not os.path.exists(f"{rkt.base}/out")


def test_cycles_end(rkt: Rkt) -> None:
    """Images that depend on each other are refused (CVE-2016-8579)."""
    one, two = f"{rkt.base}/1.aci", f"{rkt.base}/2.aci"
    write_aci(one, name="example.com/one", dependencies=[dependency("example.com/two")])
    write_aci(two, name="example.com/two", dependencies=[dependency("example.com/one")])
    rkt.run(INSECURE, "fetch", "--pull-policy=never", one, check=254)
    for words in (("fetch", "--pull-policy=never", two), ("run", "example.com/one")):
        assert "depends on itself" in rkt.run(INSECURE, *words, check=254).stderr


def test_pinned_dependencies(rkt: Rkt) -> None:
    """``imageID`` and ``size`` are held against what is there (UN19)."""
    path = f"{rkt.base}/base.aci"
    write_aci(path, name="example.com/base", files={"f": b"x"})
    with open(path, "rb") as stream:
        tar = stream.read()
    fetch(rkt, path)
    good: dict[str, Any] = {"imageID": image_id(tar), "size": len(tar)}
    make(rkt, "example.com/good", dependencies=[dependency("example.com/base", **good)])
    rkt.run("image", "render", "--rootfs-only", "example.com/good", f"{rkt.base}/out", check=0)
    assert os.listdir(f"{rkt.base}/out") == ["f"]
    for number, (bad, words) in enumerate(
        (
            ({**good, "size": len(tar) + 1}, "bytes"),
            (
                {**good, "imageID": f"{image_id(tar)[:-1]}{'1' if image_id(tar)[-1] == '0' else '0'}"},
                "must be",
            ),
            (
                {"imageID": "sha512-" + "0" * 128, "labels": [{"name": "os", "value": "linux"}]},
                "example.com/base",
            ),
        )
    ):
        top = f"{rkt.base}/bad{number}.aci"
        write_aci(top, name=f"example.com/bad{number}", dependencies=[dependency("example.com/base", **bad)])
        assert words in rkt.run(INSECURE, "fetch", "--pull-policy=never", top, check=254).stderr


def test_a_dependency_cannot_name_a_file(rkt: Rkt) -> None:
    """A name that is a file where the command runs is not read as one."""
    write_aci(f"{rkt.base}/secret.aci", name="secret.aci")
    path = f"{rkt.base}/top.aci"
    write_aci(path, name="example.com/top", dependencies=[dependency("secret.aci")])
    refused = rkt.run(INSECURE, "fetch", "--pull-policy=new", path, cwd=rkt.base, check=254)
    assert "cannot be asked for" in refused.stderr
    listed = rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines
    assert "secret.aci" not in listed


def test_d3_d4_render(rkt: Rkt, images: Images) -> None:
    """An empty image over another renders as that one, by name and by short hash."""
    fetch(rkt, images.busybox())
    key = make(rkt, "example.com/empty", dependencies=[dependency(BUSYBOX)])
    for number, word in enumerate(("example.com/empty", key[: 7 + 12])):
        output = f"{rkt.base}/out{number}"
        rkt.run("image", "render", "--rootfs-only", word, output, check=0)
        with open(f"{output}/bin/busybox", "rb") as stream:
            assert stream.read() == images._busybox
    whole = f"{rkt.base}/whole"
    rkt.run("image", "render", "example.com/empty", whole, check=0)
    assert sorted(os.listdir(whole)) == ["manifest", "rootfs"]
    with open(f"{whole}/manifest", encoding="utf-8") as file:
        assert "example.com/empty" in file.read()


def test_d5_render_unknown(rkt: Rkt) -> None:
    """An unknown hash and an unknown name are refused."""
    for word in ("sha512-not-existed", "some~random~aci~name"):
        rkt.run("image", "render", word, f"{rkt.base}/out", check=254)


@pytest.fixture
def listed(rkt: Rkt, images: Images) -> Rkt:
    """``app`` with a white list over busybox with one more file."""
    path = images.busybox("example.com/fat", file="fat", files={"secret": b"s", "public": b"p"})
    fetch(rkt, path)
    make(
        rkt,
        "example.com/app",
        exec_=[
            "/bin/sh",
            "-c",
            "cat /public; test ! -e /secret && echo gone; echo x > /bin/new && echo written",
        ],
        files={"mine": b"m", "unlisted": b"u"},
        dependencies=[dependency("example.com/fat")],
        pathWhitelist=["/bin/busybox", "/bin/sh", "/bin/cat", "/bin/test", "/public", "/mine"],
    )
    return rkt


@pytest.mark.parametrize("flags", [(), ("--no-overlay",)])
def test_a_white_list_is_kept_by_pods(listed: Rkt, flags: tuple[str, ...]) -> None:
    """What the list leaves out is not in the pod; the rendered tree is shared by pods and goes after the last."""
    for _ in range(2):
        result = listed.run(INSECURE, "run", *flags, "example.com/app", check=0)
        assert "pgone" in result.stdout
        assert "written" in result.stdout
    (tree,) = trees(listed)
    root = f"{listed.data}/cas/tree/{tree}/rootfs"
    assert sorted(os.listdir(root)) == ["bin", "mine", "public"]
    assert sorted(os.listdir(f"{root}/bin")) == ["busybox", "cat", "sh", "test"]
    key = listed.run("image", "list", "--fields=id", "--full", "--no-legend", "--sort=name", check=0).lines
    assert os.stat(f"{root}/bin/busybox").st_nlink >= 2, "the layer's file under another name"
    result = listed.run("image", "gc", check=0)
    assert trees(listed) == [tree]
    listed.run("gc", "--grace-period=0", check=0)
    listed.run("gc", "--grace-period=0", check=0)
    listed.run("image", "gc", check=0)
    assert trees(listed) == []
    assert (
        key
        == listed.run("image", "list", "--fields=id", "--full", "--no-legend", "--sort=name", check=0).lines
    )


def test_an_image_used_through_others_is_used(listed: Rkt) -> None:
    """The last use of a dependency is that of what depends on it."""
    fat = listed.run("image", "list", "--fields=id,name", "--full", "--no-legend", check=0)
    key = next(line.split()[0] for line in fat.lines if "example.com/fat" in line)
    os.utime(f"{listed.data}/cas/used/{key}", (1, 1))
    listed.run(INSECURE, "prepare", "example.com/app", check=0)
    assert os.stat(f"{listed.data}/cas/used/{key}").st_mtime > 1


def test_a_changed_layer_is_not_rendered(listed: Rkt) -> None:
    """What is rendered was compared with what was fetched (SG13)."""
    listing = listed.run("image", "list", "--fields=id,name", "--full", "--no-legend", check=0).lines
    key = next(line.split()[0] for line in listing if "example.com/fat" in line)
    with open(f"{listed.data}/cas/layer/{key}/rootfs/public", "wb") as file:
        file.write(b"q")
    for words in (
        ("prepare", "example.com/app"),
        ("image", "render", "example.com/app", f"{listed.base}/out"),
    ):
        refused = listed.run(INSECURE, *words, check=254)
        assert "image hash does not match expected" in refused.stderr
        assert "rkt image verify" in refused.stderr
    assert listed.pods() == {}
    assert trees(listed) == []


def serve_d1(rkt: Rkt, site: Site, images: Images) -> None:
    """The images of row D1: B and the one that the others stand on in the store, A, C, D and E on the server."""
    host = {"os": "linux", "arch": ARCH}
    base = site.name("inspect")
    fetch(rkt, images.busybox(base, file=base.replace("/", "-"), files={"who": b"inspect"}))
    write_aci(f"{rkt.base}/b.aci", None, name=site.name("b"), files={"b": b"b", "who": b"b"})
    fetch(rkt, f"{rkt.base}/b.aci")
    e = dependency(site.name("e"), labels=[{"name": "version", "value": "1"}])
    b = dependency(site.name("b"))
    site.image(
        rkt, "a", files={"a": b"a"}, dependencies=[b, dependency(site.name("c")), dependency(site.name("d"))]
    )
    site.image(rkt, "c", files={"c": b"c", "who": b"c"}, dependencies=[b, e], labels=host)
    site.image(rkt, "d", files={"d": b"d", "who": b"d"}, dependencies=[b, e], labels=host)
    site.image(rkt, "e", files={"e": b"e"}, dependencies=[dependency(base)], labels={**host, "version": "1"})


def downloads(site: Site) -> list[str]:
    """Names of the images that were downloaded, in order of the alphabet: those of one level race."""
    return sorted(
        path[len("/images/")] for path in site.server.paths() if path.endswith(".aci") and "/images/" in path
    )


def test_d1_run(rkt: Rkt, site: Site, images: Images) -> None:
    """Breadth first, each once, what is in the store is not asked for; the app sees the last declared on top."""
    serve_d1(rkt, site, images)
    words = ("--exec=/bin/cat", "--", "/a", "/b", "/c", "/d", "/e", "/who")
    result = rkt.run("--insecure-options=image,tls", "--debug", "run", site.name("a"), *words, check=0)
    assert result.stdout.strip() == "abcded"
    assert downloads(site) == ["a", "c", "d", "e"]
    position = 0
    for line in (
        f'remote fetching from URL "{site.url("/images/a.aci")}"',
        f"using image from local store for image name {site.name('b')}",
        f'remote fetching from URL "{site.url("/images/c.aci")}"',
        f'remote fetching from URL "{site.url("/images/d.aci")}"',
        f"using image from local store for image name {site.name('inspect')}",
    ):
        position = result.stderr.index(line, position)
    again = rkt.run(INSECURE, "run", "--pull-policy=never", site.name("a"), *words, check=0)
    assert again.stdout == result.stdout


def test_d2_fetch(rkt: Rkt, site: Site, images: Images) -> None:
    """``fetch`` brings all of them, and prints one hash; nothing is rendered before it is needed."""
    serve_d1(rkt, site, images)
    result = rkt.run(INSECURE, "fetch", "--pull-policy=new", site.name("a"), check=0)
    assert len(result.lines) == 1
    listed = rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines
    assert {site.name(name) for name in "abcd"} | {f"{site.name('e')}:1", site.name("inspect")} == set(listed)
    assert trees(rkt) == []


def test_a_dependency_without_a_good_signature(rkt: Rkt, site: Site, images: Images) -> None:
    """Each image that comes of discovery needs its own signature."""
    rkt.run("trust", "--root", "--skip-fingerprint-review", images.key_file, check=0)
    signer = (images.ring, images.key)
    labels = {"os": "linux", "arch": ARCH}
    site.image(rkt, "a", signer=signer, dependencies=[dependency(site.name("c"))], labels=labels)
    site.image(rkt, "c", files={"c": b"c"}, labels=labels)
    refused = rkt.run("run", site.name("a"), check=254)
    assert "c.aci.asc" in refused.stderr
    assert rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines.count(site.name("c")) == 0
    site.image(rkt, "c", files={"c": b"c"}, labels=labels, signer=signer)
    rkt.run("fetch", "--pull-policy=new", site.name("a"), check=0)
    assert "NOT VERIFIED" not in rkt.run("image", "list", check=0).stdout


def test_export_stands_alone(listed: Rkt) -> None:
    """What is exported of a pod holds the files of all its images and the new ones, and depends on nothing."""
    listed.run(INSECURE, "run", "example.com/app", check=0)
    (uuid,) = listed.pods()
    listed.run("export", uuid, f"{listed.base}/out.aci", check=0)
    for name in ("example.com/app", "example.com/fat"):
        listed.run("image", "rm", name, check=0)
    fetch(listed, f"{listed.base}/out.aci")
    result = listed.run(
        INSECURE, "run", "example.com/app", "--exec=/bin/cat", "--", "/bin/new", "/public", check=0
    )
    assert result.stdout.split() == ["x", "p"]


def test_pods_made_at_once_share_a_tree(listed: Rkt) -> None:
    """Whoever is first renders it; image gc in between takes it from nobody."""
    started = [listed.popen(INSECURE, "prepare", "example.com/app") for _ in range(6)]
    collector = listed.popen("image", "gc")
    for process in (*started, collector):
        assert process.wait(60) == 0, process.texts()[1]
    assert len(trees(listed)) == 1
    for uuid in listed.pods("prepared"):
        assert "pgone" in listed.run("run-prepared", uuid, check=0).stdout


@pytest.mark.parametrize("flags", [(), ("--no-overlay",)])
def test_a_stage1_may_depend_on_images(rkt: Rkt, images: Images, flags: tuple[str, ...]) -> None:
    """Its programs are found in one rendered tree, whichever image brings them."""
    fetch(rkt, images.busybox())
    make(
        rkt,
        "example.com/stage1-base",
        files={
            "run": (b"#!/bin/sh\necho $$ >pid\nexit 7\n", 0o755),
            "gc": (b"#!/bin/sh\n", 0o755),
            "enter": (b"#!/bin/sh\n", 0o755),
        },
    )
    entrypoints = {"run": "/run", "gc": "/gc", "enter": "/enter", "interface-version": "6"}
    make(
        rkt,
        "example.com/stage1",
        files={"etc/stage1": b""},
        dependencies=[dependency("example.com/stage1-base")],
        annotations=[
            {"name": f"coreos.com/rkt/stage1/{name}", "value": value} for name, value in entrypoints.items()
        ],
    )
    for _ in range(2):
        rkt.run(INSECURE, "run", *flags, "--stage1-name=example.com/stage1", "--net=none", BUSYBOX, check=7)
    (tree,) = trees(rkt)
    assert sorted(os.listdir(f"{rkt.data}/cas/tree/{tree}/rootfs")) == ["enter", "etc", "gc", "run"]


def test_a_killed_rendering_leaves_nothing(listed: Rkt) -> None:
    """A tree is there as a whole or not at all, and what was half made is swept."""
    for delay_ms in (60, 90, 120, 150, 180, 220):
        process = listed.popen(INSECURE, "prepare", "example.com/app")
        time.sleep(delay_ms / 1000)
        process.kill()
        process.wait()
        for tree in trees(listed):
            assert sorted(os.listdir(f"{listed.data}/cas/tree/{tree}")) == ["manifest", "record", "rootfs"]
        listed.run("image", "gc", check=0)
        assert os.listdir(f"{listed.data}/cas/tmp") == []
    assert "pgone" in listed.run(INSECURE, "run", "example.com/app", check=0).stdout
    listed.run("image", "verify", "example.com/app", "example.com/fat", check=0)
