# SPDX-License-Identifier: Apache-2.0
"""``requirements/*.txt``: what ``make install`` copies is all that is needed."""

from __future__ import annotations

import importlib.metadata
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lib.rkt import ROOT
from tools.copy_libraries import required


def _pinned(name: str) -> dict[str, Requirement]:
    return {canonicalize_name(item.name): item for item in required(f"{ROOT}/requirements/{name}.txt")}


def _needed(wanted: list[str]) -> set[str]:
    """The libraries that these requirements lead to, on this interpreter."""
    found: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in found or requirement.extras:
            found.add(name)
            for line in importlib.metadata.requires(name) or ():
                marker = Requirement(line).marker
                if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                    wanted.append(line.partition(";")[0])
    return found


def _declared() -> dict[str, list[str]]:
    with open(f"{ROOT}/pyproject.toml", "rb") as stream:
        project = tomllib.load(stream)["project"]
    return {"runtime": project["dependencies"], **project["optional-dependencies"]}


def test_runtime() -> None:
    """An installation has each library that rkt asks for and what those ask for, and no other."""
    assert set(_pinned("runtime")) == _needed(list(_declared()["runtime"]))


@pytest.mark.parametrize("extra", sorted(_declared().keys() - {"runtime"}))
def test_extra(extra: str) -> None:
    """An extra brings each library that it asks for and what those ask for, and no other."""
    runtime = set(_pinned("runtime"))
    try:
        needed = _needed(list(_declared()[extra]))
    except importlib.metadata.PackageNotFoundError as e:
        pytest.skip(f"the Python library {e.name} is not installed")
    assert set(_pinned(extra)) == needed - runtime
