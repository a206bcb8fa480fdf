# SPDX-License-Identifier: Apache-2.0
"""``rkt why`` names the cause and the next command, and changes nothing (issue 7, 5)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import cosign
from tests.lib.keys import LONG_AGO
from tests.lib.layouts import layer, make_image
from tests.lib.registry import PLAIN, LyingRegistry, Registry
from tests.lib.site import loopback_address, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
REFUSED = 3


class World:
    """An engine, a registry with images, and a rule for ``team`` of it.

    Attributes:
        name: of the registry.
    """

    def __init__(self, rkt: Rkt, registry: Registry) -> None:
        self.rkt = rkt
        self.name = registry.name
        self.key, other = cosign.Key(), cosign.Key()
        rule = {"rktKind": "registry", "registries": [registry.name], "http": True}
        write_config(rkt, "fetch.d/registry.json", rule)
        with open(f"{rkt.base}/team.pub", "wb") as stream:
            stream.write(self.key.pem)
        rkt.run("trust", f"--prefix={registry.name}/team", "--cosign-key=team.pub", check=0)
        for repository, key in (("team/app", self.key), ("team/forged", other), ("team/bare", None)):
            image = make_image(layer({"bin/app": (repository.encode(), 0o755)}), config={"Cmd": ["/bin/app"]})
            registry.push(repository, image, "1")
            if key is None:
                continue
            signed = cosign.payload(image.digest, f"{registry.name}/{repository}")
            manifest, blobs = cosign.classic_manifest(key, signed)
            for name, data in blobs.items():
                registry.push_blob(repository, name, data)
            registry.push_manifest(repository, cosign.tag_of(image, ".sig"), manifest)

    def reference(self, repository: str, tag: str = "1") -> str:
        """An image of the registry."""
        return f"docker://{self.name}/{repository}:{tag}"

    def why(self, *words: str, status: int = REFUSED) -> dict[str, Any]:
        """The answer as programs get it; nothing of the store changed meanwhile."""
        before = self._listing()
        answer: dict[str, Any] = json.loads(self.rkt.run("why", "--format=json", *words, check=status).stdout)
        assert self._listing() == before
        assert (answer["format"], answer["version"]) == ("rkt.why", 1)
        bad = [step for step in answer["steps"] if step["state"] == "bad"]
        assert bool(bad) == (answer["outcome"] == "refused") == (status == REFUSED)
        assert answer["next"]
        return answer

    def _listing(self) -> set[str]:
        return {
            os.path.join(place, name)
            for place, directories, files in os.walk(self.rkt.data)
            for name in (*directories, *files)
            if "/trust" not in place and name != "trust"
        }


@pytest.fixture(scope="module")
def world(module_rkt: Rkt, authority: Authority) -> Iterator[World]:
    """All of it."""
    with Registry(PLAIN, authority) as registry:
        yield World(module_rkt, registry)


def texts(answer: dict[str, Any], what: str) -> str:
    """What was found of one thing."""
    return "\n".join(step["text"] for step in answer["steps"] if step["what"] == what)


def test_what_nothing_refuses(world: World) -> None:
    """A signed image is allowed before it is fetched, by who signed it, and after; the text begins by the answer."""
    reference = world.reference("team/app")
    answer = world.why(reference, status=0)
    assert answer["outcome"] == "allowed"
    assert world.key.fingerprint in texts(answer, "found")
    assert answer["next"] == [f"rkt fetch {reference}"]
    text = world.rkt.run("why", reference, check=0).stdout
    assert text.startswith(f"{reference}:")
    assert f"next: rkt fetch {reference}\n" in text


def test_unsigned(world: World) -> None:
    """Unsigned: the rule and what it asks for; without a rule, the very command that trusts the namespace, and no server is asked."""
    answer = world.why(world.reference("team/bare"))
    assert answer["cause"] == "cannot-verify"
    assert f"the rule for {world.name}/team" in answer["summary"]
    assert "there is no signature of it" in texts(answer, "found")
    answer = world.why(f"docker://{loopback_address()}:5000/vendor/app")
    assert "no rule covers" in answer["summary"]
    assert answer["next"][0].startswith("rkt trust --prefix=127.")
    assert "/vendor --cosign-key=FILE" in answer["next"][0]
    assert "found" not in {step["what"] for step in answer["steps"]}


def test_wrong_key(world: World) -> None:
    """Signed by another key: the key that is asked for, the file it is in, and where the signature was."""
    answer = world.why(world.reference("team/forged"))
    assert answer["cause"] in {"cannot-verify", "signature-mismatch"}
    assert "trust.d/keys/team.pub" in answer["summary"]
    assert "key" in answer["summary"].partition("team.pub")[2]
    assert f"rkt trust list --name={world.name}/team/forged" in answer["next"]


def test_wrong_prefix(world: World) -> None:
    """A rule for a name that only looks alike is pointed at."""
    answer = world.why(world.reference("teams/app"))
    assert f"a rule for {world.name}/team does not cover {world.name}/teams/app" in answer["summary"]
    assert f"rkt trust --prefix={world.name}/teams" in answer["next"][0]


def test_expired(world: World, images: Images) -> None:
    """A key that has expired is named, with that reason."""
    key = images.ring.make_expired("late@example.com")
    file = images.busybox("example.com/late", file="why-late")
    place = f"{world.rkt.local}/trustedkeys/prefix.d/example.com/late"
    os.makedirs(place)
    with open(f"{place}/{key.fingerprint}", "wb") as stream:
        stream.write(images.ring.export(key))
    with open(f"{file}.asc", "wb") as signature, open(file, "rb") as stream:
        signature.write(images.ring.sign(key, stream.read(), when=LONG_AGO))
    answer = world.why(file)
    assert "expired" in json.dumps(answer)
    assert key.fingerprint in json.dumps(answer)


def test_wrong_name(world: World) -> None:
    """A tag that the registry does not have: it says so, not that something is untrusted."""
    answer = world.why(world.reference("team/app", "nope"))
    assert answer["cause"] == "not-found"
    assert f"registry {world.name} has no team/app:nope" in answer["summary"]


def test_no_network_and_proxy(world: World) -> None:
    """Nobody answers: the address, or the proxy and the file that names it."""
    host = f"{loopback_address()}:5000"
    answer = world.why(INSECURE, f"docker://{host}/a")
    assert answer["cause"] == "network"
    assert "Connection refused" in answer["summary"]
    assert f"curl -v https://{host}/v2/" in answer["next"]
    proxy = f"http://{loopback_address()}:3128"
    config = {"rktKind": "proxy", "hosts": ["proxied.example"], "url": proxy}
    path = write_config(world.rkt, "fetch.d/proxy.json", config)
    answer = world.why(INSECURE, "docker://proxied.example/a")
    assert answer["cause"] == "proxy"
    assert f"by the proxy {proxy} ({path})" in texts(answer, "network")
    assert answer["summary"].startswith(f"proxied.example is not reached by the proxy {proxy}, which {path}")
    assert path in answer["next"][1]
    answer = world.why(INSECURE, "docker://nowhere.invalid/a")
    assert answer["next"] == ["getent hosts nowhere.invalid"]


def test_offline(world: World) -> None:
    """With --offline no server is asked, and the answer says that it is not known."""
    answer = world.why("--offline", world.reference("team/bare"), status=0)
    assert answer["outcome"] == "unknown"
    assert "found" not in {step["what"] for step in answer["steps"]}


def test_private_root(world: World, authority: Authority) -> None:
    """A certificate by a root that nobody configured: the file to write is given, and with it the answer is another."""
    with LyingRegistry(authority) as registry:
        answer = world.why(INSECURE, f"docker://{registry.name}/a")
        assert answer["cause"] == "tls"
        assert f"nobody who counts vouches for the certificate of {registry.name}" in answer["summary"]
        command = answer["next"][0].replace("/PATH/root.pem", authority.root)
        assert f'"hosts":["{registry.name}"]' in command
        subprocess.run(["sh", "-c", command], check=True)
        assert world.why(INSECURE, f"docker://{registry.name}/a")["cause"] != "tls"


def test_full_disk(world: World) -> None:
    """No room: how much is free and where, and what makes room."""
    point = f"{world.rkt.base}/full"
    os.mkdir(point)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", point], check=True)
    try:
        answer = world.why(f"--dir={point}", world.reference("team/app"))
    finally:
        subprocess.run(["umount", point], check=True)
    assert answer["cause"] == "disk"
    assert f"in the file system of {point}" in answer["summary"]
    assert answer["next"] == ["rkt gc", "rkt image gc"]


def test_pods_and_a_damaged_store(world: World) -> None:
    """A prepared pod is allowed; with the rule gone it is refused by name, with the file damaged likewise."""
    rkt, reference = world.rkt, world.reference("team/app")
    uuid = rkt.run("prepare", reference, check=0).lines[0]
    assert world.why(uuid[:8], status=0)["next"] == [f"rkt run-prepared {uuid[:8]}"]
    assert world.why(reference, status=0)["next"] == [f"rkt run {reference}"]
    rkt.run("trust", "rm", f"--prefix={world.name}/team", check=0)
    for words in (uuid, reference):
        answer = world.why(words)
        assert f'image "{world.name}/team/app" is no longer trusted' in answer["summary"]
    rkt.run("trust", f"--prefix={world.name}/team", "--cosign-key=team.pub", check=0)
    (key,) = (name for name in os.listdir(f"{rkt.data}/cas/record") if name.startswith("sha256-"))
    path = f"{rkt.data}/cas/record/{key}"
    with open(path, "r+b") as stream:
        data = stream.read()
        stream.seek(0)
        stream.write(data.replace(b"team", b"tame"))
    answer = world.why(reference)
    assert answer["cause"] == "damaged-record"
    assert path in answer["summary"]
    assert f"rkt image rm {key[:39]} && rkt fetch IMAGE" in answer["next"]
    with open(path, "r+b") as stream:
        stream.write(data)
    rkt.run("run-prepared", uuid)
    answer = world.why(uuid, status=0)
    assert answer["next"] == [f"rkt logs {uuid[:8]}", f"rkt start {uuid[:8]}"]
    assert "ended with status" in texts(answer, "app")
    rkt.run("rm", uuid, check=0)


def test_what_is_no_question(world: World) -> None:
    """A name that breaks the grammar is an answer too; no word is a mistake."""
    assert world.why("docker://Team/App")["cause"] == "usage"
    assert world.why("sha512-0000")["cause"] == "not-found"
    assert "an image or a pod is expected" in world.rkt.run("why", check=254).stderr
