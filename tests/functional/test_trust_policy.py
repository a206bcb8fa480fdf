# SPDX-License-Identifier: Apache-2.0
"""One trust policy: from a refusal to a running pod, and back when a rule or a key changes (issue 7)."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lib import cosign, layouts
from tests.lib.registry import LyingRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.layouts import Image
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root

#: Registries of tests have no TLS; nothing else is switched off.
HTTP = "--insecure-options=http"
KEY = cosign.Key()
OTHER_KEY = cosign.Key()


def image_of(created: str) -> Image:
    """An image that says when it was made."""
    path = shutil.which("busybox")
    assert path is not None, "busybox is not installed: run make setup"
    with open(path, "rb") as stream:
        layer = layouts.layer({"bin/busybox": (stream.read(), 0o755)})
    config = {"Cmd": ["/bin/busybox", "echo", created]}
    return layouts.make_image(layer, config=config, created=created)


IMAGE, OLD, NEW = (image_of(f"2024-01-0{day}T00:00:00Z") for day in (2, 1, 3))


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    """One that serves pages, and counts who asks for them."""
    with LyingRegistry() as server:
        yield server


def sign(registry: LyingRegistry, image: Image, key: cosign.Key = KEY) -> None:
    """Sign an image as cosign did before version 3."""
    payload = cosign.payload(image.digest, f"{registry.name}/team/app")
    made = cosign.classic_manifest(key, payload)
    registry.artifact(*made, repository="team/app", tag=cosign.tag_of(image, ".sig"))


def write(rkt: Rkt, name: str, text: str | bytes) -> str:
    """Write a file below the local configuration directory; returns its path."""
    path = os.path.join(rkt.local, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}~", "wb") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())
    os.chmod(f"{path}~", 0o644)
    os.rename(f"{path}~", path)
    return path


def rule(rkt: Rkt, prefix: str, what: str, rest: str = "") -> str:
    """Have one rule; returns its file."""
    text = f'version = 1\ndefault = "keystore"\n[[rule]]\nprefix = "{prefix}"\nall = [ {what} ]\n{rest}'
    return write(rkt, "trust.d/team.toml", text)


def run(rkt: Rkt, reference: str, check: int = 0) -> Result:
    """Run a pod without a network."""
    return rkt.run(HTTP, "run", "--net=none", reference, check=check)


def test_refused_trusted_signed_run_and_refused_again(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 7, 1: unsigned is refused with the command (SG1); with a rule and a signature it runs; without the key it does not (SG12)."""
    reference = f"docker://{registry.image(IMAGE, 'team/app', '1')}"
    prefix = f"{registry.name}/team"
    refused = run(rkt, reference, 254).stderr
    command = refused.partition("hint: rkt ")[2].partition("=FILE")[0]
    assert command == f"trust --prefix={prefix} --cosign-key"
    assert registry.requests == []

    rkt.run(*f"{command}={write(rkt, 'team.pub', KEY.pem)}".split(), check=0)
    key = os.path.join(rkt.local, "trust.d", "keys", "team.pub")
    (path,) = (entry.path for entry in os.scandir(f"{rkt.local}/trust.d") if entry.is_file())
    unsigned = run(rkt, reference, 254).stderr
    assert f"the rule for {prefix} ({path}) asks for a cosign signature by {key}" in unsigned
    sign(registry, IMAGE, OTHER_KEY)
    assert "verification failed" in run(rkt, reference, 254).stderr
    layer = IMAGE.document["layers"][0]["digest"]
    assert not [each.path for each in registry.requests if layer in each.path]

    sign(registry, IMAGE)
    fetched = rkt.run(HTTP, "fetch", reference, check=0).stderr
    assert f"  cosign {KEY.fingerprint} (tag sha256-" in fetched
    registry.requests.clear()
    assert run(rkt, reference).stdout == "2024-01-02T00:00:00Z\n"
    uuid = rkt.run("prepare", reference, check=0).stdout.strip()
    listed = rkt.run("image", "list", "--full", "--no-legend", "--fields=name,verdict", check=0).stdout
    assert f"cosign {KEY.fingerprint} (the rule for {prefix} ({path}))" in listed

    for change in ("key", "gone", "rule"):
        if change == "key":
            write(rkt, "trust.d/keys/team.pub", OTHER_KEY.pem)
        elif change == "gone":
            os.unlink(key)
        else:
            write(rkt, "trust.d/keys/team.pub", KEY.pem)
            other = write(rkt, "other.pub", OTHER_KEY.pem)
            tightened = rule(rkt, prefix, f'{{ kind = "cosign", key = "{other}" }}')
        for words in (["run", "--net=none", reference], ["run-prepared", uuid], ["prepare", IMAGE.digest]):
            stopped = rkt.run(*words, check=254).stderr
            assert f'image "{prefix}/app" is no longer trusted: the rule for {prefix}' in stopped
    os.unlink(tightened)
    assert rkt.run("run-prepared", "--net=none", uuid, check=0).lines == ["2024-01-02T00:00:00Z"]
    assert registry.requests == []


def test_one_image_of_two_names_obeys_the_rules_for_each(rkt: Rkt, registry: LyingRegistry) -> None:
    """What came by a name whose rule asks for nothing is judged anew when it is asked for by one that asks for more (SG2, SG12, SG16)."""
    strict = f"docker://{registry.image(IMAGE, 'team/app', '1')}"
    lax = f"docker://{registry.image(IMAGE, 'lax/app', '1')}"
    key = write(rkt, "keys/team.pub", KEY.pem)
    rule(
        rkt,
        f"{registry.name}/team",
        f'{{ kind = "cosign", key = "{key}" }}',
        f'[[rule]]\nprefix = "{registry.name}/lax"\nany = [ {{ kind = "unsigned" }} ]\n',
    )
    sign(registry, IMAGE)
    run(rkt, strict)
    loud = run(rkt, lax).stderr
    assert f'warning: nobody signed image "{registry.name}/lax/app", the rule for {registry.name}/lax' in loud
    rows = json.loads(rkt.run("image", "list", "--format=json", check=0).stdout)
    (verdict,) = [row["verdict"] for row in rows if row["id"] == IMAGE.digest.replace(":", "-")]
    assert (verdict["kind"], verdict["facts"][0]["kind"]) == ("policy", "unsigned")
    assert "NOT SIGNED" in rkt.run("image", "list", "--no-legend", "--fields=verdict", check=0).stdout
    uuid = rkt.run("prepare", lax, check=0).stdout.strip()
    assert "insecure-options=unsigned" in rkt.run("status", uuid, check=0).lines
    for words in (["--pod", uuid], [lax]):
        told = rkt.run("explain", *words, check=0).stdout
        assert "which nobody signed, the rule for" in told
    # The signature is gone, and with it the right to run by the other name.
    registry.pages.pop(f"/v2/team/app/manifests/{cosign.tag_of(IMAGE, '.sig')}")
    assert "verification failed" in run(rkt, strict, 254).stderr
    assert run(rkt, lax).stdout == "2024-01-02T00:00:00Z\n"


def test_an_older_signed_version_is_refused_or_loud(rkt: Rkt, registry: LyingRegistry) -> None:
    """Issue 7, 3 and SG11: under one tag time goes forward only, unless the rule or a digest says so."""
    key = write(rkt, "keys/team.pub", KEY.pem)
    what = f'{{ kind = "cosign", key = "{key}" }}'
    prefix = f"{registry.name}/team"
    rule(rkt, prefix, what, 'rollback = "refuse"\n')
    for image in (IMAGE, OLD, NEW):
        sign(registry, image)

    def fetch(image: Image, check: int = 0) -> str:
        reference = registry.image(image, "team/app", "1")
        return rkt.run(HTTP, "fetch", f"docker://{reference}", check=check).stderr

    fetch(IMAGE)
    refused = fetch(OLD, 254)
    assert f'image "{prefix}/app:1" is older than what was seen' in refused
    assert f"{prefix}/app@{OLD.digest}" in refused
    rkt.run(HTTP, "fetch", f"docker://{prefix}/app@{OLD.digest}", check=0)
    fetch(NEW)
    rkt.run("image", "rm", NEW.digest, check=0)
    assert "is older than what was seen" in fetch(IMAGE, 254)
    rule(rkt, prefix, what)
    assert f'warning: image "{prefix}/app:1" went back: {OLD.digest}' in fetch(OLD)
