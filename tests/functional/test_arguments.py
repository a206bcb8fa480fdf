# SPDX-License-Identifier: Apache-2.0
"""From image arguments and flags to the program that runs (spec runtime §3.7, §6.1, spec cli §1.6, §1.7, §10.8)."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import ARCH, Entry, aci_tar, image_manifest
from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, by_app, inspect_image, run_apps, shell_app, stored

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

#: Row -> (flags and words after the image, argv[0] that the program must see).
PROGRAMS = {
    "R3": ((), "/bin/cat"),
    "R4": (("--exec=/link/cat",), "/link/cat"),
    "R5": (("--exec=cat",), "cat"),
    "R5-beside-the-working-directory": (("--working-dir=/link", "--exec=./cat"), "./cat"),
    "R5-below-the-working-directory": (("--working-dir=/", "--exec=link/cat"), "link/cat"),
    "R5-relative-path": (("--working-dir=/", "--environment=PATH=link:/bin", "--exec=cat"), "cat"),
    "R5-empty-path": (("--working-dir=/link", "--environment=PATH=", "--exec=cat"), "cat"),
}
SHOW = "/proc/self/cmdline"


def show_image(images: Images) -> str:
    """An image whose program shows the file it is told to; asked for its own command line it shows its argv[0]."""
    return inspect_image(images, "show", exec_=("/bin/cat",), files={"end": b"\n"})


@pytest.mark.parametrize("way", ["run", "prepare"])
def test_the_program_is_called_as_it_was_written(module_rkt: Rkt, images: Images, way: str) -> None:
    """Image program or --exec, absolute, on PATH or beside the working directory, links left alone (runtime R3-R5, R7, cli R3-R5, R7)."""
    rkt = module_rkt
    image = stored(rkt, show_image(images))
    apps = [
        [image, f"--name={row.lower()}", *flags, "--", SHOW, "/end", "---"]
        for row, (flags, _) in PROGRAMS.items()
    ]
    said = {name: text.rstrip("\n") for name, text in run_apps(rkt, apps, way=way).items()}
    assert said == {row.lower(): f"{name}\0{SHOW}\0/end\0" for row, (_, name) in PROGRAMS.items()}


def test_an_image_without_app_section_runs_what_it_is_told(rkt: Rkt, images: Images) -> None:
    """--exec makes an app of it, with the caller's ids; without it that is said before a pod exists (runtime R6, cli R6)."""
    image = images.busybox("example.com/no-app", None)
    for command in ("run", "prepare"):
        refused = rkt.run(command, INSECURE, image, check=254)
        assert (
            "image example.com/no-app has no app section and --exec argument is not provided"
            in refused.stderr
        )
    assert rkt.pods() == {}
    assert rkt.run("run", INSECURE, image, "--exec=/bin/id", "--", "-u", check=0).lines == ["0"]


@pytest.mark.parametrize("arguments", [(), ("--", "with", "words")], ids=["alone", "with-arguments"])
def test_a_program_that_is_not_there(module_rkt: Rkt, images: Images, arguments: tuple[str, ...]) -> None:
    """It is named as it was written, with and without arguments or a blank in its name (runtime R8, cli R8)."""
    rkt = module_rkt
    image = stored(rkt, inspect_image(images))
    for name in ("/foo-not-there", "/foo not there"):
        result = rkt.run("run", INSECURE, image, f"--exec={name}", *arguments, check=203)
        assert f'Error: Unable to open "{name}": No such file or directory' in result.stderr


@pods("any word")
def test_a_program_with_quotes_in_its_name_that_is_not_there(module_rkt: Rkt, images: Images) -> None:
    """It is named as it was written, whatever it has of what a shell takes for something else (runtime R8, cli R8)."""
    name = "dir1/no\"quote'"
    image = stored(module_rkt, inspect_image(images))
    result = module_rkt.run("run", INSECURE, image, f"--exec={name}", check=203)
    assert f'Error: Unable to open "{name}": No such file or directory' in result.stderr


def test_what_a_program_needs_and_does_not_find(module_rkt: Rkt, images: Images) -> None:
    """A missing dynamic loader and a missing script interpreter are named, whatever of both is there (runtime R9, cli R9)."""
    source = shutil.which("ls")
    assert source is not None
    with open(source, "rb") as stream:
        program = stream.read()
    loader = "/lib64/ld-linux-x86-64.so.2"
    if loader.encode() not in program:
        pytest.skip(f"{source} does not name {loader}")
    image = stored(
        module_rkt,
        inspect_image(
            images,
            "needs",
            files={
                "dynamic": (program, 0o755),
                "script": (b"#! /no/interpreter -x\n", 0o755),
                "script-of-dynamic": (b"#!/dynamic\n", 0o755),
                "noise": (b"neither this nor that", 0o755),
                "plain": b"#!/bin/sh\n",
            },
        ),
    )
    for name, message in (
        ("/dynamic", f'Unable to open "{loader}": No such file or directory'),
        ("/script", 'Unable to open "/no/interpreter": No such file or directory'),
        ("/script-of-dynamic", f'Unable to open "{loader}": No such file or directory'),
        ("/noise", 'Unable to execute "/noise": Exec format error'),
        ("/plain", 'Unable to execute "/plain": Permission denied'),
        ("/dir1", 'Unable to execute "/dir1": Permission denied'),
        ("nonsense", 'unable to find "nonsense" in "/bin"'),
    ):
        result = module_rkt.run("run", INSECURE, image, f"--exec={name}", check=203)
        assert f"Error: {message}\n" in result.stderr


def test_a_working_directory_that_is_not_there(module_rkt: Rkt, images: Images) -> None:
    """It is named, nothing is made in its place, and a link that leads out leads nowhere."""
    image = stored(
        module_rkt, inspect_image(images, "outside", links={"out": "/../../../../proc/1/root/tmp"})
    )
    for path in ("/not/there", "/dir1/file", "/out"):
        result = module_rkt.run("run", INSECURE, image, f"--working-dir={path}", "--", "-c", "pwd", check=254)
        assert f"app 'inspect': working directory {path}: " in result.stderr, result
    refused = module_rkt.run("run", INSECURE, image, "--working-dir=relative", check=254)
    assert "must be an absolute path" in refused.stderr
    assert module_rkt.run(
        "run", INSECURE, image, "--working-dir=/dir1", "--", "-c", "pwd", check=0
    ).lines == ["/dir1"]


def test_a_working_directory_of_somebody_else(module_rkt: Rkt, images: Images) -> None:
    """An app that may not enter its working directory is told so, and a directory of its own user can be entered."""
    own = [
        Entry("rootfs/home", b"5", mode=0o700, uid=1000, gid=1000),
        Entry("rootfs/closed", b"5", mode=0o700),
    ]
    image = stored(module_rkt, inspect_image(images, "homes", entries=own))
    words = ("--user=1000", "--group=1000")
    entered = module_rkt.run(
        "run", INSECURE, image, *words, "--working-dir=/home", "--", "-c", "touch x && echo $(pwd) *", check=0
    )
    assert entered.lines == ["/home x"]


@pods("several apps")
def test_flags_of_one_app_are_that_apps_only(module_rkt: Rkt, images: Images) -> None:
    """Of two apps of one image each has its own arguments, user, root and variables; pod flags may stand anywhere (spec cli §1.6)."""
    rkt = module_rkt
    image = stored(rkt, inspect_image(images))
    script = 'echo "$(id -u) $(pwd) $A"; touch /x 2>/dev/null && echo writable; true'
    words = [
        *shell_app(image, "one", script, "--user=5", "--group=5", "--environment=A=1", "--working-dir=/dir1"),
        *shell_app(image, "two", script, "--readonly-rootfs=true", "--set-env=A=all"),
        *shell_app(image, "three", script, "--readonly-rootfs", "false", "--hostname=anywhere"),
    ]
    said = by_app(rkt.run("run", INSECURE, *words, check=0).stdout)
    assert said == {"one": "5 /dir1 1\n", "two": "0 / all\n", "three": "0 / all\nwritable\n"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--user=1", "{}"], "--user must follow an image"),
        (["--caps-remove=CAP_KILL", "{}"], "--caps-remove must follow an image"),
        (["{}", "--exec=a", "--exec=b"], "--exec specified multiple times for the same image"),
        (["{}", "--signature=a", "--signature=b"], "--signature specified multiple times for the same image"),
        (["{}", "--readonly-rootfs=perhaps"], "--readonly-rootfs must be set with a boolean"),
        (
            ["{}", "--caps-retain=CAP_KILL", "--caps-remove=CAP_KILL"],
            "cannot use both --caps-retain and --caps-remove",
        ),
        (
            ["{}", "--cap-retain=CAP_KILL", "--caps-remove=CAP_KILL"],
            "cannot use both --caps-retain and --caps-remove",
        ),
        (["{}", "--caps-retain=NONSENSE"], "NONSENSE"),
        (["{}", "--caps-retain="], "--caps-retain"),
        (["{}", "--memory=16m"], "Try a reasonable value, such as --memory=16M"),
        (["{}", "--memory=lots"], "--memory"),
        (["{}", "--cpu=0"], "--cpu"),
        (["{}", "--cpu-shares=1"], "a number from 2 to 262144 is expected"),
        (["{}", "--oom-score-adj=1001"], "a number from -1000 to 1000 is expected"),
        (["{}", "--seccomp=chown"], "invalid seccomp mode command-line override"),
        (["{}", "--seccomp=mode=sometimes,chown"], "invalid seccomp mode command-line override"),
        (["{}", "--seccomp=mode=retain,x=y,chown"], "invalid seccomp command-line override"),
        (["{}", "--seccomp=mode=retain,errno=nothing,chown"], "errno"),
        (["{}", "--name=Not_A_Name"], "app name"),
        (["{}", "{}"], "error: multiple apps with name inspect"),
        (["{}", "--name=a", "{}", "--name=a"], "error: multiple apps with name a"),
        (["{}", "--mount=volume=x,target=/x"], 'dangling mount point "/x": volume "x" not found'),
        (["--mount=volume=x,target=/x", "{}"], 'dangling mount point "/x": volume "x" not found'),
        (["--volume=x,kind=empty", "{}", "--mount=volume=x,path=/x"], 'unknown mount parameter "path"'),
        (["{}", "--annotation=UPPER=x"], "annotation name"),
        (["{}", "--annotation=x"], "must be specified as key=value"),
        (["{}", "--user-label=a=1", "--user-label=a=2"], 'key "a" already set'),
        (["{}", "--", "a", "---", "--", "b"], "only one set of app arguments allowed per image"),
        (["--", "{}", "--", "--"], ""),
        (["--port=web:80", "--net=host", "{}"], "--port flag does not work with 'host' networking"),
        (["--port=web", "{}"], '"web" is not in name:[ip:]port format'),
        (["--port=WEB:80", "{}"], '"WEB" is not a valid port name'),
        (["--port=web:1.2.3:80", "{}"], '"1.2.3" is not a valid IP'),
        (["--port=web:99999", "{}"], '"99999" is not a valid port number'),
        (["--port=web:::1:80", "{}"], '"web:::1:80" is not in name:[ip:]port format'),
        (["--port=web:[::g]:80", "{}"], '"::g" is not a valid IP'),
        (["--volume=x,kind=host", "{}"], 'invalid value in --volume flag "x,kind=host"'),
        pytest.param(
            ["--interactive", "{}", "{}", "--name=two"],
            "interactive option only supports one image",
            marks=pods("several apps"),
        ),
        (["--mds-register", "--net=none", "{}"], "--mds-register flag does not work with --net=none"),
        (["--stdin=null", "{}"], "--stdin must follow an image"),
        (["--nonsense", "{}"], "unknown flag: --nonsense"),
    ],
)
def test_words_that_make_no_sense_make_no_pod(
    module_rkt: Rkt, images: Images, words: list[str], message: str
) -> None:
    """What is wrong with flags and arguments is said, in rkt's words where it has some, before a pod exists (spec cli §1.6, §1.7, R24)."""
    image = stored(module_rkt, inspect_image(images))
    before = module_rkt.pods()
    result = module_rkt.run(
        "run", INSECURE, *(word.format(image) for word in words), check=254 if message else None
    )
    assert message in result.stderr
    if message:
        assert module_rkt.pods() == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"os": None}, "missing os label in the image manifest"),
        ({"arch": None}, "missing arch label in the image manifest"),
        ({"os": "freebsd"}, 'bad os "freebsd"'),
        ({"arch": "pdp11"}, 'bad arch "pdp11" for linux (must be one of: ['),
    ],
)
def test_images_of_other_systems(module_rkt: Rkt, labels: dict[str, str | None], message: str) -> None:
    """An image that does not say that it is for Linux and a processor does not run, from a file or the store (runtime R26, cli R10, R11)."""
    shown = {"os": "linux", "arch": ARCH, **labels}
    manifest = image_manifest(f"example.com/{'-'.join(labels)}")
    manifest["labels"] = [{"name": name, "value": value} for name, value in shown.items() if value]
    path = f"{module_rkt.base}/other.aci"
    with open(path, "wb") as stream:
        stream.write(aci_tar(Entry("rootfs/file", content=message.encode()), manifest=manifest))
    before = module_rkt.pods()
    for command in ("run", "prepare"):
        assert message in module_rkt.run(command, INSECURE, path, check=254).stderr
    fetched = module_rkt.run(INSECURE, "fetch", path)
    if fetched.status == 0:
        key = fetched.lines[-1]
        assert message in module_rkt.run("run", INSECURE, key, check=254).stderr
    else:
        assert message in fetched.stderr
    assert module_rkt.pods() == before


def test_labels_that_fit(module_rkt: Rkt, images: Images) -> None:
    """An image for this system runs, and what was noted about it is in the pod manifest (runtime R27, spec cli §2.5)."""
    image = stored(module_rkt, inspect_image(images, "labels", labels={"version": "3.1"}))
    uuid = module_rkt.run(
        *("prepare", INSECURE, image, "--name=web", "--annotation=example.com/a=1"),
        *("--user-annotation=note=n", "--user-label=tier=front", "--working-dir=/dir1"),
        *("--", "-c", "true"),
        check=0,
    ).stdout.strip()
    manifest = json.loads(module_rkt.run("cat-manifest", uuid, check=0).stdout)
    assert manifest["acKind"] == "PodManifest"
    assert manifest["acVersion"].startswith("0.8.")
    assert manifest["annotations"] == [{"name": "coreos.com/rkt/stage1/mutable", "value": "false"}]
    (app,) = manifest["apps"]
    assert app["name"] == "web"
    assert app["annotations"] == [{"name": "example.com/a", "value": "1"}]
    assert app["image"]["name"] == "example.com/inspect"
    assert {"name": "version", "value": "3.1"} in app["image"]["labels"]
    assert app["app"]["userAnnotations"] == {"note": "n"}
    assert app["app"]["userLabels"] == {"tier": "front"}
    assert app["app"]["workingDirectory"] == "/dir1"
    assert app["app"]["exec"] == ["/bin/sh", "-c", "true"]
    for command in (("list",), ("status", uuid)):
        shown = json.loads(module_rkt.run(*command, "--format=json", check=0).stdout)
        pod = shown if isinstance(shown, dict) else next(pod for pod in shown if pod["name"] == uuid)
        assert pod["apps"][0]["user_annotations"] == {"note": "n"}
        assert pod["apps"][0]["user_labels"] == {"tier": "front"}
    assert module_rkt.run("run-prepared", uuid, check=0).stdout == ""
    assert os.path.isdir(module_rkt.pod_path(uuid))


def test_an_image_cannot_speak_in_the_engines_name(module_rkt: Rkt, images: Images) -> None:
    """Annotations and labels of an image that begin as the engine's own are not the pod's (RN20); the operator's flags replace all of them."""
    ours = {"coreos.com/rkt/stage1/mutable": "true", "Coreos.com/RKT/x": "y", "kept": "k"}
    image = stored(
        module_rkt, inspect_image(images, "reserved", app={"userAnnotations": ours, "userLabels": ours})
    )
    uuid = module_rkt.run("prepare", INSECURE, image, "--", "-c", "true", check=0).stdout.strip()
    manifest = json.loads(module_rkt.run("cat-manifest", uuid, check=0).stdout)
    app = manifest["apps"][0]["app"]
    assert app["userAnnotations"] == {"kept": "k"}
    assert app["userLabels"] == {"kept": "k"}
    assert manifest["annotations"] == [{"name": "coreos.com/rkt/stage1/mutable", "value": "false"}]
    flags = ("--user-annotation=a=1", "--user-annotation=coreos.com/rkt/b=2", "--user-label=c=")
    uuid = module_rkt.run("prepare", INSECURE, image, *flags, check=0).stdout.strip()
    app = json.loads(module_rkt.run("cat-manifest", uuid, check=0).stdout)["apps"][0]["app"]
    assert app["userAnnotations"] == {"a": "1", "coreos.com/rkt/b": "2"}
    assert app["userLabels"] == {"c": ""}


def test_deprecated_flags_still_work(module_rkt: Rkt, images: Images) -> None:
    """Old spellings say what to write instead, once, and do what they did (spec cli §1.1, §1.7)."""
    image = stored(module_rkt, inspect_image(images))
    script = "sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status"
    result = module_rkt.run("run", INSECURE, image, "--cap-retain=CAP_CHOWN", "--", "-c", script, check=0)
    assert result.lines == ["0000000000000001"]
    assert result.stderr.count("--caps-retain") == 1
    from_store = module_rkt.run("run", INSECURE, "--store-only", image, "--", "-c", "echo $0", check=0)
    assert from_store.lines == ["/bin/sh"]


def test_prepare_prints_the_uuid_alone(module_rkt: Rkt, images: Images) -> None:
    """With --quiet and without, standard output is the UUID on a line; the file of run has it without a line end (spec cli §2.2, §1.8)."""
    image = stored(module_rkt, inspect_image(images))
    for flags in ((), ("--quiet",)):
        result = module_rkt.run("prepare", INSECURE, *flags, image, check=0)
        assert result.stdout == f"{result.stdout.strip()}\n"
        assert len(result.stdout) == 37
        assert module_rkt.pods()[result.stdout.strip()] == "prepared"
    path = f"{module_rkt.base}/saved"
    module_rkt.run("run", INSECURE, f"--uuid-file-save={path}", image, "--exec=/bin/true", check=0)
    with open(path, encoding="ascii") as stream:
        assert module_rkt.pods()[stream.read()] == "run"
    before = module_rkt.pods()
    refused = module_rkt.run("run", INSECURE, "--uuid-file-save=/no/dir/f", image, check=254)
    assert "cannot write --uuid-file-save=/no/dir/f" in refused.stderr
    assert module_rkt.pods() == before
