# SPDX-License-Identifier: Apache-2.0
"""What processors are called."""

from __future__ import annotations

import pytest

from rkt.image.oci_compose import config_of_appc
from rkt.schema.appc import PLATFORMS, ImageManifest
from rkt.schema.architectures import appc_name, appc_name_of, oci_names
from rkt.schema.oci import Platform
from rkt.values import ACIdentifier


@pytest.mark.parametrize("arch", PLATFORMS["linux"])
def test_every_word_of_appc_survives_a_change_of_format(arch: str) -> None:
    """An ACI for any processor becomes an image for the same one, and that an ACI for the same one again."""
    config = config_of_appc(
        ImageManifest(name=ACIdentifier("example.com/a"), labels={"os": "linux", "arch": arch})
    )
    platform = Platform(
        os=config["os"], architecture=config["architecture"], variant=config.get("variant", "")
    )
    assert platform == platform.normalized()
    assert appc_name_of(platform.architecture, platform.variant) == arch


@pytest.mark.parametrize(
    ("machine", "appc", "oci"),
    [
        ("x86_64", "amd64", ("amd64", "")),
        ("i486", "i386", ("386", "")),
        ("aarch64", "aarch64", ("arm64", "")),
        ("aarch64_be", "aarch64_be", ("arm64be", "")),
        ("armv6l", "armv6l", ("arm", "v6")),
        ("armv8l", "armv7l", ("arm", "v7")),
        ("loongarch64", "loongarch64", ("loong64", "")),
        ("riscv64", "riscv64", ("riscv64", "")),
    ],
)
def test_machines(machine: str, appc: str, oci: tuple[str, str]) -> None:
    """What uname(2) says has a name in each of the two worlds."""
    assert appc_name(machine) == appc
    assert oci_names(machine) == oci
