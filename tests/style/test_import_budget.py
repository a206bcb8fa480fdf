# SPDX-License-Identifier: Apache-2.0
"""What a hot command may import: docs/devel/start-up.md."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import rkt
from rkt.config.settings import Installation, Settings
from rkt.store.cas import Store
from rkt.store.record import RemoteRow
from rkt.trust.compiled import read_policy
from rkt.trust.verdict import Fact, Verdict
from tests.lib.layers import put_layers
from tests.lib.layouts import layer
from tests.lib.store import INSECURE, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(rkt.__file__)))
STAGE1_IMAGES = os.path.join(os.path.dirname(SOURCE), "build", "stage1")
#: Of the standard library; none of them imports a costly one.
ALLOWED = frozenset(
    {
        "__future__",
        "_collections_abc",
        "_ctypes",
        "_json",
        "_random",
        "_sha2",
        "_sha256",
        "_sha512",
        "_signal",
        "_socket",
        "_stat",
        "_struct",
        "array",
        "ctypes",
        "ctypes._endian",
        "errno",
        "fcntl",
        "gc",
        "genericpath",
        "os",
        "os.path",
        "posixpath",
        "select",
        "stat",
        "struct",
        "termios",
        "time",
        "types",
        "zlib",
    }
)
#: Reports what was imported, also when the process would become stage1.
PROBE = """
import sys
bare = set(sys.modules)
sys.path.insert(0, {source!r})
import os
def report(*_):
    with open(sys.argv[1], "w") as stream:
        stream.write("\\n".join(sorted(set(sys.modules) - bare)))
def stop(*_):
    report()
    os._exit(0)
os.execve = os.execv = stop
from rkt.cli.main import main
from rkt.config.settings import Installation
status = main(
    ["rkt", *sys.argv[2:]],
    Installation(package_path={source!r}, library_paths={libraries!r}, stage1_images_path={images!r}),
)
report()
sys.exit(status)
"""


class Engine:
    """Runs commands on a data directory of their own, and says what they imported."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.flags: tuple[str, ...] = (
            f"--dir={directory}/data",
            f"--local-config={directory}/local",
            f"--system-config={directory}/system",
            "--insecure-options=image",
        )

    def run(self, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
        """The finished process and its modules."""
        libraries = [path for path in sys.path if path.endswith("site-packages")]
        code = PROBE.format(source=SOURCE, libraries=libraries, images=STAGE1_IMAGES)
        report = f"{self.directory}/modules"
        done = subprocess.run(
            [sys.executable, "-IS", "-c", code, report, *self.flags, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        with open(report, encoding="utf-8") as stream:
            imported = set(stream.read().split("\n"))
        os.unlink(report)
        return done, {name for name in imported if name.partition(".")[0] != "rkt"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with an image in its store."""
    engine = Engine(os.fspath(tmp_path_factory.mktemp("budget")))
    put_image(f"{engine.directory}/data", verdict=INSECURE)
    yield engine
    engine.run("rm", *_pods(engine))


def _pods(engine: Engine) -> list[str]:
    root = f"{engine.directory}/data/pods"
    return [pod for state in os.listdir(root) if state != "names" for pod in os.listdir(f"{root}/{state}")]


@pytest.fixture(scope="module")
def prepared(engine: Engine) -> str:
    """The UUID of a prepared pod; stage1 is in the store afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done, _ = engine.run("prepare", "example.com/app:1.0", "--exec=/bin/true")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_version_imports_next_to_nothing(engine: Engine) -> None:
    """The yardstick of start-up: os and what it needs."""
    done, modules = engine.run("version")
    assert done.returncode == 0
    assert modules <= {
        "__future__",
        "os",
        "os.path",
        "posixpath",
        "genericpath",
        "stat",
        "_stat",
        "_collections_abc",
    }


@pytest.mark.parametrize(
    "words", [("list",), ("gc",), ("list", "--format=json"), ("gc", "--grace-period=0s")]
)
def test_looking_around_stays_in_budget(engine: Engine, words: tuple[str, ...]) -> None:
    """Commands without a pod import the standard library's cheap modules only."""
    if words[0] == "gc" and os.geteuid() != 0:
        pytest.skip("needs root")
    done, modules = engine.run(*words)
    assert done.returncode == 0, done.stderr
    assert modules - ALLOWED == set()


@pytest.mark.root
@pytest.mark.parametrize(
    ("verb", "status"), [("status", 0), ("stop", 254), ("enter", 254), ("run-prepared", 0)]
)
def test_pod_commands_stay_in_budget(engine: Engine, prepared: str, verb: str, status: int) -> None:
    """Commands on a pod import the standard library's cheap modules only."""
    flags = ["--net=none"] if verb == "run-prepared" else []
    done, modules = engine.run(verb, *flags, prepared)
    assert done.returncode == status, done.stderr
    assert modules - ALLOWED == set()


@pytest.mark.root
@pytest.mark.parametrize("verb", ["run", "prepare"])
def test_making_a_pod_stays_in_budget(engine: Engine, prepared: str, verb: str) -> None:
    """With image and stage1 in the store, up to the exec of stage1."""
    flags = ["--net=none"] if verb == "run" else []
    done, modules = engine.run(
        verb, *flags, "example.com/app:1.0", "--exec=/bin/true", "--memory=64M", "--", "x"
    )
    assert done.returncode == 0, done.stderr
    assert modules - ALLOWED == set()


@pytest.mark.root
def test_a_trust_policy_stays_in_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that asks the rules of the policy parses no TOML and hashes no key: it has what the last reader left."""
    engine = Engine(os.fspath(tmp_path))
    engine.flags = engine.flags[:-1]
    verdict = Verdict(
        kind="policy",
        name="example.com/app",
        rule="the rule",
        checked_at=0,
        subject="example.com/app",
        facts=[Fact(requirement="unsigned", kind="unsigned")],
    )
    put_image(f"{engine.directory}/data", verdict=verdict)
    os.makedirs(f"{engine.directory}/local/trust.d")
    with open(f"{engine.directory}/local/trust.d/x.toml", "w", encoding="ascii") as stream:
        stream.write(
            'version = 1\ndefault = "refuse"\n[[rule]]\nprefix = "example.com"\nall = [ { kind = "unsigned" } ]\n'
        )
    os.chmod(stream.name, 0o644)
    # Brings stage1 into the store, too.
    done, modules = engine.run("prepare", "example.com/app:1.0", "--exec=/bin/true")
    assert done.returncode == 0, done.stderr
    assert "tomllib" in modules
    settings = Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        data_dir=f"{engine.directory}/data",
        local_config_dir=f"{engine.directory}/local",
        system_config_dir=f"{engine.directory}/system",
    )
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    read_policy(settings)
    done, modules = engine.run("prepare", "example.com/app:1.0", "--exec=/bin/true")
    assert done.returncode == 0, done.stderr
    assert modules - ALLOWED == set()
    engine.run("rm", *_pods(engine))


@pytest.mark.root
def test_a_docker_image_in_the_store_stays_in_budget(engine: Engine, prepared: str) -> None:
    """What came of a registry before is found without importing what fetches, and costs a start nothing more."""
    record = put_layers(f"{engine.directory}/data", [layer({"bin/app": b""})])
    row = RemoteRow(url="docker://registry.example/app:1", key=record.key, download_time=1)
    Store(f"{engine.directory}/data").put_remote_row(row)
    for image in (row.url, f"docker:{row.url.removeprefix('docker://')}", record.key.digest):
        done, modules = engine.run("prepare", image, "--", "x")
        assert done.returncode == 0, done.stderr
        assert modules - ALLOWED == set()
    lock = f"{engine.directory}/rkt.lock"
    done, _ = engine.run("lock", f"--output={lock}", row.url, "--", "x")
    assert done.returncode == 0, done.stderr
    done, modules = engine.run("prepare", f"--locked={lock}", row.url, "--", "x")
    assert done.returncode == 0, done.stderr
    assert modules - ALLOWED == set()
