# SPDX-License-Identifier: Apache-2.0
"""Members of the group ``rkt`` fetch, list and remove images without root (spec cli §1.9, §10.6; runtime A9)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import landlock
from tests.lib.images import fetch
from tests.lib.keys import KeyRing
from tests.lib.members import ALICE, BOB, GROUP, LABELS, Members, read, signed
from tests.lib.server import Authority, Page, Server
from tests.lib.site import Site, write_config
from tests.lib.workers import is_confined, worker

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        landlock.abi() == 0, reason="this kernel has no Landlock, so that members cannot fetch"
    ),
]

NAME = "example.com/app"
HTTP = "--insecure-options=http"
NEVER = "--pull-policy=never"


@pytest.fixture
def members(rkt: Rkt) -> Members:
    """A data directory for members."""
    return Members(rkt)


def key_of(images: Images, path: str) -> str:
    """The key of an image that this factory made."""
    return next(i for p, i in images.ids.items() if os.path.basename(p) == os.path.basename(path))[: 7 + 64]


def run_words(reference: str, *flags: str) -> list[str]:
    """A pod of one image, without a network."""
    return ["run", "--net=none", *flags, reference]


# Rows of the specification


def test_list_after_pods_ran(rkt: Rkt, members: Members, images: Images) -> None:
    """Row I28 of cli, A9 of runtime: ``image list`` works for a member after pods ran with overlay, without, and with user namespaces."""
    path = images.busybox("example.com/listed", ("/bin/true",))
    for flag in ("--no-overlay=false", "--no-overlay", "--private-users"):
        rkt.run("--insecure-options=image", *run_words(path), flag, check=0)
    assert members.names(ALICE) == {"example.com/listed": "NOT VERIFIED"}


def test_gc_is_not_for_members(members: Members) -> None:
    """Row I29 of cli, A9 of runtime: ``image gc`` by a member ends with 254, ``permission denied`` and what to type."""
    result = members.run(ALICE, "image", "gc", check=254)
    assert "permission denied" in result.stderr
    assert "hint: sudo rkt image gc" in result.stderr


@pytest.mark.parametrize("by", ["name", "hash"])
def test_removing_what_root_fetched(rkt: Rkt, members: Members, images: Images, by: str) -> None:
    """Row I30 of cli, A9 of runtime: a member removes an image of root's: gone from all lists, and from disk with root's next gc."""
    path = images.busybox("example.com/theirs", ("/bin/true",))
    key = fetch(rkt, path)
    result = members.run(ALICE, "image", "rm", "example.com/theirs" if by == "name" else key, check=0)
    assert f'successfully removed aci for image: "{key_of(images, path)}"' in result.stdout
    assert "rm: 1 image(s) successfully removed" in result.stderr
    for uid in (ALICE, BOB, 0):
        assert members.names(uid) == {}
    assert members.run(ALICE, "image", "rm", key).status == 254
    assert rkt.run("image", "gc", "--dry-run", check=0).lines == [
        f'would remove aci for image: "{key_of(images, path)}"'
    ]
    result = rkt.run("image", "gc", check=0)
    assert result.lines == [f'successfully removed aci for image: "{key_of(images, path)}"']
    assert members.records() == []
    assert os.listdir(os.path.join(rkt.data, "cas", "layer")) == []
    assert os.listdir(os.path.join(members.home(ALICE), "cas", "removal")) == []


def test_fetch_and_remove_ones_own(rkt: Rkt, members: Members, images: Images) -> None:
    """Row I31 of cli, A9 of runtime: a member fetches a file, sees it pending, and removes it; nothing of it stays."""
    members.trust(images)
    path = signed(images, members)
    result = members.run(ALICE, "fetch", "--full", path, check=0)
    key = key_of(images, path)
    assert result.lines == [key]
    assert "signature verified" in result.stderr
    assert members.kept(ALICE) == [key, f"{key}.asc"]
    assert members.records() == []
    for uid in (ALICE, BOB, 0):
        assert members.names(uid) == {f"{NAME}:1.0": "pending"}
    result = members.run(ALICE, "image", "rm", NAME, check=0)
    assert result.lines == [f'successfully removed aci for image: "{key}"']
    assert members.kept(ALICE) == []
    assert members.names(ALICE) == {}
    assert rkt.run(*run_words(NAME), NEVER).status == 254


# From the member's fetch to root's pod


@pytest.mark.parametrize("by", ["name", "hash", "short hash", "pod manifest", "fetch"])
def test_root_takes_it(rkt: Rkt, members: Members, images: Images, by: str) -> None:
    """Root's next command that names it, by name, hash or in a pod manifest, judges it and takes it; asked for once."""
    members.trust(images)
    path = signed(images, members)
    key = key_of(images, path)
    members.run(ALICE, "fetch", path, check=0)
    os.unlink(path)
    words = run_words({"name": NAME, "short hash": key[:20]}.get(by, key), NEVER)
    if by == "pod manifest":
        manifest = {
            "acVersion": "0.8.11",
            "acKind": "PodManifest",
            "apps": [
                {
                    "name": "app",
                    "image": {"id": images.ids[next(p for p in images.ids if p.endswith("app-member.aci"))]},
                    "app": {"exec": ["/bin/echo", "hello"], "user": "0", "group": "0"},
                }
            ],
        }
        with open(os.path.join(rkt.base, "pod.json"), "w", encoding="ascii") as file:
            json.dump(manifest, file)
        words = ["run", "--net=none", f"--pod-manifest={rkt.base}/pod.json"]
    result = rkt.run("fetch", key, check=0) if by == "fetch" else rkt.run(*words, check=0)
    assert f"using image {key[:39]} ({NAME}:1.0), fetched by user {ALICE}" in result.stderr
    assert by == "fetch" or "hello" in result.stdout
    assert members.names() == {f"{NAME}:1.0": "openpgp"}
    assert members.kept(ALICE) == []
    again = rkt.run(*run_words(NAME, NEVER), check=0)
    assert "fetched by user" not in again.stderr
    # What root has, a member gets from there.
    assert members.run(ALICE, "fetch", "--pull-policy=new", NAME, check=0).lines == [key[:39]]
    assert members.kept(ALICE) == []


@pytest.mark.parametrize("by", ["name", "url"])
def test_by_name_and_url_from_a_server(
    rkt: Rkt, members: Members, images: Images, authority: Authority, by: str
) -> None:
    """A member fetches by discovery or by URL over https; root's run of the same reference asks no server."""
    with Site(authority) as site:
        site.configure(rkt)
        os.chmod(os.path.join(rkt.local, "fetch.d", f"{site.host}.json"), 0o644)
        for path in (authority.directory, authority.root):
            os.chmod(path, 0o755)
        members.trust(images, site.host)
        with open(images.busybox(), "rb") as file:
            busybox = file.read()
        assert busybox
        url = site.image(rkt, labels=LABELS, signer=(images.ring, images.key))
        site.discoverable("/app", f"{site.name()} {site.url('/images/app.{ext}')}")
        reference = site.name() if by == "name" else url
        key = members.run(ALICE, "fetch", reference, check=0).lines[0]
        assert members.names(BOB) == {f"{site.name()}:1.0": "pending"}
        # Nothing changed, so nothing is sent again.
        asked = len(site.server.requests)
        assert members.run(ALICE, "fetch", "--pull-policy=new", reference, check=0).lines == [key]
        assert len(site.server.requests) == asked
        result = rkt.run("prepare", reference, check=0)
        assert len(site.server.requests) == asked, site.server.paths()
        assert f"fetched by user {ALICE}" in result.stderr
        assert members.names() == {f"{site.name()}:1.0": "openpgp"}
        rkt.run("prepare", reference, check=0)
        assert len(site.server.requests) == asked


def test_a_url_stands_for_names_of_its_host_only(rkt: Rkt, members: Members, images: Images) -> None:
    """Whatever a member fetched from a URL, root takes nothing for that URL whose name belongs to another host."""
    members.trust(images)
    path = signed(images, members)
    with Server() as server:
        url = server.put("/app.aci", read(path))
        server.put("/app.aci.asc", read(f"{path}.asc"))
        members.run(ALICE, HTTP, "fetch", url, check=0)
        asked = len(server.requests)
        result = rkt.run(HTTP, "prepare", url, check=0)
        assert len(server.requests) > asked
    assert "fetched by user" not in result.stderr


def test_updates_come_from_the_server(
    rkt: Rkt, members: Members, images: Images, authority: Authority
) -> None:
    """With the policy update root asks the server, whatever members have."""
    with Site(authority) as site:
        site.configure(rkt)
        members.trust(images, site.host)
        path = signed(images, members, site.name(), file="from-a-site")
        members.run(ALICE, "fetch", path, check=0)
        result = rkt.run("fetch", site.name(), check=254)
        assert "fetched by user" not in result.stderr
        assert site.server.requests


def test_etag_and_resume(members: Members, images: Images) -> None:
    """A download that broke goes on, and a second fetch of what did not change transfers nothing."""
    members.trust(images)
    path = signed(images, members)
    data = read(path)
    with Server() as server:
        page = Page(data, truncate=len(data) // 2, ranges=True, headers={"ETag": '"1"'})
        url = server.put("/app.aci", page)
        server.put("/app.aci.asc", read(f"{path}.asc"))
        page.first = []
        result = members.run(ALICE, HTTP, "fetch", url)
        assert result.status in {0, 254}
        page.truncate = None
        members.run(ALICE, HTTP, "fetch", url, check=0)
        assert server.sent["/app.aci"] <= len(data) * 1.1
        sent = server.sent["/app.aci"]
        assert members.run(ALICE, HTTP, "fetch", url, check=0).lines == [key_of(images, path)[:39]]
        assert server.sent["/app.aci"] == sent


def test_dependencies(rkt: Rkt, members: Members, images: Images) -> None:
    """What an image depends on is fetched with it and taken with it, each judged by itself."""
    members.trust(images)
    base = signed(images, members, "example.com/base")
    top = images.busybox(
        "example.com/top",
        ("/bin/echo", "hello"),
        labels=LABELS,
        dependencies=[{"imageName": "example.com/base", "labels": [{"name": "version", "value": "1.0"}]}],
    )
    top = members.publish(images, top)
    members.run(ALICE, "fetch", base, check=0)
    members.run(ALICE, "fetch", "--pull-policy=new", top, check=0)
    assert members.names() == {"example.com/base:1.0": "pending", "example.com/top:1.0": "pending"}
    result = rkt.run(*run_words("example.com/top", NEVER), check=0)
    assert "hello" in result.stdout
    assert result.stderr.count("fetched by user") == 2
    assert set(members.names().values()) == {"openpgp"}


def test_several_at_once(members: Members, images: Images) -> None:
    """Several images of one command are fetched by processes of their own, as by root, and printed in their order."""
    members.trust(images)
    paths = [signed(images, members, f"example.com/several{number}") for number in range(3)]
    result = members.run(ALICE, "fetch", "--full", *paths, check=0)
    assert result.lines == [key_of(images, path) for path in paths]
    assert len(members.kept(ALICE)) == 6
    assert os.listdir(os.path.join(members.home(ALICE), "cas", "tmp")) == []


# Verification


def test_a_missing_key_is_noticed_by_the_member(members: Members, images: Images) -> None:
    """A member's fetch is judged with the trusted keys; without one nothing is kept."""
    path = signed(images, members)
    result = members.run(ALICE, "fetch", path, check=254)
    assert "signature made by unknown entity" in result.stderr
    assert members.kept(ALICE) == []
    assert members.names(ALICE) == {}


def test_root_judges_again(rkt: Rkt, members: Members, images: Images) -> None:
    """A key that was removed after the member's fetch keeps root from taking the image; once trusted again, it is taken."""
    members.trust(images)
    path = signed(images, members)
    members.run(ALICE, "fetch", path, check=0)
    members.distrust()
    for reference in (NAME, key_of(images, path)):
        result = rkt.run(*run_words(reference, NEVER), check=254)
        assert "signature made by unknown entity" in result.stderr
    assert key_of(images, path) not in members.records()
    assert members.names() == {f"{NAME}:1.0": "pending"}
    members.trust(images)
    rkt.run(*run_words(NAME, NEVER), check=0)


def test_never_without_verification(rkt: Rkt, members: Members, images: Images) -> None:
    """With ``--insecure-options=image`` a member fetches nothing, and root uses nothing that a member fetched."""
    members.trust(images)
    path = signed(images, members)
    result = members.run(ALICE, "--insecure-options=image", "fetch", path, check=254)
    assert "root takes verified images only" in result.stderr
    members.run(ALICE, "fetch", path, check=0)
    for reference in (NAME, key_of(images, path)):
        result = rkt.run("--insecure-options=image", *run_words(reference, NEVER), check=254)
        assert "fetched by user" not in result.stderr
    assert members.names() == {f"{NAME}:1.0": "pending"}


# The worker, and what it may know


def test_the_worker_of_a_member(rkt: Rkt, members: Members, images: Images) -> None:
    """It has the member's user, no capability, ``NoNewPrivs: 1`` and ``Seccomp: 2``."""
    members.trust(images)
    with Server() as server:
        server.put("/app.aci.asc", images.ring.sign(images.key, b"x"))
        url = server.put("/app.aci", Page(b"x" * 10000, stall=5000))
        process = members.start(ALICE, HTTP, "fetch", url)
        try:
            seen = worker("rkt-fetch", process.pid, is_confined)
        finally:
            process.kill()
            process.communicate()
    assert seen.status["NoNewPrivs"] == "1"
    assert seen.ids("Uid") == {ALICE}
    assert {seen.capabilities(name) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert not seen.environment & {f"HOME={rkt.home}".encode()}


@pytest.mark.parametrize("readable", [False, True])
def test_credentials_are_those_the_member_may_read(
    rkt: Rkt, members: Members, images: Images, authority: Authority, readable: bool
) -> None:
    """Credentials of root's are neither sent nor an error for a member; those for the group are sent."""
    members.trust(images)
    path = signed(images, members)
    with Site(authority) as site:
        site.configure(rkt)
        os.chmod(os.path.join(rkt.local, "fetch.d", f"{site.host}.json"), 0o644)
        for name in (authority.directory, authority.root):
            os.chmod(name, 0o755)
        file = write_config(
            rkt,
            "auth.d/site.json",
            {
                "rktKind": "auth",
                "domains": [site.host],
                "type": "oauth",
                "credentials": {"token": "sesame"},
            },
        )
        if readable:
            os.chown(file, 0, GROUP)
            os.chmod(file, 0o640)
        site.server.put("/app.aci", Page(read(path), authorization="Bearer sesame"))
        site.server.put("/app.aci.asc", read(f"{path}.asc"))
        result = members.run(ALICE, "fetch", site.url("/app.aci"))
        assert result.status == (0 if readable else 254), result
        sent = {r.headers.get("Authorization") for r in site.server.requests}
        assert sent == ({"Bearer sesame"} if readable else {None})


# Who may what


def test_trust_by_discovery(rkt: Rkt, members: Members, images: Images, authority: Authority) -> None:
    """Who may write to the key store trusts keys by discovery without being root."""
    with Site(authority) as site:
        site.configure(rkt)
        os.chmod(os.path.join(rkt.local, "fetch.d", f"{site.host}.json"), 0o644)
        for path in (authority.directory, authority.root):
            os.chmod(path, 0o755)
        os.chown(rkt.local, BOB, BOB)
        site.server.put("/key.asc", read(images.key_file))
        site.discoverable("/app", f"{site.host} {site.url('/key.asc')}", kind="ac-discovery-pubkeys")
        words = ("trust", f"--prefix={site.name()}", "--skip-fingerprint-review")
        members.run(BOB, *words, check=0, member=False)
        directory = os.path.join(rkt.local, "trustedkeys", "prefix.d", *site.name().split("/"))
        assert os.listdir(directory) == [images.key.fingerprint]


def test_strangers(rkt: Rkt, members: Members, images: Images) -> None:
    """Who is not in the group is told which group to join, and sees nothing."""
    members.trust(images)
    path = signed(images, members)
    for words in (("fetch", path), ("image", "rm", NAME)):
        result = members.run(ALICE, *words, check=254, member=False)
        assert "cannot run as unprivileged user" in result.stderr
        assert "join the group rkt: sudo usermod --append --groups=rkt" in result.stderr
    assert os.listdir(members.incoming) == []
    result = members.run(ALICE, "run", path, check=254)
    assert result.stderr.startswith("run: cannot run as unprivileged user\n")


def test_other_members_images(rkt: Rkt, members: Members, images: Images) -> None:
    """A member sees what another fetched and cannot remove it; root can."""
    members.trust(images)
    path = signed(images, members)
    members.run(ALICE, "fetch", path, check=0)
    assert members.names(BOB) == {f"{NAME}:1.0": "pending"}
    result = members.run(BOB, "image", "rm", NAME, check=254)
    assert f"was fetched by user {ALICE}, who alone can remove it, and root" in result.stderr
    assert len(members.kept(ALICE)) == 2
    result = rkt.run("image", "rm", NAME, check=0)
    assert result.lines == [f'successfully removed aci for image: "{key_of(images, path)}"']
    assert members.names(BOB) == {}
    assert members.kept(ALICE) == []


@pytest.mark.parametrize("verb", ["cat-manifest", "verify", "export", "render", "extract"])
def test_what_cannot_be_done_with_a_pending_image(
    rkt: Rkt, members: Members, images: Images, verb: str
) -> None:
    """Commands on stored images say that it is pending, who fetched it, and what makes it an image."""
    members.trust(images)
    path = signed(images, members)
    members.run(ALICE, "fetch", path, check=0)
    more = () if verb in {"cat-manifest", "verify"} else (f"{rkt.base}/out",)
    result = rkt.run("image", verb, NAME, *more, check=254)
    key = key_of(images, path)[:39]
    assert f"image {key} is pending: user {ALICE} fetched it" in result.stderr
    assert f"hint: sudo rkt fetch {key}" in result.stderr


def test_pending_images_in_json(rkt: Rkt, members: Members, images: Images) -> None:
    """In JSON a pending image has the members of every image, and ``pending`` and ``uid``; others have neither."""
    members.trust(images)
    rkt.run("fetch", signed(images, members, "example.com/roots"), check=0)
    members.run(ALICE, "fetch", signed(images, members), check=0)
    rows = {row["name"]: row for row in json.loads(rkt.run("image", "list", "--format=json", check=0).stdout)}
    ours, roots = rows[f"{NAME}:1.0"], rows["example.com/roots:1.0"]
    assert set(ours) - set(roots) == {"pending", "uid"}
    assert (ours["pending"], ours["uid"], ours["verdict"]["kind"]) == (True, ALICE, "pending")
    assert not set(roots) - set(ours)


# Removal of root's images


def test_a_pod_keeps_what_a_member_removed(rkt: Rkt, members: Members, images: Images) -> None:
    """An image that a prepared pod needs leaves the lists at once and the disk only when no pod needs it."""
    members.trust(images)
    rkt.run("fetch", signed(images, members), check=0)
    uuid = rkt.run("prepare", NAME, check=0).lines[0]
    members.run(ALICE, "image", "rm", NAME, check=0)
    assert members.names(BOB) == {}
    rkt.run("image", "gc", check=0)
    assert len(members.records()) == 2
    assert "hello" in rkt.run("run-prepared", "--net=none", uuid, check=0).stdout
    rkt.run("rm", uuid, check=0)
    rkt.run("image", "gc", check=0)
    assert NAME not in rkt.run("image", "list", check=0).stdout
    assert len(members.records()) == 1


@pytest.mark.parametrize("how", ["used", "fetched", "fetched by the member"])
def test_what_is_wanted_again_stays(rkt: Rkt, members: Members, images: Images, how: str) -> None:
    """An image that is used or fetched after a member removed it is in the lists again, and stays."""
    members.trust(images)
    path = signed(images, members)
    rkt.run("fetch", path, check=0)
    members.run(ALICE, "image", "rm", NAME, check=0)
    if how == "used":
        rkt.run(*run_words(NAME), check=0)
    elif how == "fetched":
        rkt.run("fetch", path, check=0)
    else:
        members.run(ALICE, "fetch", path, check=0)
        assert members.kept(ALICE) == []
    assert members.names(BOB) == {f"{NAME}:1.0": "openpgp"}
    rkt.run("image", "gc", check=0)
    assert members.names(BOB) == {f"{NAME}:1.0": "openpgp"}


@pytest.mark.parametrize("verb", ["fetch", "image rm"])
def test_other_commands_take_what_members_removed(
    rkt: Rkt, members: Members, images: Images, verb: str
) -> None:
    """Root's next fetch or ``image rm`` of something else removes from disk what a member removed."""
    members.trust(images)
    other = signed(images, members, "example.com/other")
    for path in (signed(images, members), *([other] if verb == "image rm" else [])):
        rkt.run("fetch", path, check=0)
    members.run(ALICE, "image", "rm", NAME, check=0)
    rkt.run(*verb.split(), other if verb == "fetch" else "example.com/other", check=0)
    left = [key_of(images, other)] if verb == "fetch" else []
    assert members.records() == left


def test_stage1_images_stay(rkt: Rkt, members: Members, images: Images) -> None:
    """A member cannot remove a stage1 image of the installation."""
    path = images.busybox("example.com/listed", ("/bin/true",))
    rkt.run("--insecure-options=image", *run_words(path), check=0)
    before = members.records()
    result = members.run(ALICE, "image", "rm", "coreos.com/rkt/stage1-ns", check=254)
    assert "is a stage1 image, which root's pods start with" in result.stderr
    rkt.run("image", "gc", check=0)
    assert members.records() == before


# Bounds


def test_the_share_of_a_user(members: Members, images: Images) -> None:
    """A member who has as many images as one may have is told which one to remove."""
    members.trust(images)
    path = signed(images, members)
    members.run(ALICE, "fetch", path, check=0)
    directory = os.path.join(members.home(ALICE), "cas", "record")
    for number in range(63):
        with open(os.path.join(directory, f"sha512-{number:064x}"), "wb"):
            pass
    other = signed(images, members, "example.com/other")
    result = members.run(ALICE, "fetch", other, check=254)
    assert f"user {ALICE} may have 64 images" in result.stderr
    assert f"hint: rkt image rm {key_of(images, path)[:39]} removes the largest of yours" in result.stderr
    os.unlink(os.path.join(directory, f"sha512-{0:064x}"))
    members.run(ALICE, "fetch", other, check=0)


def test_a_signature_by_another_key_is_refused(members: Members, images: Images) -> None:
    """A member's fetch refuses an image that somebody signed who is not trusted for it."""
    members.trust(images)
    path = signed(images, members)
    with KeyRing() as ring, open(f"{path}.asc", "wb") as file:
        file.write(ring.sign(ring.make("mallory@example.com"), read(path)))
    result = members.run(ALICE, "fetch", path, check=254)
    assert "unknown entity" in result.stderr
