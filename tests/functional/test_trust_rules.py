# SPDX-License-Identifier: Apache-2.0
"""``rkt trust`` writes rules, shows them, and takes them back (docs/trust.md)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def key_file(module_rkt: Rkt) -> str:
    """The file of a vendor's public key."""
    path = f"{module_rkt.base}/team.pub"
    made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "pkey", "-pubout"], input=made.stdout, check=True, capture_output=True
    )
    with open(path, "wb") as stream:
        stream.write(public.stdout)
    return path


def test_one_command_for_a_namespace(module_rkt: Rkt, key_file: str) -> None:
    """One command trusts a vendor's namespace, list shows it with what decides about one image, and rm takes it back."""
    rkt = module_rkt
    command = ("trust", "--prefix=registry.example:5000/team", "--cosign-key=team.pub")
    said = rkt.run(*command, check=0).stderr
    assert "images named registry.example:5000/team or below it need a cosign signature by" in said
    assert "(Ed25519) is in" in said
    assert "says so already" in rkt.run(*command, check=0).stderr
    rkt.run("trust", "--prefix=alpine", "--unsigned", check=0)
    table = rkt.run("trust", "list", check=0).lines
    assert [line.split("\t")[0] for line in table] == [
        "RULE FOR",
        "docker.io/library/alpine",
        "registry.example:5000/team",
        "(all others)",
    ]
    reference = "docker://registry.example:5000/team/web:1"
    rows = json.loads(rkt.run("trust", "list", f"--name={reference}", "--format=json", check=0).stdout)
    rule, default = rows
    assert (rule["kind"], rule["prefix"], rule["counts"]) == ("rule", "registry.example:5000/team", True)
    assert (rule["match"], rule["rollback"]) == ("all", "warn")
    copy = f"{rkt.local}/trust.d/keys/team.pub"
    assert rule["requirements"] == [{"kind": "cosign", "key": copy}]
    assert (default["kind"], default["default"], default["counts"]) == ("default", "keystore", False)
    removed = rkt.run("trust", "rm", "--prefix=registry.example:5000/team", check=0).stderr
    assert f'removed "{copy}"' in removed
    assert "which has the default" in removed
    rkt.run("trust", "rm", "--prefix=docker.io/library/alpine", check=0)
    assert os.listdir(f"{rkt.local}/trust.d") == ["keys"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cosign-key=team.pub",), "--prefix is needed"),
        (("--root", "--cosign-key=team.pub"), "--root is for keys"),
        (("--prefix=a.example", "--any"), "nothing is asked for"),
        (("--prefix=a.example", "--cosign-key=team.pub", "--keystore"), "say --all or --any"),
        (("--prefix=a.example", "--cosign-key=team.pub", "--unsigned"), "--unsigned asks for nothing"),
        (("--prefix=a.example", "--keyless-identity=x"), "--keyless-identity needs --keyless-issuer and"),
        (("--prefix=a.example", "--slsa-builder=x"), "--slsa-builder needs to know who signs"),
        (("--prefix=a.example", "--slsa-key=team.pub"), "--slsa-key needs --slsa-builder"),
        (("--prefix=a.example", "--cosign-key=team.pub", "key.asc"), "a rule takes no PUBKEY"),
    ],
)
def test_flags_that_say_no_rule(module_rkt: Rkt, key_file: str, flags: tuple[str, ...], said: str) -> None:
    """Flags that contradict each other, or lack something, are refused with what to type, and nothing is written."""
    refused = module_rkt.run("trust", *flags, check=254).stderr
    assert said in refused
    assert "hint: " in refused
    assert not os.path.exists(f"{module_rkt.local}/trust.d/a.example.toml")
