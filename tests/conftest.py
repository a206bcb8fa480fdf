# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everybody: the built engine, private directories, small images."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib import flavors
from tests.lib import rkt as rkt_library
from tests.lib.images import Images
from tests.lib.pace import SLOWNESS
from tests.lib.server import Authority
from tests.lib.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Variables that say what fuzzing, and faults and power cuts, choose.
SEEDS = ("RKT_FUZZ_SEED", "RKT_TEST_FAULTS_SEED")


def pytest_configure() -> None:
    """Engines start with the default disposition of signals, also where the tests run under nohup or in the background.

    One seed is chosen for all that is random, before there are other processes of pytest.
    """
    for name in SEEDS:
        os.environ.setdefault(name, str(random.SystemRandom().randrange(1, 1 << 31)))
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """With which seed what is random can be repeated."""
    return f"seeds: {' '.join(f'{name}={os.environ[name]}' for name in SEEDS)}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of pods run with each flavour of stage1."""
    flavors.generate(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A slow host gets more time, and tests marked ``root`` say why they are skipped for others."""
    flavors.select(config, items)
    if SLOWNESS > 1:
        for item in items:
            marker = item.get_closest_marker("timeout")
            seconds = marker.args[0] if marker else float(item.config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(seconds * SLOWNESS), append=False)
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def rkt_binary() -> str:
    """Path of ``bin/rkt``."""
    stage1 = os.path.join(rkt_library.ROOT, "build", "stage1", "stage1.json")
    for path in (rkt_library.BINARY, stage1):
        if not os.path.exists(path):
            pytest.fail(f"{path} is missing: run make setup", pytrace=False)
    return rkt_library.BINARY


@pytest.fixture(scope="module")
def flavor(request: pytest.FixtureRequest) -> str:
    """The flavour of stage1 that pods get: see ``tests/lib/flavors.py``."""
    return str(getattr(request, "param", flavors.DEFAULT))


@pytest.fixture(scope="module")
def module_rkt(rkt_binary: str, flavor: str) -> Iterator[rkt_library.Rkt]:
    """An engine that the tests of one file share, for rows that look at one pod; what it leaves fails the last of them."""
    engine = rkt_library.Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor=flavor)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def rkt(rkt_binary: str, flavor: str) -> Iterator[rkt_library.Rkt]:
    """An engine of its own; at the end everything it left on the host fails the test."""
    engine = rkt_library.Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor=flavor)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """Small images with busybox, each made once."""
    with tempfile.TemporaryDirectory(prefix="rkt-images-") as directory:
        factory = Images(directory)
        try:
            yield factory
        finally:
            factory.close()


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """A private root."""
    made = Authority()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def site(rkt: rkt_library.Rkt, authority: Authority) -> Iterator[Site]:
    """A host whose root is configured; its pages of some names lead to /images/NAME.aci."""
    with Site(authority) as running:
        running.configure(rkt)
        running.lead_to_images("app", *"abcde")
        yield running
