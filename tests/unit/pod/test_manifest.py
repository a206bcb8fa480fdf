# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest

from rkt.errors import InvalidManifest, RktError, UsageError
from rkt.pod.manifest import (
    build_pod_manifest,
    check_platform,
    check_pod_manifest,
    default_app_name,
    read_environment_files,
)
from rkt.pod.request import AppRequest, MountRequest, PodRequest
from rkt.schema import isolators, jsontext
from rkt.schema.appc import (
    App,
    ExposedPort,
    ImageManifest,
    Mount,
    MountPoint,
    PodManifest,
    Port,
    RuntimeApp,
    Volume,
    parse_pod_manifest,
)
from rkt.schema.isolators import Isolator, NameSet, Resource
from rkt.values import ACIdentifier, ACName

IMAGE_ID = "sha512-" + "0123456789abcdef" * 8
LABELS = {"version": "1.0.0", "os": "linux", "arch": "amd64"}
APP = App(exec=["/hello"], user="400", group="500", supplementary_gids=[1, 2], environment={"IMAGE": "image"})


class Stored:
    """An image of the store, as far as the manifest needs it."""

    image_id = IMAGE_ID


def image(
    name: str = "example.com/hello", app: App | None = APP, labels: dict[str, str] | None = None
) -> ImageManifest:
    """An image that can run."""
    return ImageManifest(name=ACIdentifier(name), labels=LABELS if labels is None else labels, app=app)


def build(
    *apps: AppRequest, images: list[ImageManifest] | None = None, notices: list[str] | None = None, **pod: Any
) -> PodManifest:
    """The manifest of a pod of one app or of several; ``pod`` are fields of the request."""
    requests = apps or (AppRequest(reference="hello"),)
    manifests = images or [image() for _ in requests]
    return build_pod_manifest(
        PodRequest(**pod),
        [(request, Stored(), manifest) for request, manifest in zip(requests, manifests, strict=True)],
        uid=1000,
        gid=1001,
        notices=notices,
    )


def app_of(manifest: PodManifest) -> App:
    """The app section of the first app."""
    app = manifest.apps[0].app
    assert app is not None
    return app


def flags(**fields: Any) -> AppRequest:
    """Flags of one image argument."""
    return AppRequest(reference="hello", **fields)


class Kept:
    """A Docker or OCI image of the store."""

    image_id = f"sha256-{'ab' * 32}"


@pytest.mark.parametrize(
    ("entrypoint", "command", "given", "expected"),
    [
        (["/e"], ["c"], None, ["/e", "c"]),
        (["/e"], ["c"], (), ["/e", "c"]),
        (["/e"], ["c"], ("x", ""), ["/e", "x", ""]),
        (["/e"], ["c"], ("--opt",), ["/e", "--opt"]),
        ([], ["sh"], ("echo", "hi"), ["echo", "hi"]),
        ([], ["/etcd"], ("--name", "x"), ["/etcd", "--name", "x"]),
        (["/e"], [], ("x",), ["/e", "x"]),
    ],
)
def test_arguments_for_a_docker_image(
    entrypoint: list[str], command: list[str], given: tuple[str, ...] | None, expected: list[str]
) -> None:
    """Arguments replace the image's command and keep its entry point (spec cli §11 row 25); an option is no program."""
    texts = {"entrypoint": entrypoint, "cmd": command}
    annotations = {f"appc.io/docker/{name}": json.dumps(text) for name, text in texts.items() if text}
    manifest = image(app=APP.replace(exec=[*entrypoint, *command])).replace(annotations=annotations)
    request = flags(args=given)
    pod = build_pod_manifest(PodRequest(), [(request, Kept(), manifest)])
    assert app_of(pod).exec == expected
    other = build_pod_manifest(PodRequest(), [(request.replace(exec="/x"), Kept(), manifest)])
    assert app_of(other).exec == ["/x", *(given or ())]
    # What somebody converted to an ACI is run as rkt did.
    converted = build_pod_manifest(PodRequest(), [(request, Stored(), manifest)])
    assert app_of(converted).exec == [*entrypoint, *command, *(given or ())]


def test_without_flags() -> None:
    """Without flags the pod runs what the image says, under the image's last name."""
    assert build() == PodManifest(
        ac_version="0.8.11",
        apps=[
            RuntimeApp(
                name=ACName("hello"),
                image_id=IMAGE_ID,
                image_name=ACIdentifier("example.com/hello"),
                image_labels=LABELS,
                app=APP,
            )
        ],
        annotations={"coreos.com/rkt/stage1/mutable": "false"},
    )


def test_written_manifest_reads_back() -> None:
    """What is written for stage1 is what was decided."""
    manifest = build(
        flags(
            memory="16M",
            caps_retain=["CAP_KILL"],
            mounts=[MountRequest(volume="v", target="/x")],
            readonly_rootfs=True,
        ),
        volumes=["v,kind=host,source=/srv,readOnly=true"],
        user_labels={"a": "b"},
    )
    assert parse_pod_manifest(jsontext.dump(manifest.to_json()).encode()) == manifest


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("coreos.com/etcd", "etcd"),
        ("etcd", "etcd"),
        ("registry-1.docker.io/library/fedora", "fedora"),
        ("example.com/my.app_x~1", "my-app-x-1"),
    ],
)
def test_default_app_name(name: str, app: str) -> None:
    """An app is called as the last component of its image, made an AC Name (spec cli §10.11)."""
    assert default_app_name(name) == app


def test_names() -> None:
    """A name given by flag is used, a bad or repeated one refused."""
    assert build(flags(name="web")).apps[0].name == "web"
    with pytest.raises(UsageError, match="invalid value in --name flag"):
        build(flags(name="Web"))
    with pytest.raises(UsageError, match="error: multiple apps with name hello"):
        build(flags(), flags())
    assert [app.name for app in build(flags(), flags(name="other")).apps] == ["hello", "other"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["/hello"]),
        ({"args": ["a", ""]}, ["/hello", "a", ""]),
        ({"exec": "/link"}, ["/link"]),
        ({"exec": "/with blank", "args": ["--", "x"]}, ["/with blank", "--", "x"]),
        ({"args": []}, ["/hello"]),
    ],
)
def test_exec(fields: dict[str, Any], expected: list[str]) -> None:
    """--exec replaces the command, arguments are appended, empty ones too (design §9.8)."""
    assert app_of(build(flags(**fields))).exec == expected


def test_image_without_app_section() -> None:
    """--exec makes an image without app section runnable as the caller; without it the image is refused (R6)."""
    app = app_of(build(flags(exec="/inspect"), images=[image(app=None)]))
    assert (app.exec, app.user, app.group) == (["/inspect"], "1000", "1001")
    with pytest.raises(UsageError) as caught:
        build(flags(), images=[image(app=None)])
    assert str(caught.value) == (
        "error: image example.com/hello has no app section and --exec argument is not provided"
    )


def test_nothing_to_execute() -> None:
    """An image that names no program is refused before a pod is made, unless arguments name one."""
    silent = image(app=App(exec=[], user="0", group="0"))
    with pytest.raises(InvalidManifest, match="names no program to execute"):
        build(flags(), images=[silent])
    assert app_of(build(flags(args=["/x"]), images=[silent])).exec == ["/x"]


@pytest.mark.parametrize(
    ("fields", "user", "group"),
    [
        ({}, "400", "500"),
        ({"user": "200"}, "200", "500"),
        ({"group": "300"}, "400", "300"),
        ({"user": "user1", "group": "group1"}, "user1", "group1"),
        ({"user": "/inspect", "group": "/inspect"}, "/inspect", "/inspect"),
    ],
)
def test_owner(fields: dict[str, Any], user: str, group: str) -> None:
    """--user and --group replace the image's, each on its own (U7 to U14)."""
    app = app_of(build(flags(**fields)))
    assert (app.user, app.group) == (user, group)


def test_plain_overrides() -> None:
    """Flags that replace what the image says."""
    app = app_of(
        build(
            flags(
                working_dir="/w",
                supplementary_gids=[7],
                user_annotations={"a": "b"},
                user_labels={},
            )
        )
    )
    assert (app.working_directory, app.supplementary_gids) == ("/w", [7])
    assert (app.user_annotations, app.user_labels) == ({"a": "b"}, {})


def test_flags_of_the_pod_entry() -> None:
    """Annotations and the read-only root belong to the pod's entry; labels and annotations of the pod to the pod."""
    manifest = build(
        flags(readonly_rootfs=True, annotations={"a": "b"}),
        user_annotations={"c": "d"},
        user_labels={"e": "f"},
    )
    assert (manifest.apps[0].readonly_rootfs, manifest.apps[0].annotations) == (True, {"a": "b"})
    assert (manifest.user_annotations, manifest.user_labels) == ({"c": "d"}, {"e": "f"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"working_dir": "tmp"}, "invalid value in --working-dir flag"),
        ({"user": ""}, "invalid value in --user flag"),
        ({"user": "4294967295"}, "invalid value in --user flag"),
        ({"group": "99999999999"}, "invalid value in --group flag"),
        ({"supplementary_gids": [4294967295]}, "invalid value in --supplementary-gids flag"),
        ({"environment": {"1A": "x"}}, 'invalid environment variable name "1A"'),
        (
            {"caps_retain": ["CAP_KILL"], "caps_remove": ["CAP_KILL"]},
            "cannot use both --caps-retain and --caps-remove on the same image",
        ),
        ({"caps_retain": []}, "invalid value in --caps-retain flag"),
        ({"caps_remove": ["KILL"]}, "invalid value in --caps-remove flag"),
        ({"seccomp": "stat"}, "invalid seccomp mode command-line override"),
        ({"memory": "16m"}, "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"),
        (
            {"memory": "4095"},
            "memory limit of 4095 bytes too low. Try a reasonable value, such as --memory=16M",
        ),
        ({"memory": "16 M"}, "invalid value in --memory flag"),
        ({"memory": "-16M"}, "invalid value in --memory flag"),
        ({"cpu": "much"}, "invalid value in --cpu flag"),
        ({"cpu": "0"}, "cpu limit of 0 too low"),
        ({"cpu_shares": 1}, "invalid value in --cpu-shares flag"),
        ({"oom_score_adj": 1001}, "invalid value in --oom-score-adj flag"),
        ({"args": ["\udcff"]}, "is not UTF-8"),
        ({"environment": {"A": "\udcff"}}, "is not UTF-8"),
        ({"working_dir": "/\udcff"}, "is not UTF-8"),
    ],
)
def test_flags_that_are_bad(fields: dict[str, Any], message: str) -> None:
    """Each bad flag is refused before a pod is made, in rkt's words where scripts know them."""
    with pytest.raises(UsageError) as caught:
        build(flags(**fields))
    assert message in str(caught.value)


def isolated(*values: tuple[str, Any]) -> ImageManifest:
    """An image with isolators."""
    return image(app=APP.replace(isolators=[Isolator(name=name, value=value) for name, value in values]))


def result(manifest: PodManifest) -> list[tuple[str, Any]]:
    """Names and values of the isolators of the first app."""
    return [(isolator.name, isolator.value) for isolator in app_of(manifest).isolators]


KILL = NameSet(names=["CAP_KILL"])
ADMIN = NameSet(names=["CAP_SYS_ADMIN"])


@pytest.mark.parametrize(
    "own",
    [[(isolators.CAPABILITIES_RETAIN, KILL)], [(isolators.CAPABILITIES_REMOVE, KILL)], []],
)
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"caps_retain": ["CAP_SYS_ADMIN"]}, isolators.CAPABILITIES_RETAIN),
        ({"caps_remove": ["CAP_SYS_ADMIN"]}, isolators.CAPABILITIES_REMOVE),
    ],
)
def test_capability_flags(own: list[tuple[str, Any]], fields: dict[str, Any], name: str) -> None:
    """Either flag takes the image's capability isolators of both kinds away (C8, C9)."""
    assert result(build(flags(**fields), images=[isolated(*own)])) == [(name, ADMIN)]


def test_seccomp_flag() -> None:
    """--seccomp replaces both kinds of the image's filter (S4)."""
    own = isolated((isolators.SECCOMP_REMOVE, NameSet(names=["stat"], errno="EXFULL")))
    assert result(build(flags(seccomp="mode=retain,@appc.io/all"), images=[own])) == [
        (isolators.SECCOMP_RETAIN, NameSet(names=["@appc.io/all"]))
    ]


def test_resource_flags() -> None:
    """--memory and --cpu are appended and win, --cpu-shares and --oom-score-adj replace (I1 to I4)."""
    own_memory = Resource(limit="25Mi", request="25Mi", limit_amount=25 << 20, request_amount=25 << 20)
    own = isolated((isolators.MEMORY, own_memory), (isolators.CPU_SHARES, 2), (isolators.OOM_SCORE_ADJ, 99))
    manifest = build(flags(memory="42Mi", cpu="900m", cpu_shares=12345, oom_score_adj=-50), images=[own])
    assert result(manifest) == [
        (isolators.MEMORY, own_memory),
        (
            isolators.MEMORY,
            Resource(limit="42Mi", request="42Mi", limit_amount=44040192, request_amount=44040192),
        ),
        (isolators.CPU, Resource(limit="900m", request="900m", limit_amount=900, request_amount=900)),
        (isolators.CPU_SHARES, 12345),
        (isolators.OOM_SCORE_ADJ, -50),
    ]
    assert isolators.last(app_of(manifest).isolators, isolators.MEMORY).limit_amount == 44040192


def test_images_wish_in_vain() -> None:
    """An image cannot loosen its own confinement; whoever runs it is told which flag would (design §9.4)."""
    notices: list[str] = []
    own = isolated(
        (isolators.CAPABILITIES_RETAIN, NameSet(names=["CAP_KILL", "CAP_SYS_ADMIN"])),
        (isolators.SECCOMP_RETAIN, NameSet(names=["read", "bpf", "write"])),
    )
    manifest = build(images=[own], notices=notices)
    assert result(manifest) == [
        (isolators.CAPABILITIES_RETAIN, KILL),
        (isolators.SECCOMP_RETAIN, NameSet(names=["read", "write"])),
    ]
    assert notices == ['app "hello": the image asks in vain for CAP_SYS_ADMIN: give them by --caps-retain']


def test_environment_precedence(tmp_path: Path) -> None:
    """Caller below image below file below --set-env below --environment (design §9.8; R14)."""
    file = tmp_path / "env"
    file.write_text("D=file\nE=file\nF=file\nIMAGE2=file\n")
    own = image(app=APP.replace(environment={"B": "image", "C": "image", "IMAGE2": "image"}))
    environment = app_of(
        build(
            flags(environment={"F": "flag", "C": "flag"}),
            images=[own],
            inherited_env={
                "A": "caller",
                "B": "caller",
                "D": "caller",
                "BASH_FUNC_x%%": "() {}",
                "BAD": "\udcff",
            },
            set_env_files=[str(file)],
            set_env={"E": "set", "F": "set"},
        )
    ).environment
    assert environment == {
        "A": "caller",
        "B": "image",
        "C": "flag",
        "D": "file",
        "E": "set",
        "F": "flag",
        "IMAGE2": "file",
    }


def test_set_env_names() -> None:
    """--set-env takes only names that a variable can have."""
    with pytest.raises(UsageError, match="--set-env"):
        build(set_env={"A B": "x"})


def test_environment_files(tmp_path: Path) -> None:
    """Lines are taken as they are; comments and empty lines are skipped (spec cli §2.1)."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("# comment\n; too\n\nA= x=y \nB=\n")
    two.write_text('PATH=/bin:"/x"')
    assert read_environment_files([str(one), str(two)]) == {"A": " x=y ", "B": "", "PATH": '/bin:"/x"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"A", "environment variable must be specified as name=value (file "),
        (b"A=1\nA=2\n", 'environment variable "A" already set (file '),
        (b"=1", 'invalid environment variable name ""'),
        (b" A=1", "invalid environment variable name"),
        (b"A=\0", "NUL"),
        (b"A=\xff", "is not UTF-8"),
        (b"A=" + b"x" * (4 << 20), "larger than"),
        (None, "No such file or directory"),
    ],
)
def test_environment_files_that_are_bad(tmp_path: Path, text: bytes | None, message: str) -> None:
    """A line or file that cannot be understood is refused with the file's name."""
    path = tmp_path / "env"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        read_environment_files([str(path)])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_environment_name_in_two_files(tmp_path: Path) -> None:
    """A name may be set by one file only."""
    (tmp_path / "one").write_text("A=1\n")
    (tmp_path / "two").write_text("A=1\n")
    with pytest.raises(UsageError, match='"A" already set'):
        read_environment_files([str(tmp_path / "one"), str(tmp_path / "two")])


def test_mounts_of_apps_and_pod() -> None:
    """An app's own mount wins over the pod's on the same cleaned path; others add up."""
    manifest = build(
        flags(mounts=[MountRequest(volume="own", target="/x/"), MountRequest(volume="own", target="/y")]),
        mounts=[MountRequest(volume="pod", target="/x"), MountRequest(volume="pod", target="z")],
        volumes=["own,kind=empty", "pod,kind=empty", "unused,kind=empty"],
    )
    assert manifest.apps[0].mounts == [
        Mount(volume=ACName("own"), path="/x/"),
        Mount(volume=ACName("own"), path="/y"),
        Mount(volume=ACName("pod"), path="z"),
    ]


@pytest.mark.parametrize("fields", [{"mounts": [MountRequest(volume="nope", target="/x")]}])
def test_dangling_mounts(fields: dict[str, Any]) -> None:
    """A mount of a volume that is not declared is refused, of an app or of the pod."""
    text = 'dangling mount point "/x": volume "nope" not found'
    with pytest.raises(UsageError, match=text):
        build(flags(**fields))
    with pytest.raises(UsageError, match=text):
        build(**fields)


def test_volumes() -> None:
    """Volumes are parsed, and two of one name refused (V17)."""
    assert build(volumes=["v,kind=host,source=/srv"]).volumes == [
        Volume(name=ACName("v"), kind="host", source="/srv")
    ]
    with pytest.raises(InvalidManifest, match='duplicate volume name "v"'):
        build(volumes=["v,kind=empty", "v,kind=empty"])
    with pytest.raises(UsageError, match="invalid value in --volume flag"):
        build(volumes=["v"])


def test_mounts_that_are_refused() -> None:
    """A mount that stage1 would refuse is refused before a pod is made."""
    with pytest.raises(InvalidManifest, match="must not have a mount"):
        build(flags(mounts=[MountRequest(volume="v", target="/proc")]), volumes=["v,kind=empty"])


def test_ports() -> None:
    """A forwarded port must be one that an app has."""
    web = image(app=APP.replace(ports=[Port(name=ACName("web"), protocol="tcp", port=80)]))
    assert build(images=[web], ports=["web:127.0.0.1:8080"]).ports == [
        ExposedPort(name=ACName("web"), host_port=8080, host_ip="127.0.0.1")
    ]
    with pytest.raises(InvalidManifest, match='port name "www" could not be found in any apps') as caught:
        build(images=[web], ports=["www:8080"])
    assert caught.value.hint == "names of ports: web"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"arch": "amd64"}, "missing os label in the image manifest"),
        ({"os": "linux"}, "missing arch label in the image manifest"),
        ({"os": "freebsd", "arch": "amd64"}, 'bad os "freebsd" (must be one of: [linux])'),
        ({"os": "linux", "arch": "x86_64"}, 'bad arch "x86_64" for linux (must be one of: ['),
    ],
)
def test_platform(labels: dict[str, str], message: str) -> None:
    """Images run only with a Linux platform, in rkt's words (R26)."""
    with pytest.raises(InvalidManifest) as caught:
        check_platform(image(labels=labels))
    assert str(caught.value).startswith(message)
    with pytest.raises(InvalidManifest):
        build(images=[image(labels=labels)])


def user_pod(app: App | None, **fields: Any) -> PodManifest:
    """A pod manifest as a user writes it."""
    return PodManifest(apps=[RuntimeApp(name=ACName("a"), image_id=IMAGE_ID, app=app)], **fields)


def test_pods_of_users() -> None:
    """A user's pod may take the app section from its own manifest or from the image (P9, P10)."""
    check_pod_manifest(user_pod(APP), [image(app=None)])
    check_pod_manifest(user_pod(None), [image()])


@pytest.mark.parametrize(
    ("pod", "images", "message"),
    [
        (PodManifest(), [], "pod must contain at least one application"),
        (user_pod(None), [image(app=None)], "has no app section"),
        (user_pod(None), [image(labels={})], "missing os label in the image manifest"),
        (user_pod(APP.replace(exec=[])), [image()], "names no program"),
        (
            user_pod(APP.replace(mount_points=[MountPoint(name=ACName("x"), path="/")])),
            [image()],
            "must not have a mount",
        ),
        (
            user_pod(APP, ports=[ExposedPort(name=ACName("p"), host_port=80)]),
            [image()],
            "could not be found in any apps",
        ),
    ],
)
def test_pods_of_users_that_are_bad(pod: PodManifest, images: list[ImageManifest], message: str) -> None:
    """A user's pod that cannot run is refused before it exists (P21)."""
    with pytest.raises(RktError) as caught:
        check_pod_manifest(pod, images)
    assert message in str(caught.value)


def test_named_pod_port() -> None:
    """A port that brings its own definition needs no app that declares it."""
    port = ExposedPort(
        name=ACName("p"), host_port=80, pod_port=Port(name=ACName("p"), protocol="tcp", port=80)
    )
    check_pod_manifest(user_pod(APP, ports=[port]), [image()])


def test_mutable() -> None:
    """Pods whose apps come and go say so."""
    manifest = build_pod_manifest(PodRequest(mutable=True), [(flags(), Stored(), image())])
    assert manifest.annotations == {"coreos.com/rkt/stage1/mutable": "true"}


def test_no_apps() -> None:
    """A pod needs an app."""
    with pytest.raises(InvalidManifest, match="pod must contain at least one application"):
        build_pod_manifest(PodRequest(), [])
