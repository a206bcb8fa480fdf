# SPDX-License-Identifier: Apache-2.0
"""One set of tests for the pods of every flavour of stage1, and what each flavour promises.

A file of tests of pods says so, and what all of them need; a test adds what it needs beyond that:

    pytestmark = [pytest.mark.root, pods()]

    @pods("probes")
    def test_…

The fixtures ``rkt`` and ``module_rkt``, and every engine that is given the fixture ``flavor``, then run once with each flavour; where one
does not promise what the test is about, the skip names it. Which flavours: ``RKT_TEST_FLAVORS=ns,nspawn``, or all with ``make
test-flavors``. Without, as in ``make test``, ``ns`` runs everything and the others what is marked ``representative``.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from rkt.stage0 import contract
from tests.lib import host
from tools.build_stage1 import read_manifest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: The default, which promises everything.
DEFAULT = "ns"
_VARIABLE = "RKT_TEST_FLAVORS"
#: Its value for every flavour.
ALL = "all"
#: Programs that a flavour needs of the host.
PROGRAMS = {"nspawn": ("systemd-nspawn",)}

#: What tests are about -> what an image says by this word that it does not enforce. What is in neither table every flavour has:
#: programs, arguments, environment, working directory, users, roots, volumes, exit statuses, verified images.
ENFORCED = {
    "several apps": "several-apps",
    "supervision": "logs",  # statuses of apps, logs, stop time: elsewhere the process is the app
    "namespaces": "processes",  # of processes, IPC, host name
    "networks": "network",
    "cgroups": "memory",  # limits; a cgroup that is frozen, looked at and ended every pod has
    "confinement": "confinement",  # capabilities, filter, no_new_privs, masks
    "own devices": "devices",
    "user namespaces": "users",
    "event handlers": "event-handlers",
    "sysctls": "sysctls",
}
#: What else is not everywhere -> where it is.
OTHERS = {
    "own terminals": ("ns", "nspawn"),  # else an interactive app has the operator's
    "masks": ("ns", "nspawn"),  # /proc and /sys
    "socket activation": ("ns", "nspawn"),
    "locked masks": ("ns",),  # for an app in a user namespace that may mount, too
    "powerless pid 1": ("ns",),  # and whose namespaces are its user namespace's; elsewhere it is systemd
    "any word": ("ns",),  # for the name of a variable, quotes in the path of a program
    # Empty ones for mount points; and volumes are recursive without a word.
    "implicit volumes": ("ns", "nspawn"),
}
#: What a flavour's image declares to stage0, which refuses pods that need it elsewhere -> by which annotation.
DECLARED = {
    "apps that come and go": contract.ANNOTATION_APP_ADD,
    "streams": contract.ANNOTATION_ATTACH,
    "updates": contract.ANNOTATION_APP_UPDATE,
    "restart policies": contract.ANNOTATION_RESTARTS,
    "probes": contract.ANNOTATION_PROBES,
    "log options": contract.ANNOTATION_LOGS,
    "egress": contract.ANNOTATION_EGRESSES,
}


def pods(*promises: str) -> pytest.MarkDecorator:
    """Mark tests of pods that need these of a flavour."""
    unknown = set(promises) - {*ENFORCED, *OTHERS, *DECLARED}
    if unknown:
        raise ValueError(f"no such promise: {', '.join(sorted(unknown))}")
    return pytest.mark.pods(*promises)


def built() -> dict[str, dict[str, str]]:
    """The flavours of this tree, the default first, and what ``stage1.json`` says of each."""
    try:
        with open(os.path.join(ROOT, "build", "stage1", "stage1.json"), "rb") as stream:
            images: dict[str, dict[str, str]] = json.load(stream)["images"]
    except FileNotFoundError:
        return {DEFAULT: {}}
    return dict(sorted(images.items(), key=lambda each: each[0] != DEFAULT))


def chosen() -> list[str]:
    """The flavours that tests of pods run with.

    Raises:
        UsageError: one of those that are asked for is not there.
    """
    there = list(built())
    text = os.environ.get(_VARIABLE, "")
    asked = [name for name in text.split(",") if name and text != ALL]
    if unknown := set(asked) - set(there):
        raise pytest.UsageError(
            f"{_VARIABLE}: {', '.join(sorted(unknown))} not built, there are {', '.join(there)}"
        )
    return [name for name in there if name in asked] if asked else there


def configure(system: str, flavor: str) -> None:
    """Make a flavour the one that pods get, in a system configuration directory."""
    if flavor == DEFAULT:
        return
    image = built()[flavor]
    os.makedirs(f"{system}/stage1.d")
    with open(f"{system}/stage1.d/flavor.json", "w", encoding="ascii") as stream:
        json.dump(
            {"rktKind": "stage1", "rktVersion": "v1", "name": image["name"], "version": image["version"]},
            stream,
        )


def generate(metafunc: pytest.Metafunc) -> None:
    """Run a test of pods once with each flavour."""
    if "flavor" in metafunc.fixturenames and metafunc.definition.get_closest_marker("pods"):
        metafunc.parametrize("flavor", chosen(), indirect=True, scope="module")


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for another time, and skip what a flavour does not promise or the host lacks."""
    left_out = []
    for item in items:
        flavor = flavor_of(item)
        if flavor == DEFAULT:
            continue
        if not os.environ.get(_VARIABLE) and not item.get_closest_marker("representative"):
            left_out.append(item)
        elif reason := reason_against(item, flavor):
            item.add_marker(pytest.mark.skip(reason=reason))
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def flavor_of(item: pytest.Item) -> str:
    """The flavour that a test runs with."""
    callspec: Any = getattr(item, "callspec", None)
    return callspec.params.get("flavor", DEFAULT) if callspec is not None else DEFAULT


def has_promised(flavor: str, promise: str) -> bool:
    """Whether a flavour has what a test is about."""
    if promise in OTHERS:
        return flavor in OTHERS[promise]
    annotations = {each["name"]: each["value"] for each in read_manifest(flavor)[0]["annotations"]}
    if promise in DECLARED:
        return DECLARED[promise] in annotations
    return ENFORCED[promise] not in annotations.get(contract.ANNOTATION_NOT_ENFORCED, "").split(",")


def reason_against(item: pytest.Item, flavor: str) -> str:
    """Why a test cannot run with a flavour; empty if it can."""
    needed = {promise for marker in item.iter_markers("pods") for promise in marker.args}
    if broken := sorted(promise for promise in needed if not has_promised(flavor, promise)):
        return f"{flavor} does not promise {', '.join(broken)}"
    return host.missing(*PROGRAMS.get(flavor, ()))
