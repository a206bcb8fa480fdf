# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rkt.errors import InvalidManifest
from rkt.image.appc_view import Origin, parse_signal, render_view
from rkt.image.oci_compose import config_of_appc
from rkt.schema.appc import App, ImageManifest, Port, parse_image_manifest
from rkt.schema.oci import Platform, parse_config
from rkt.values import ACIdentifier, ACName, Digest

if TYPE_CHECKING:
    from typing import Any


DIGEST = Digest.parse(f"sha256:{'ab' * 32}")
CONFIG = Digest.parse(f"sha256:{'cd' * 32}")
ORIGIN = Origin(
    name="registry-1.docker.io/library/busybox",
    registry="registry-1.docker.io",
    repository="library/busybox",
    tag="latest",
    reference="busybox",
)


def view(run: dict[str, Any] | None = None, origin: Origin = ORIGIN, **more: Any) -> ImageManifest:
    """The view of an image with that ``config`` member."""
    value = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(DIGEST)]},
        **({} if run is None else {"config": run}),
        **more,
    }
    config = parse_config(json.dumps(value).encode())
    return parse_image_manifest(render_view(config, origin, digest=DIGEST, config_digest=CONFIG))


def app(**run: Any) -> Any:
    """The app section of the view of an image with these members."""
    found = view(run).app
    assert found is not None
    return found


def test_name_labels_and_annotations() -> None:
    """Name, labels and annotations are those that docker2aci gave (spec cli §7.4)."""
    found = view(
        {"Entrypoint": ["/e", "x"], "Cmd": ["c"]}, author="A <a@b>", created="2024-02-03T04:05:06.789Z"
    )
    assert found.name == "registry-1.docker.io/library/busybox"
    assert found.labels == {"version": "latest", "os": "linux", "arch": "amd64"}
    assert found.annotations == {
        "created": "2024-02-03T04:05:06.789Z",
        "author": "A <a@b>",
        "appc.io/docker/originalname": "busybox",
        "appc.io/docker/registryurl": "registry-1.docker.io",
        "appc.io/docker/repository": "library/busybox",
        "appc.io/docker/imageid": CONFIG,
        "appc.io/docker/manifesthash": DIGEST,
        "appc.io/docker/entrypoint": '["/e","x"]',
        "appc.io/docker/cmd": '["c"]',
    }


def test_image_by_digest() -> None:
    """What was asked for by digest has no version, and a name is made an AC Identifier."""
    found = view({}, ORIGIN.replace(name="localhost:5000/a__b/C", tag=""))
    assert found.name == "localhost_5000/a__b/c"
    assert "version" not in found.labels


@pytest.mark.parametrize(
    ("platform", "arch"),
    [
        ("linux/386", "i386"),
        ("linux/amd64", "amd64"),
        ("linux/amd64/v3", "amd64"),
        ("linux/arm64", "aarch64"),
        ("linux/arm64/v9", "aarch64"),
        ("linux/arm", "armv7l"),
        ("linux/arm/v7", "armv7l"),
        ("linux/arm/v6", "armv6l"),
        ("linux/arm/v5", "armv6l"),
        ("linux/ppc64le", "ppc64le"),
        ("linux/s390x", "s390x"),
        ("linux/riscv64", "riscv64"),
        ("linux/loong64", "loongarch64"),
    ],
)
def test_processors(platform: str, arch: str) -> None:
    """Processors get appc's words, ARM's by their variant; each of them may stand in an image manifest."""
    wanted = Platform.parse(platform)
    found = view({}, architecture=wanted.architecture, variant=wanted.variant)
    assert found.labels["arch"] == arch


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"Entrypoint": ["/e"], "Cmd": ["c", ""]}, ["/e", "c", ""]),
        ({"Entrypoint": ["/e"]}, ["/e"]),
        ({"Cmd": ["sh"]}, ["sh"]),
        ({"Entrypoint": [], "Cmd": None}, []),
        ({}, []),
    ],
)
def test_exec(run: dict[str, Any], expected: list[str]) -> None:
    """An app executes entry point and command; with neither it has nothing to execute, which is no error yet."""
    assert app(**run).exec == expected


def test_no_config_no_app() -> None:
    """An image that says nothing of how to run it has no app section."""
    assert view().app is None


@pytest.mark.parametrize(
    ("user", "expected", "annotation"),
    [
        ("", ("0", "0"), None),
        ("www", ("www", "www"), "www"),
        ("1000", ("1000", "1000"), "1000"),
        ("www:adm", ("www", "adm"), None),
        ("1000:0", ("1000", "0"), None),
        (":5", ("0", "5"), None),
    ],
)
def test_users(user: str, expected: tuple[str, str], annotation: str | None) -> None:
    """A user without a group is marked, so that the group is looked up when the app starts."""
    found = view({"User": user})
    assert found.app is not None
    assert (found.app.user, found.app.group) == expected
    assert found.annotations.get("appc.io/docker/user") == annotation


def test_environment() -> None:
    """Variables are split at the first equals sign; the last of two counts, and what is none is dropped."""
    found = app(Env=["A=1", "B=x=y", "NOTHING", "C=", "1=2", "A=3", "my.var-x=ok"])
    assert found.environment == {"A": "3", "B": "x=y", "C": "", "my.var-x": "ok"}


def test_volumes_become_mount_points() -> None:
    """Each volume is a mount point named after its path; equal names get numbers, and all are sorted."""
    found = app(Volumes={"/var/lib": {}, "/data": {}, "/Data/": {}, "rel": {}})
    assert [(point.name, point.path) for point in found.mount_points] == [
        ("volume-data", "/Data/"),
        ("volume-data-1", "/data"),
        ("volume-rel", "/rel"),
        ("volume-var-lib", "/var/lib"),
    ]


def test_ports() -> None:
    """Ports are named after what is exposed, in any protocol, ranges included."""
    found = app(ExposedPorts={"80/tcp": {}, "53/UDP": {}, "8000-8010/tcp": {}, "443": {}})
    assert found.ports == [
        Port(name=ACName("443"), protocol="tcp", port=443),
        Port(name=ACName("53-udp"), protocol="udp", port=53),
        Port(name=ACName("80-tcp"), protocol="tcp", port=80),
        Port(name=ACName("8000-8010-tcp"), protocol="tcp", port=8000, count=11),
    ]


@pytest.mark.parametrize("text", ["", "x/tcp", "0/tcp", "80-/tcp", "90-80/tcp", "99999/tcp", "-80/tcp"])
def test_ports_that_are_bad(text: str) -> None:
    """What is no port is refused, with its text."""
    with pytest.raises(InvalidManifest):
        app(ExposedPorts={text: {}})


def test_labels_stop_signal_and_health_check_are_kept() -> None:
    """Labels become user labels; stop signal and health check are annotations (mended, spec cli §7.4)."""
    check = {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000}
    found = view({"Labels": {"a.b/C": "d"}, "StopSignal": "SIGQUIT", "Healthcheck": check})
    assert found.app is not None
    assert found.app.user_labels == {"a.b/C": "d"}
    assert found.annotations["appc.io/docker/stopsignal"] == "3"
    assert json.loads(found.annotations["appc.io/docker/healthcheck"]) == check


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("RTMIN", 34),
        ("SIGRTMAX-1", 63),
        ("SIGWINCH", 28),
        ("", 0),
        ("0", 0),
        ("65", 0),
        ("SIGNOTHING", 0),
        ("RTMIN+99", 0),
        ("RTMIN+x", 0),
        ("²", 0),
    ],
)
def test_signals(text: str, number: int) -> None:
    """Signals are understood by name and number; what is none is as if it were not there."""
    assert parse_signal(text) == number


def test_working_directory() -> None:
    """A relative working directory begins at the root, as Docker has it."""
    assert app(WorkingDir="srv").working_directory == "/srv"
    assert app(WorkingDir="").working_directory == ""


@pytest.mark.parametrize("created", ["", "yesterday", "2024-13-01T00:00:00Z"])
def test_dates_that_are_none(created: str) -> None:
    """A date that is none is left out instead of making the image unusable."""
    assert "created" not in view({}, created=created).annotations


def test_the_same_view_every_time() -> None:
    """The bytes depend on image and name only, whatever the order of members in the configuration."""
    run: dict[str, Any] = {"Volumes": {"/b": {}, "/a": {}}, "ExposedPorts": {"2/tcp": {}, "1/tcp": {}}}
    turned: dict[str, Any] = {"ExposedPorts": {"1/tcp": {}, "2/tcp": {}}, "Volumes": {"/a": {}, "/b": {}}}
    assert view(run) == view(turned)


def test_ports_survive_a_change_of_format() -> None:
    """The ports of an ACI, ranges too, are those of the image that is made of it, and of the view of that."""
    ports = [
        Port(name=ACName("web"), protocol="tcp", port=80),
        Port(name=ACName("many"), protocol="udp", port=8000, count=11),
    ]
    section = App(exec=["/a"], user="0", group="0", ports=ports)
    config = config_of_appc(ImageManifest(name=ACIdentifier("example.com/a"), app=section))
    assert list(config["config"]["ExposedPorts"]) == ["80/tcp", "8000-8010/udp"]
    found = app(ExposedPorts=config["config"]["ExposedPorts"]).ports
    assert sorted((port.port, port.count, port.protocol) for port in found) == [
        (80, 1, "tcp"),
        (8000, 11, "udp"),
    ]
