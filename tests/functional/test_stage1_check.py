# SPDX-License-Identifier: Apache-2.0
"""``rkt stage1 check``: what keeps the contract passes, and what breaks a promise fails at that promise."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import flavors, stage1_sample
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import ROOT, wait_for

if TYPE_CHECKING:
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
with open(os.path.join(ROOT, "build", "stage1", "stage1.json"), encoding="utf-8") as _stream:
    FLAVOURS = sorted(json.load(_stream)["images"])


def check(rkt: Rkt, image: str, *words: str, timeout: str = "20s") -> Result:
    """Check an image; nothing may be left of it, in the user's directories either."""
    result = rkt.run(
        "stage1", "check", f"--timeout={timeout}", *words, image, env={"TMPDIR": rkt.tmp}, timeout=180
    )
    assert os.listdir(rkt.tmp) == [], result
    assert rkt.pods() == {}
    return result


def states(result: Result) -> dict[str, dict[str, Any]]:
    """Findings by name."""
    return {each["check"]: each for each in json.loads(result.stdout)["findings"]}


def failed(result: Result) -> set[str]:
    """Names of the checks that failed."""
    return {name for name, each in states(result).items() if each["state"] == "failed"}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_of_ours_keeps_the_contract(module_rkt: Rkt, flavour: str) -> None:
    """A flavour that comes with rkt needs no signature, and fails nothing."""
    for program in flavors.PROGRAMS.get(flavour, ()):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    result = check(module_rkt, flavour)
    assert result.status == 0, result
    assert f"coreos.com/rkt/stage1-{flavour}" in result.stdout
    assert " failed" not in result.stdout


def test_the_sample_of_the_guide_keeps_the_contract(module_rkt: Rkt, tmp_path: object) -> None:
    """What a reader of the guide builds runs, is entered, stopped and collected; what it has not is told apart."""
    image = stage1_sample.build(str(tmp_path))
    result = check(module_rkt, image, "--format=json", INSECURE)
    assert result.status == 0, result
    found = states(result)
    absent = {name for name, each in found.items() if each["state"] == "not declared"}
    assert {name.partition(".")[0] for name in absent} == {"run", "live", "attach", "options"}
    assert {each["state"] for each in found.values()} == {"ok", "not declared"}
    assert found["run.cgroup"]["state"] == "not declared"


@pytest.mark.parametrize(("version", "state"), [("1", "ok"), ("6", "failed")])
def test_arguments_come_by_the_interface_version(
    module_rkt: Rkt, tmp_path: object, version: str, state: str
) -> None:
    """A stage1 that refuses what version 1 has not runs as one of version 1, with warnings, and not as one of version 6."""

    def change(manifest: dict[str, Any]) -> None:
        kept = [each for each in manifest["annotations"] if each["value"].startswith("/")]
        kept += [{"name": "coreos.com/rkt/stage1/interface-version", "value": version}]
        manifest["annotations"] = kept

    refuse = (
        'interactive = "--interactive" in arguments',
        (
            'interactive = bool({each.partition("=")[0] for each in arguments}'
            ' & {"--hostname", "--ipc", "--dns-conf-mode"}) and sys.exit(254)'
        ),
    )
    image = stage1_sample.build(str(tmp_path), defects=[refuse], change=change)
    result = check(module_rkt, image, "--format=json", "--only=run", INSECURE)
    assert json.loads(result.stdout)["interface_version"] == version
    assert states(result)["run.arguments"]["state"] == state, result
    assert failed(result) == ({"run.arguments"} if state == "failed" else set())


#: Groups that are looked at, text of the sample and what stands there instead, the checks that must fail.
BROKEN = {
    "an app that gets too much, words that get lost, files out of order": (
        "run,app,status",
        (
            (
                'os.closerange(3, os.sysconf("SC_OPEN_MAX"))',
                'os.set_inheritable(int(os.environ["RKT_LOCK_FD"]), True)',
            ),
            ('environment["AC_APP_NAME"] = name', "environment |= os.environ"),
            (
                'become(name, app, root, app["exec"])',
                'become(name, app, root, [w for w in app["exec"] if w])',
            ),
            (
                'os.rename("ppid.new", "ppid")',
                'os.rename("ppid.new", "ppid"), open("subcgroup", "w").write("nowhere")',
            ),
            (r'file.write(f"{status}\n")', 'file.write(f"{status}")'),
        ),
        {
            "app.descriptors",
            "app.environment",
            "app.arguments",
            "run.pid-last",
            "run.cgroup",
            "status.file",
            "status.signal",
        },
    ),
    "a command with more rights than the app, a status that is lost, and a pod that runs but once": (
        "enter,start",
        (
            (
                "return status_of(os.waitpid(fork(lambda: become",
                "return 0 * status_of(os.waitpid(fork(lambda: become",
            ),
            ("PR_SET_NO_NEW_PRIVS, 1, 0", 'PR_SET_NO_NEW_PRIVS if words[1] != "entered" else 4, 1, 0'),
            ("init = fork(lambda", 'os.mkdir("ran")\n    init = fork(lambda'),
        ),
        {"enter.status", "enter.confined", "start.again"},
    ),
    "no time to end, survivors, gc that works once, a file left on the host": (
        "stop,signal,start,gc,host",
        (
            ("end(signal.SIGTERM)\n        elif", "end(signal.SIGKILL)\n        elif"),
            (
                'signal.SIGKILL if "--force" in arguments else signal.SIGTERM)',
                'signal.SIGTERM)\n    open(f"/dev/shm/{arguments[-1]}", "w").close()',
            ),
            ("    return 0\n\n\nif __name__", '    os.mkdir("collected")\n    return 0\n\n\nif __name__'),
            ('call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)', "time.time()"),
        ),
        {"stop.time", "signal.term", "signal.kill", "gc.status", "gc.twice", "host.clean"},
    ),
    "pid beside ppid, and nothing that says ready": (
        "run",
        (
            ('os.rename("ppid.new", "ppid")', 'os.rename("ppid.new", "ppid"), open("pid", "w").write("1")'),
            ('os.symlink("ready", f"{STATUS}/../supervisor-status")', "pass"),
        ),
        {"run.pid", "run.ready"},
    ),
    "a status that is lost": (
        "status",
        (("return status_of(os.waitpid(init, 0)[1])", "return 0 * status_of(os.waitpid(init, 0)[1])"),),
        {"status.app", "status.signal", "status.several"},
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_promise_fails_by_its_name(module_rkt: Rkt, tmp_path: object, defect: str) -> None:
    """The sample with a few defects fails at exactly these, with what was seen and where the guide tells of it."""
    groups, defects, expected = BROKEN[defect]
    image = stage1_sample.build(str(tmp_path), defects=defects)
    result = check(
        module_rkt, image, "--format=json", f"--only={groups}", INSECURE, timeout=f"{5 * SLOWNESS}s"
    )
    assert result.status == 3, result
    assert failed(result) == expected, result
    for name in expected:
        finding = states(result)[name]
        assert finding["seen"], finding
        assert finding["section"], finding


def test_what_cannot_run_is_told_before_it_runs(module_rkt: Rkt, tmp_path: object) -> None:
    """A manifest with a missing program, half of the live entrypoints and an unknown version makes no pod."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["annotations"] = [
            {"name": f"coreos.com/rkt/stage1/{name}", "value": value}
            for name, value in (
                ("run", "/nowhere"),
                ("gc", "/gc"),
                ("app/add", "/run"),
                ("interface-version", "7"),
            )
        ]

    image = stage1_sample.build(str(tmp_path), change=change)
    result = check(module_rkt, image, INSECURE)
    assert result.status == 3
    lines = [line for line in result.lines if line.startswith("! failed")]
    assert [line.split()[2] for line in lines] == ["image.entrypoints", "image.live", "image.version"]
    assert "run is /nowhere, which the image has not" in " ".join(result.stdout.split())
    assert "? not reached" in result.stdout


def test_trust_comes_first(module_rkt: Rkt, tmp_path: object) -> None:
    """An image that nobody signed is refused, a directory too, and nothing of it runs."""
    image = stage1_sample.build(str(tmp_path))
    assert "signature" in check(module_rkt, image).stderr
    directory = f"{tmp_path}/image"
    os.makedirs(f"{directory}/rootfs")
    with open(f"{directory}/manifest", "w", encoding="ascii") as stream:
        json.dump({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/s"}, stream)
    assert check(module_rkt, directory).status == 254
    assert check(module_rkt, directory, INSECURE).status == 3


def test_an_image_of_the_store_is_checked_without_a_trace(module_rkt: Rkt, tmp_path: object) -> None:
    """By name and by hash the user's own image is meant; its store stays as it was."""
    image = stage1_sample.build(str(tmp_path))
    key = module_rkt.run("fetch", INSECURE, image, check=0).stdout.strip()
    before = module_rkt.run("image", "list", "--full", check=0).stdout
    for word in (stage1_sample.NAME, key):
        refused = check(module_rkt, word, "--only=image")
        assert refused.status == 254
        assert "never verified" in refused.stderr
        assert check(module_rkt, word, "--only=image", INSECURE).status == 0
    assert module_rkt.run("image", "list", "--full", check=0).stdout == before


def test_an_interrupted_check_leaves_nothing(rkt: Rkt) -> None:
    """SIGTERM in the middle ends pods and removes files."""
    process = rkt.popen("stage1", "check", "ns", env={"TMPDIR": rkt.tmp})
    wait_for(lambda: _has_pod(rkt.tmp), "pod")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert os.listdir(rkt.tmp) == []


def _has_pod(place: str) -> bool:
    return any(
        os.path.isdir(f"{place}/{name}/data/pods/run") and os.listdir(f"{place}/{name}/data/pods/run")
        for name in os.listdir(place)
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one stage1 image is expected"),
        (("a", "b"), "one stage1 image is expected"),
        (("--only=nothing", "ns"), 'no group of checks "nothing"'),
        (("--timeout=0", "ns"), "--timeout is for one step: more than nothing, at most a day"),
        (("./missing",), "no file or directory ./missing"),
    ],
)
def test_bad_words(module_rkt: Rkt, words: tuple[str, ...], said: str) -> None:
    """Errors name what is wrong."""
    result = module_rkt.run("stage1", "check", *words, check=254)
    assert result.stderr.startswith(f"check: {said}")
