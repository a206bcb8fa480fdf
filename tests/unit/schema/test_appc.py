# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest

from rkt.errors import InvalidManifest
from rkt.schema import appc, jsontext
from rkt.schema.appc import (
    App,
    Dependency,
    ExposedPort,
    ImageManifest,
    Mount,
    MountPoint,
    PodManifest,
    Port,
    RuntimeApp,
    Volume,
)
from rkt.schema.isolators import NameSet
from rkt.values import ACIdentifier, ACName

IMAGE_ID = "sha512-" + "0" * 128
APP = {"exec": ["/hello"], "user": "0", "group": "0"}


def image(**members: Any) -> bytes:
    """A minimal image manifest with members added, changed, or (by ``None``) left out."""
    value = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/hello", **members}
    return json.dumps({name: member for name, member in value.items() if member is not None}).encode()


def pod(**members: Any) -> bytes:
    """A minimal pod manifest, likewise."""
    value = {
        "acKind": "PodManifest",
        "acVersion": "0.8.11",
        "apps": [{"name": "hello", "image": {"id": IMAGE_ID}}],
        **members,
    }
    return json.dumps({name: member for name, member in value.items() if member is not None}).encode()


def pairs(**values: str) -> list[dict[str, str]]:
    """A list of names and values."""
    return [{"name": name, "value": value} for name, value in values.items()]


FULL_IMAGE = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/reduce-worker",
    "labels": pairs(version="1.0.0", os="linux", arch="amd64", channel="alpha"),
    "app": {
        "exec": ["/usr/bin/reduce-worker", "--quiet", ""],
        "user": "100",
        "group": "/etc/group",
        "supplementaryGIDs": [400, 500],
        "eventHandlers": [
            {"name": "pre-start", "exec": ["/usr/bin/data-downloader"]},
            {"name": "post-stop", "exec": ["/usr/bin/deregister", "--all"]},
        ],
        "workingDirectory": "/opt/work",
        "environment": [{"name": "REDUCE_DEBUG", "value": "true"}, {"name": "A.b-c", "value": ""}],
        "mountPoints": [
            {"name": "work", "path": "/var/lib/work"},
            {"name": "db", "path": "db", "readOnly": True},
        ],
        "ports": [
            {"name": "health", "protocol": "tcp", "port": 4000, "count": 1, "socketActivated": True},
            {"name": "range", "protocol": "udp", "port": 65535, "count": 1, "socketActivated": False},
        ],
        "isolators": [{"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}}],
        "userAnnotations": {"any key": "any value"},
        "userLabels": {"é": ""},
    },
    "annotations": pairs(
        created="2014-10-27T19:32:27.67021798Z",
        homepage="https://example.com",
        documentation="http://example.com/docs",
    ),
    "dependencies": [
        {"imageName": "example.com/base", "imageID": IMAGE_ID, "labels": pairs(os="linux"), "size": 22017258},
        {"imageName": "example.com/other"},
    ],
    "pathWhitelist": ["/etc/ca/example.com/crt", "/usr/bin"],
}


def test_full_image_manifest() -> None:
    """Every member of an image manifest becomes a field, and is written back as it was."""
    manifest = appc.parse_image_manifest(json.dumps(FULL_IMAGE).encode())
    assert manifest.name == "example.com/reduce-worker"
    assert manifest.labels == {"version": "1.0.0", "os": "linux", "arch": "amd64", "channel": "alpha"}
    assert manifest.dependencies == [
        Dependency(
            image_name=ACIdentifier("example.com/base"),
            image_id=IMAGE_ID,
            labels={"os": "linux"},
            size_bytes=22017258,
        ),
        Dependency(image_name=ACIdentifier("example.com/other")),
    ]
    assert manifest.path_whitelist == ["/etc/ca/example.com/crt", "/usr/bin"]
    app = manifest.app
    assert app is not None
    assert app.exec == ["/usr/bin/reduce-worker", "--quiet", ""]
    assert (app.user, app.group, app.supplementary_gids) == ("100", "/etc/group", [400, 500])
    assert app.event_handlers == {
        "pre-start": ["/usr/bin/data-downloader"],
        "post-stop": ["/usr/bin/deregister", "--all"],
    }
    assert app.working_directory == "/opt/work"
    assert list(app.environment.items()) == [("REDUCE_DEBUG", "true"), ("A.b-c", "")]
    assert app.mount_points == [
        MountPoint(name=ACName("work"), path="/var/lib/work"),
        MountPoint(name=ACName("db"), path="db", read_only=True),
    ]
    assert app.ports == [
        Port(name=ACName("health"), protocol="tcp", port=4000, socket_activated=True),
        Port(name=ACName("range"), protocol="udp", port=65535),
    ]
    assert app.isolators[0].value == NameSet(names=["CAP_KILL"])
    assert app.user_annotations == {"any key": "any value"}
    assert app.user_labels == {"é": ""}
    assert manifest.to_json() == FULL_IMAGE


def test_minimal_image_manifest() -> None:
    """The specification's required members are enough."""
    assert appc.parse_image_manifest(image()) == ImageManifest(name=ACIdentifier("example.com/hello"))


def test_names_of_members_in_any_case() -> None:
    """Members are found in any spelling, written in the canonical one, and unknown ones are ignored (spec cli §9.2)."""
    data = json.dumps(
        {
            "ACKIND": "ImageManifest",
            "acversion": "0.8.11",
            "Name": "a",
            "APP": {
                **APP,
                "supplementaryGids": [7],
                "WorkingDirectory": "/x",
                "unknown": {"Name": 1, "name": 2},
            },
            "future": None,
        }
    ).encode()
    manifest = appc.parse_image_manifest(data)
    assert manifest.app == App(
        exec=["/hello"], user="0", group="0", supplementary_gids=[7], working_directory="/x"
    )
    assert json.loads(jsontext.dump(manifest.to_json()))["app"]["supplementaryGIDs"] == [7]


def test_null_is_absent() -> None:
    """A member that is null counts as missing."""
    data = b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a","app":null,"labels":null,"pathWhitelist":null}'
    assert appc.parse_image_manifest(data) == ImageManifest(name=ACIdentifier("a"))


@pytest.mark.parametrize(
    "data",
    [
        b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a","name":"b"}',
        b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a","Name":"b"}',
        b'{"acKind":"ImageManifest","ackind":"PodManifest","acVersion":"0.8.11","name":"a"}',
        b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a","NAME":null}',
    ],
)
def test_repeated_members(data: bytes) -> None:
    """A member given twice, in one spelling or two, is refused (invariant UN16)."""
    with pytest.raises(InvalidManifest, match="twice"):
        appc.parse_image_manifest(data)


@pytest.mark.parametrize(
    "version", ["0.8.11", "1.30.0", "0.0.1", "1.30.0+git", "0.8.11-rc.1+b.7", "1.0.0-0a.x-y"]
)
def test_versions(version: str) -> None:
    """Any semantic version is accepted, those of rkt itself too (spec cli §9.6)."""
    assert appc.parse_image_manifest(image(acVersion=version)).ac_version == version


@pytest.mark.parametrize(
    "version",
    [
        "",
        "0.0.0",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.x",
        "v1.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+",
        "1.2.3 ",
        1,
    ],
)
def test_versions_that_are_bad(version: object) -> None:
    """No version, zero, and what is no semantic version are refused."""
    with pytest.raises(InvalidManifest, match=r"ACVersion|acVersion"):
        appc.parse_image_manifest(image(acVersion=version))


IMAGE_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"acKind": None}, "missing ACKind"),
    ({"acKind": "PodManifest"}, "bad ACKind"),
    ({"acKind": "imagemanifest"}, "bad ACKind"),
    ({"acKind": 7}, "bad ACKind"),
    ({"acVersion": None}, "ACVersion must be set"),
    ({"mediaType": "application/vnd.oci.image.manifest.v1+json"}, "names two types"),
    ({"schemaVersion": 2}, "names two types"),
    ({"name": None}, "invalid image name"),
    ({"name": "Example"}, "invalid image name"),
    ({"name": "a/../b"}, "invalid image name"),
    ({"labels": {}}, "labels must be a list"),
    ({"labels": [7]}, "must be an object"),
    ({"labels": pairs(name="x")}, 'invalid label name "name"'),
    ({"labels": [*pairs(a="x"), *pairs(a="y")]}, 'duplicate name "a" in labels'),
    ({"labels": pairs(A="x")}, "invalid name in labels"),
    ({"labels": [{"name": "a", "value": 7}]}, "must be a string"),
    ({"labels": pairs(os="plan9")}, 'bad os "plan9" (must be one of: [darwin freebsd linux])'),
    ({"labels": pairs(os="linux", arch="x86_64")}, 'bad arch "x86_64" for linux (must be one of: ['),
    ({"annotations": [*pairs(a="x"), *pairs(a="y")]}, 'duplicate name "a" in annotations'),
    ({"annotations": pairs(created="yesterday")}, "is not an RFC 3339 date"),
    ({"annotations": pairs(created="2014-13-27T19:32:27Z")}, "is not an RFC 3339 date"),
    ({"annotations": pairs(created="2014-10-27T19:32:27")}, "is not an RFC 3339 date"),
    ({"annotations": pairs(created="2014-10-27T19:32:27.Z")}, "is not an RFC 3339 date"),
    ({"annotations": pairs(homepage="ftp://example.com")}, "is not an http or https URL"),
    ({"annotations": pairs(documentation="https://")}, "is not an http or https URL"),
    ({"dependencies": [{}]}, "invalid imageName of a dependency"),
    ({"dependencies": [{"imageName": "a", "imageID": "sha256-00"}]}, "invalid imageID"),
    ({"dependencies": [{"imageName": "a", "imageID": "sha512-../x"}]}, "invalid imageID"),
    ({"dependencies": [{"imageName": "a", "size": -1}]}, "size of a dependency"),
    ({"pathWhitelist": ["usr"]}, "in pathWhitelist"),
    ({"pathWhitelist": ["/usr/../etc"]}, "in pathWhitelist"),
    ({"app": []}, "app must be an object"),
]


@pytest.mark.parametrize(("members", "message"), IMAGE_ERRORS)
def test_image_manifests_that_are_bad(members: dict[str, Any], message: str) -> None:
    """Each rule of spec cli §9.3 is held, in the specification's words."""
    with pytest.raises(InvalidManifest) as caught:
        appc.parse_image_manifest(image(**members))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "date",
    [
        "2014-10-27T19:32:27Z",
        "2014-10-27t19:32:27.67021798z",
        "2014-10-27T19:32:60+05:30",
        "2014-01-01T00:00:00.1-23:59",
    ],
)
def test_dates(date: str) -> None:
    """Dates of RFC 3339 are accepted with any fraction and zone."""
    assert appc.parse_image_manifest(image(annotations=pairs(created=date))).annotations == {"created": date}


APP_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"exec": "/hello"}, "exec must be a list"),
    ({"exec": ["/hello", 7]}, "must be a string"),
    ({"exec": ["/hel\0lo"]}, "NUL"),
    ({"user": None}, "user is required"),
    ({"user": ""}, "user is required"),
    ({"group": ""}, "group is required"),
    ({"user": 0}, "user must be a string"),
    ({"user": "4294967295"}, "ids go from 0 to 4294967294"),
    ({"group": "18446744073709551616"}, "ids go from 0 to 4294967294"),
    ({"user": "a\nb"}, "invalid user"),
    ({"user": "root:0"}, "invalid user"),
    ({"supplementaryGIDs": [-1]}, "supplementaryGIDs"),
    ({"supplementaryGIDs": [4294967295]}, "supplementaryGIDs"),
    ({"supplementaryGIDs": ["1"]}, "supplementaryGIDs"),
    ({"supplementaryGIDs": [True]}, "supplementaryGIDs"),
    ({"eventHandlers": [{"name": "on-fire", "exec": []}]}, 'bad event handler "on-fire"'),
    ({"eventHandlers": [{"name": "pre-start", "exec": []}] * 2}, "appears twice"),
    ({"workingDirectory": "tmp"}, "workingDirectory must be an absolute path"),
    ({"environment": [{"name": "1A", "value": ""}]}, 'invalid environment variable name "1A"'),
    ({"environment": [{"name": "", "value": ""}]}, "invalid environment variable name"),
    ({"environment": [{"name": "A=B", "value": ""}]}, "invalid environment variable name"),
    ({"environment": [{"name": "A", "value": "\0"}]}, "NUL"),
    (
        {"environment": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        'duplicate environment variable "A"',
    ),
    ({"environment": {"A": "1"}}, "environment must be a list"),
    ({"mountPoints": [{"name": "A", "path": "/x"}]}, "invalid mount point name"),
    ({"mountPoints": [{"name": "a"}]}, "must be set"),
    ({"mountPoints": [{"name": "a", "path": "/x", "readOnly": "yes"}]}, "must be true or false"),
    ({"ports": [{"name": "a", "protocol": "tcp"}]}, "between 1 and 65535"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 65536}]}, "between 1 and 65535"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": "80"}]}, "must be an integer"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 65535, "count": 2}]}, "between 1 and 1"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 80, "count": 0}]}, "between 1 and"),
    ({"ports": [{"name": "a.b", "protocol": "tcp", "port": 80}]}, "invalid port name"),
    ({"isolators": [{"name": "example.com/x", "value": {}}]}, "invalid isolator"),
    ({"userLabels": {"a": 1}}, "must be a string"),
    ({"userAnnotations": []}, "must be an object"),
]


@pytest.mark.parametrize(("members", "message"), APP_ERRORS)
def test_apps_that_are_bad(members: dict[str, Any], message: str) -> None:
    """Each rule of spec cli §9.4 is held, for images and for pods."""
    app = {name: member for name, member in {**APP, **members}.items() if member is not None}
    with pytest.raises(InvalidManifest) as caught:
        appc.parse_image_manifest(image(app=app))
    assert message in str(caught.value)
    with pytest.raises(InvalidManifest):
        appc.parse_pod_manifest(pod(apps=[{"name": "a", "image": {"id": IMAGE_ID}, "app": app}]))


def test_empty_exec_is_allowed() -> None:
    """An image may leave the command to whoever runs it."""
    manifest = appc.parse_image_manifest(image(app={"user": "root", "group": "root"}))
    assert manifest.app == App(exec=[], user="root", group="root")


FULL_POD = {
    "acVersion": "1.30.0",
    "acKind": "PodManifest",
    "apps": [
        {
            "name": "reduce-worker",
            "image": {"name": "example.com/reduce-worker", "id": IMAGE_ID, "labels": pairs(version="1.0.0")},
            "app": APP,
            "readOnlyRootFS": True,
            "mounts": [
                {"volume": "work", "path": "/var/lib/work"},
                {
                    "volume": "own",
                    "path": "rel",
                    "appVolume": {
                        "name": "own",
                        "kind": "host",
                        "source": "/o",
                        "readOnly": False,
                        "recursive": True,
                    },
                },
            ],
            "annotations": pairs(foo="baz"),
        },
        {"name": "backup", "image": {"id": "sha512-8b"}},
    ],
    "volumes": [
        {"name": "work", "kind": "host", "source": "/opt/tenant1/work", "readOnly": True},
        {"name": "buildoutput", "kind": "empty", "mode": "0755", "uid": 0, "gid": 7},
    ],
    "isolators": [{"name": "resource/memory", "value": {"request": "4G", "limit": "4G"}}],
    "annotations": pairs(**{"ip-address": "10.1.2.3"}),
    "ports": [
        {"name": "ftp", "hostPort": 2121},
        {
            "name": "web",
            "hostPort": 80,
            "hostIP": "::1",
            "podPort": {"name": "web", "protocol": "tcp", "port": 8080, "count": 1, "socketActivated": False},
        },
    ],
    "userAnnotations": {"a": "b"},
    "userLabels": {"c": "d"},
}


def test_full_pod_manifest() -> None:
    """Every member of a pod manifest becomes a field, and is written back as it was."""
    manifest = appc.parse_pod_manifest(json.dumps(FULL_POD).encode())
    worker = manifest.app("reduce-worker")
    assert worker == RuntimeApp(
        name=ACName("reduce-worker"),
        image_id=IMAGE_ID,
        image_name=ACIdentifier("example.com/reduce-worker"),
        image_labels={"version": "1.0.0"},
        app=App(exec=["/hello"], user="0", group="0"),
        readonly_rootfs=True,
        mounts=[
            Mount(volume=ACName("work"), path="/var/lib/work"),
            Mount(
                volume=ACName("own"),
                path="rel",
                app_volume=Volume(
                    name=ACName("own"), kind="host", source="/o", read_only=False, recursive=True
                ),
            ),
        ],
        annotations={"foo": "baz"},
    )
    assert manifest.app("nobody") is None
    assert manifest.volumes == [
        Volume(name=ACName("work"), kind="host", source="/opt/tenant1/work", read_only=True),
        Volume(name=ACName("buildoutput"), kind="empty", mode=0o755, uid=0, gid=7),
    ]
    assert manifest.ports == [
        ExposedPort(name=ACName("ftp"), host_port=2121),
        ExposedPort(
            name=ACName("web"),
            host_port=80,
            host_ip="::1",
            pod_port=Port(name=ACName("web"), protocol="tcp", port=8080),
        ),
    ]
    assert manifest.to_json() == FULL_POD


def test_pods_may_be_empty() -> None:
    """A pod without apps is a manifest, if none that can run (spec runtime §6.3 P21 is about running)."""
    assert appc.parse_pod_manifest(pod(apps=[])) == PodManifest()


def one_app(**members: Any) -> dict[str, Any]:
    """Members of a pod manifest with one app."""
    return {"apps": [{"name": "a", "image": {"id": IMAGE_ID}, **members}]}


POD_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"acKind": None}, "missing ACKind"),
    ({"acKind": "ImageManifest"}, "bad ACKind"),
    ({"apps": {}}, "apps must be a list"),
    (one_app(name="A"), "invalid app name"),
    (one_app(name=".."), "invalid app name"),
    (one_app(image={}), "image id of app"),
    (one_app(image={"id": ""}), "must be set"),
    (one_app(image={"id": "sha512-"}), "invalid image id"),
    (one_app(image={"id": "sha512-" + "0" * 129}), "invalid image id"),
    (one_app(image={"id": "sha512-/etc"}), "invalid image id"),
    (one_app(image={"id": IMAGE_ID, "name": "A"}), "invalid image name"),
    (one_app(mounts=[{"path": "/x"}]), "volume must be set"),
    (one_app(mounts=[{"volume": "v"}]), "path must be set"),
    (one_app(mounts=[{"volume": "../v", "path": "/x"}]), "invalid volume of a mount"),
    (one_app(readOnlyRootFS="true"), "must be true or false"),
    ({"apps": one_app()["apps"] * 2}, 'duplicate apps of name "a"'),
    ({"volumes": [{"name": "v", "kind": "empty"}] * 2}, 'duplicate volume name "v"'),
    ({"volumes": [{"name": "v"}]}, "bad kind"),
    ({"volumes": [{"name": "v", "kind": "host"}]}, "cannot be empty"),
    ({"volumes": [{"name": "v", "kind": "host", "source": "x"}]}, "absolute"),
    ({"volumes": [{"name": "v", "kind": "empty", "mode": 493}]}, "must be a string"),
    ({"volumes": [{"name": "v", "kind": "empty", "mode": "8"}]}, "invalid mode"),
    ({"volumes": [{"name": "v", "kind": "empty", "uid": 4294967295}]}, "uid"),
    ({"volumes": [{"name": "v", "kind": "host", "source": "/x", "mode": "0755"}]}, "mode cannot be set"),
    ({"ports": [{"name": "p"}]}, "hostPort"),
    ({"ports": [{"name": "p", "hostPort": 80, "hostIP": "localhost"}]}, "not a valid IP"),
    ({"ports": [{"name": "p", "hostPort": 80, "podPort": {"name": "p"}}]}, "between 1 and 65535"),
    ({"annotations": pairs(created="x")}, "RFC 3339"),
    ({"isolators": [{"name": "resource/memory", "value": {"limit": "x"}}]}, "invalid limit"),
]


@pytest.mark.parametrize(("members", "message"), POD_ERRORS)
def test_pod_manifests_that_are_bad(members: dict[str, Any], message: str) -> None:
    """Each rule of spec cli §9.5 is held."""
    with pytest.raises(InvalidManifest) as caught:
        appc.parse_pod_manifest(pod(**members))
    assert message in str(caught.value)


@pytest.mark.parametrize("parse", [appc.parse_image_manifest, appc.parse_pod_manifest])
def test_limits(parse: Any) -> None:
    """Manifests over 4 MiB or nested too deep are refused before they are parsed (invariant UN14)."""
    with pytest.raises(InvalidManifest, match="too large"):
        parse(b" " * (4 << 20) + b"{}")
    with pytest.raises(InvalidManifest, match="nested deeper"):
        parse(b'{"acKind":' + b"[" * 100 + b"]" * 100 + b"}")
    with pytest.raises(InvalidManifest, match="must be an object"):
        parse(b"[]")


def test_reserved_names_of_images() -> None:
    """Names that steer the engine are gone from an image's app, others stay (invariant RN20)."""
    app = App(
        exec=["/x"],
        user="0",
        group="0",
        user_annotations={"coreos.com/rkt/stage2/no-seccomp": "1", "a": "b"},
        user_labels={"CoreOS.com/rkt/x": "1", "c": "d"},
    )
    tightened, notices = appc.tightened_app(app, lambda names: names)
    assert (tightened.user_annotations, tightened.user_labels, notices) == ({"a": "b"}, {"c": "d"}, [])
