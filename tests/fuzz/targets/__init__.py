# SPDX-License-Identifier: Apache-2.0
"""All targets, one file for each kind of reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.targets import (
    answers,
    archives,
    documents,
    flags,
    layers,
    layouts,
    network,
    nspawn,
    pods,
    references,
    registries,
    streams,
    trust,
)

if TYPE_CHECKING:
    from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        documents,
        references,
        archives,
        layers,
        layouts,
        answers,
        streams,
        trust,
        network,
        registries,
        pods,
        nspawn,
        flags,
    )
    for target in module.TARGETS
}
