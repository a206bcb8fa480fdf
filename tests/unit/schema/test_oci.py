# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rkt.errors import InvalidManifest, NotFound, UsageError
from rkt.schema import oci
from rkt.schema.oci import (
    Index,
    Manifest,
    Platform,
    check_together,
    parse_config,
    parse_document,
    parse_index,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(letter: str) -> str:
    """A digest of no bytes in particular."""
    return f"sha256:{letter * 64}"


def descriptor(letter: str, media_type: str, **more: Any) -> dict[str, Any]:
    """A descriptor of ten bytes."""
    return {"mediaType": media_type, "digest": digest(letter), "size": 10, **more}


def manifest(**more: Any) -> dict[str, Any]:
    """An OCI manifest of one layer."""
    return {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": descriptor("c", oci.OCI_CONFIG),
        "layers": [descriptor("a", LAYER)],
        **more,
    }


def entry(letter: str, platform: str, **more: Any) -> dict[str, Any]:
    """An entry of an index."""
    os_name, architecture, *variant = platform.split("/")
    words = {"os": os_name, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    return descriptor(letter, oci.OCI_MANIFEST, platform=words, **more)


def index(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An OCI index."""
    return {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": list(entries), **more}


def config(**more: Any) -> dict[str, Any]:
    """The configuration of an image of one layer."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest("d")]},
        **more,
    }


def encoded(value: object) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some members less."""
    return {name: member for name, member in value.items() if name not in names}


def test_manifest() -> None:
    """An OCI manifest is read with its descriptors, in order."""
    found = parse_manifest(encoded(manifest(annotations={"a": "b"}, unknown=[1])), oci.OCI_MANIFEST)
    assert found.config.digest == digest("c")
    assert [(layer.digest, layer.size_bytes, layer.media_type) for layer in found.layers] == [
        (digest("a"), 10, LAYER)
    ]
    assert found.annotations == {"a": "b"}
    found.check_image()


def test_docker_manifest() -> None:
    """Docker's schema 2 is read likewise."""
    value = manifest(
        mediaType=oci.DOCKER_MANIFEST,
        config=descriptor("c", oci.DOCKER_CONFIG),
        layers=[descriptor("a", DOCKER_LAYER)],
    )
    found = parse_manifest(encoded(value), f"{oci.DOCKER_MANIFEST}; charset=utf-8")
    assert found.media_type == oci.DOCKER_MANIFEST
    found.check_image()


@pytest.mark.parametrize(
    ("value", "kind", "media_type"),
    [
        (without(manifest(), "mediaType"), Manifest, oci.OCI_MANIFEST),
        (without(index(), "mediaType"), Index, oci.OCI_INDEX),
    ],
)
def test_documents_without_a_media_type(value: dict[str, Any], kind: type, media_type: str) -> None:
    """OCI 1.0 left the media type out: what it was sent by counts, else the members decide."""
    assert isinstance(parse_document(encoded(value)), kind)
    assert parse_document(encoded(value), media_type).media_type == media_type


@pytest.mark.parametrize(
    ("value", "expected", "why"),
    [
        (manifest(manifests=[]), "", "both an index and a manifest"),
        (index(layers=[]), "", "both an index and a manifest"),
        (index(config=descriptor("c", oci.OCI_CONFIG)), "", "both an index and a manifest"),
        ({"schemaVersion": 2}, "", "neither an index nor a manifest"),
        (manifest(mediaType=oci.OCI_INDEX), "", "must not have the members"),
        (index(mediaType=oci.OCI_MANIFEST), "", "must not have the members"),
        (manifest(), oci.OCI_INDEX, "calls itself"),
        (manifest(), oci.DOCKER_MANIFEST, "calls itself"),
        (without(manifest(), "mediaType"), oci.OCI_INDEX, "must not have the members"),
        (manifest(), "text/html", "of no image manifest"),
        (manifest(mediaType="text/html"), "", "of no image manifest"),
        (manifest(), oci.SCHEMA1[1], "schema 1"),
        ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
        (manifest(fsLayers=[]), "", "schema 1"),
        (manifest(schemaVersion=3), "", "schemaVersion"),
        (manifest(schemaVersion=2.5), "", "schemaVersion"),
        (manifest(schemaVersion=2.0), "", "schemaVersion"),
        (without(manifest(), "schemaVersion"), "", "schemaVersion"),
        (manifest(Layers=[]), "", "which some take for"),
        (manifest() | {"layer\u017f": []}, "", "which some take for"),
        (manifest(mediatype="x/y"), "", "which some take for"),
        ([], "", "must be an object"),
        (without(manifest(), "config"), "", "config must be an object"),
        (manifest(layers={}), "", "must be a list"),
        (manifest(layers=[7]), "", "must be an object"),
        (manifest(layers=[descriptor("a", "no type")]), "", "mediaType"),
        (manifest(layers=[descriptor("a", "")]), "", "mediaType"),
    ],
)
def test_confusing_documents(value: Any, expected: str, why: str) -> None:
    """A document that different programs may take for different things is refused (invariant UN16)."""
    with pytest.raises(InvalidManifest, match=why):
        parse_document(encoded(value), expected)


@pytest.mark.parametrize(
    "text",
    [
        '{"schemaVersion":2,"layers":[],"layers":[]}',
        '{"schemaVersion":2,"config":{"digest":"a","digest":"b"},"layers":[]}',
        "{",
        "\ufeff{}",
        "[" * 100 + "]" * 100,
    ],
)
def test_documents_that_are_not_one(text: str) -> None:
    """Repeated members, deep nesting and broken JSON are refused."""
    with pytest.raises(InvalidManifest):
        parse_document(text.encode())


def test_documents_have_a_size() -> None:
    """Nothing larger than 4 MiB is parsed (invariant UN14)."""
    with pytest.raises(InvalidManifest, match="too large"):
        parse_document(encoded(manifest(annotations={"a": "x" * oci.MAX_DOCUMENT_BYTES})))
    with pytest.raises(InvalidManifest, match="too large"):
        parse_config(encoded(config(author="x" * oci.MAX_DOCUMENT_BYTES)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digest": "sha256:abc"}, "invalid digest"),
        ({"digest": f"sha256:{'A' * 64}"}, "invalid digest"),
        ({"digest": f"sha512:{'a' * 128}"}, "invalid digest"),
        ({"digest": f"md5:{'a' * 32}"}, "invalid digest"),
        ({"digest": "../../../etc/passwd"}, "invalid digest"),
        ({"digest": None}, "invalid digest"),
        ({"size": -1}, "size"),
        ({"size": 1 << 62}, "size"),
        ({"size": "10"}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": None}, "size"),
        ({"Digest": digest("b")}, "which some take for"),
    ],
)
@pytest.mark.parametrize("place", ["config", "layer", "entry"])
def test_bad_descriptors(place: str, change: dict[str, Any], why: str) -> None:
    """A digest of another form, an unknown algorithm and an impossible size are refused wherever they stand."""
    if place == "config":
        value = manifest(config=descriptor("c", oci.OCI_CONFIG) | change)
    elif place == "layer":
        value = manifest(layers=[descriptor("a", LAYER) | change])
    else:
        value = index(entry("a", "linux/amd64") | change)
    with pytest.raises(InvalidManifest, match=why):
        parse_document(encoded(value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (manifest(layers=[descriptor("a", LAYER, urls=["https://10.0.0.1/x"])]), "foreign URLs"),
        (manifest(config=descriptor("c", oci.OCI_CONFIG, urls=["https://h/x"])), "foreign URLs"),
        (
            manifest(
                layers=[
                    descriptor("a", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
                ]
            ),
            "not distributed",
        ),
        (
            manifest(layers=[descriptor("a", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]),
            "not distributed",
        ),
        (manifest(layers=[descriptor("a", f"{LAYER}+encrypted")]), "not supported"),
        (manifest(layers=[]), "no layers"),
        (manifest(layers=[descriptor("a", LAYER)] * 128), "at most 127"),
        (manifest(config=descriptor("c", "application/vnd.oci.empty.v1+json")), "artifact"),
        (manifest(config=descriptor("c", "application/vnd.cncf.helm.config.v1+json")), "artifact"),
    ],
)
def test_manifests_of_no_image(value: dict[str, Any], why: str) -> None:
    """Layers from elsewhere, of unknown kinds or too many, and artifacts, are no image (invariant RG4)."""
    found = parse_manifest(encoded(value))
    with pytest.raises(InvalidManifest, match=why):
        found.check_image()


def test_each_kind_by_its_function() -> None:
    """An index is no manifest, and the reverse."""
    with pytest.raises(InvalidManifest, match="an index is expected"):
        parse_index(encoded(manifest()))
    with pytest.raises(InvalidManifest, match="a manifest is expected"):
        parse_manifest(encoded(index()))


@pytest.mark.parametrize(
    ("wanted", "entries", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/aarch64", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm", ["linux/arm"], 0),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/x86_64", ["windows/amd64", "linux/amd64", "linux/amd64"], 1),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], 1),
        ("linux/amd64/odd", ["linux/amd64", "linux/amd64/odd"], 1),
    ],
)
def test_choice_of_a_platform(wanted: str, entries: list[str], chosen: int) -> None:
    """The entry for the platform is chosen, the newest variant that runs there, else the first."""
    value = index(*(entry("abcdef"[i], platform) for i, platform in enumerate(entries)))
    found = parse_index(encoded(value)).choose(Platform.parse(wanted))
    assert found.digest == digest("abcdef"[chosen])


@pytest.mark.parametrize(
    ("wanted", "entries"),
    [
        ("linux/amd64", ["linux/arm64", "linux/s390x"]),
        ("linux/amd64", ["linux/amd64/v3"]),
        ("linux/arm/v5", ["linux/arm/v7"]),
        ("linux/amd64/odd", ["linux/amd64"]),
        ("linux/amd64", []),
    ],
)
def test_platforms_that_are_not_there(wanted: str, entries: list[str]) -> None:
    """Without a suitable entry the error names the platforms that there are."""
    value = index(*(entry("abcdef"[i], platform) for i, platform in enumerate(entries)))
    with pytest.raises(NotFound, match="is not for") as caught:
        parse_index(encoded(value)).choose(Platform.parse(wanted))
    for platform in entries:
        assert platform in caught.value.message
    assert caught.value.hint == (f"--platform={min(entries)}" if entries else "")


def test_an_index_of_many_platforms_makes_no_long_error() -> None:
    """Whoever serves an index cannot fill the terminal with what it offers."""
    value = index(*(entry("a", f"linux/{'x' * 60}{number}") for number in range(1000)))
    with pytest.raises(NotFound, match="…") as caught:
        parse_index(encoded(value)).choose(Platform.parse("linux/amd64"))
    assert len(caught.value.message) < 2000


def test_entries_that_are_no_images() -> None:
    """Attestations and other artifacts in an index are never chosen; an image without a platform is the last resort."""
    amd64 = Platform.parse("linux/amd64")
    attestation = entry(
        "b", "unknown/unknown", annotations={"vnd.docker.reference.type": "attestation-manifest"}
    )
    plain = descriptor("a", oci.OCI_MANIFEST, platform={})
    signature = descriptor(
        "e", oci.OCI_MANIFEST, artifactType="application/vnd.dev.sigstore.bundle.v0.3+json"
    )
    assert parse_index(encoded(index(signature, plain))).choose(amd64).digest == digest("a")
    helm = descriptor("c", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    assert parse_index(encoded(index(attestation, helm, plain))).choose(amd64).digest == digest("a")
    with pytest.raises(NotFound):
        parse_index(encoded(index(attestation, helm))).choose(amd64)
    with pytest.raises(NotFound):
        parse_index(encoded(index(plain, descriptor("d", oci.OCI_MANIFEST)))).choose(amd64)
    foreign = entry("a", "linux/amd64", urls=["https://elsewhere/"])
    with pytest.raises(InvalidManifest, match="foreign URLs"):
        parse_index(encoded(index(foreign))).choose(amd64)


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/../x", "linux/a b"]
)
def test_platforms_that_are_bad(text: str) -> None:
    """A platform is two or three words."""
    with pytest.raises(UsageError, match="invalid platform"):
        Platform.parse(text)


def test_platform_of_the_host() -> None:
    """The host has a platform that it can be asked for by."""
    host = Platform.of_host()
    assert host.os == "linux"
    assert Platform.parse(str(host)) == host
    assert host.rank(host) == 0


def test_config() -> None:
    """Everything that a configuration says of how to run the image is read."""
    value = config(
        created="2024-01-01T00:00:00Z",
        author="A. N. Other",
        variant="v8",
        architecture="arm64",
        history=[{"created_by": "RUN x", "empty_layer": True}, {}],
        config={
            "User": "www:www",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Env": ["PATH=/bin", "A="],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["true"],
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv",
            "Labels": {"a": "b"},
            "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "true"]},
            "Hostname": "unused",
            "ArgsEscaped": True,
        },
    )
    found = parse_config(encoded(value))
    assert found.platform == Platform(os="linux", architecture="arm64")
    assert found.diff_ids == [digest("d")]
    assert [h.empty_layer for h in found.history] == [True, False]
    run = found.execution
    assert run is not None
    assert (run.user, run.working_directory, run.stop_signal) == ("www:www", "/srv", "SIGQUIT")
    assert run.ports == ["80/tcp", "53/udp"]
    assert run.environment == ["PATH=/bin", "A="]
    assert (run.entrypoint, run.command) == (["/bin/sh", "-c"], ["true"])
    assert (run.volumes, run.labels) == (["/data"], {"a": "b"})
    assert run.healthcheck == {"Test": ["CMD", "true"]}


def test_config_with_nulls() -> None:
    """What is null is absent, as Docker writes it."""
    execution = dict.fromkeys(("Env", "Entrypoint", "Cmd", "Volumes", "Labels", "OnBuild", "ExposedPorts"))
    run = parse_config(encoded(config(config=execution, history=None))).execution
    assert run is not None
    assert (run.environment, run.entrypoint, run.command, run.volumes, run.labels) == ([], None, None, [], {})
    assert parse_config(encoded(config())).execution is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "other", "diff_ids": []}}, "type of rootfs"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "invalid diff ID"),
        ({"rootfs": {"type": "layers", "diff_ids": "x"}}, "must be a list"),
        ({"os": ""}, "invalid os"),
        ({"os": None}, "invalid os"),
        ({"architecture": "../x"}, "invalid architecture"),
        ({"OS": "windows"}, "which some take for"),
        ({"config": {"cmd": []}}, "which some take for"),
        ({"config": {"Env": "A=b"}}, "must be a list"),
        ({"config": {"Env": ["A\0B=c"]}}, "NUL"),
        ({"config": {"User": 7}}, "must be a string"),
        ({"config": {"Labels": {"a": 1}}}, "must be a string"),
        ({"config": {"Volumes": 1}}, "must be an object"),
        ({"config": {"Healthcheck": []}}, "Healthcheck"),
        ({"config": []}, "must be an object"),
    ],
)
def test_configs_that_are_bad(change: dict[str, Any], why: str) -> None:
    """A configuration with members of other types, or without layers, is refused."""
    with pytest.raises(InvalidManifest, match=why):
        parse_config(encoded(config(**change)))


def test_arguments_as_text() -> None:
    """A single argument may be written without its list, as old builders did."""
    run = parse_config(encoded(config(config={"Entrypoint": "/bin/x", "Volumes": ["/v"]}))).execution
    assert run is not None
    assert run.entrypoint == ["/bin/x"]
    assert run.volumes == ["/v"]


def test_layers_and_diff_ids_go_together() -> None:
    """A manifest with more or fewer layers than its configuration knows is refused."""
    layers = parse_manifest(encoded(manifest()))
    check_together(layers, parse_config(encoded(config())))
    both = {"type": "layers", "diff_ids": [digest("d"), digest("e")]}
    with pytest.raises(InvalidManifest, match=r"1 layers.*2 diff IDs"):
        check_together(layers, parse_config(encoded(config(rootfs=both))))


@pytest.mark.parametrize("parse", [parse_document, parse_config])
def test_nothing_else_is_raised(parse: Callable[[bytes], object]) -> None:
    """Whatever JSON a member is, the error is about the document."""
    for member in (None, 0, 1.5, True, "", "x", [], {}, [None], {"": None}, -1):
        for name in (
            "schemaVersion",
            "config",
            "layers",
            "manifests",
            "rootfs",
            "history",
            "os",
            "annotations",
        ):
            for value in (manifest, index, config):
                try:
                    parse(encoded(value(**{name: member})))
                except InvalidManifest:
                    continue
