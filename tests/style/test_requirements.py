# SPDX-License-Identifier: Apache-2.0
"""``requirements/*.txt``: what ``make install`` copies is all that is needed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lib.rkt import ROOT
from tests.lib.tree import read_text
from tools.copy_libraries import required, requirement_lines
from tools.sbom import license_expression

_PERMISSIVE = {"MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "Unlicense"}
_WEAK_COPYLEFT = {"MPL-2.0"}
FILES = sorted(os.listdir(f"{ROOT}/requirements"))


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


def _problems(text: str) -> list[str]:
    """What is wrong with the requirements of a file: each must have one version, and digests of its files."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line or line.startswith(("#", "-r ")):
            continue
        words, *hashes = re.split(r"\s+--hash=", line)
        if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", words.strip()):
            found.append(f"not an exact version: {words}")
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes):
            found.append(f"no digests: {words}")
    return found


def _declared() -> dict[str, list[str]]:
    with open(f"{ROOT}/pyproject.toml", "rb") as stream:
        project = tomllib.load(stream)["project"]
    return {"runtime": project["dependencies"], **project["optional-dependencies"]}


@pytest.mark.parametrize("name", FILES)
def test_pinned_and_hashed(name: str) -> None:
    """Every library has an exact version and the digests of the files that may be installed for it."""
    assert not _problems(read_text(f"requirements/{name}"))


def test_what_is_not_pinned_is_found() -> None:
    """A range, and a version without digests, are problems."""
    digest = "0" * 64
    assert not _problems(
        f"# a comment\n-r other.txt\na.b==1.0 ; python_version < '3.14' \\\n  --hash=sha256:{digest}\n"
    )
    assert len(_problems(f"a>=1.0 --hash=sha256:{digest}\nb==1.0\nc==2 --hash=md5:{digest}\n")) == 3


def test_development() -> None:
    """What tests, linters and builds need, and what that needs, is pinned too."""
    with open(f"{ROOT}/pyproject.toml", "rb") as stream:
        groups = tomllib.load(stream)
    wanted = [*groups["dependency-groups"]["dev"], *groups["build-system"]["requires"]]
    lines = [line for name in FILES for line in requirement_lines(f"{ROOT}/requirements/{name}")]
    pinned = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("-r")}
    assert not _needed(wanted) - pinned


@pytest.mark.parametrize("name", FILES)
def test_licenses(name: str) -> None:
    """Each library's metadata names a free licence, and one that allows any use for what an installation brings along."""
    lines = [line for line in requirement_lines(f"{ROOT}/requirements/{name}") if not line.startswith("-r")]
    for requirement in map(Requirement, lines):
        try:
            metadata: Any = importlib.metadata.metadata(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        said = license_expression(metadata)
        allowed = _PERMISSIVE if name == "runtime.txt" else _PERMISSIVE | _WEAK_COPYLEFT
        assert set(re.split(r" OR | AND ", said)) & allowed, f"{requirement.name}: {said}"


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
