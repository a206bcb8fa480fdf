# SPDX-License-Identifier: Apache-2.0
"""JSON and manifests: our reader against the library's, appc's and OCI's documents, records of the store."""

from __future__ import annotations

import json
from typing import Any

from rkt.errors import DamagedRecord, InvalidManifest, NotFound, StoreError
from rkt.image.appc_view import Origin, render_view
from rkt.schema import jsontext
from rkt.schema.appc import App, parse_image_manifest, parse_pod_manifest, tightened_app
from rkt.schema.envelope import open_sealed, seal
from rkt.schema.isolators import DEFAULT_CAPABILITIES, retained_capabilities
from rkt.schema.mounts import clean_path, pair_mounts
from rkt.schema.oci import Index, Manifest, Platform, parse_config, parse_document
from rkt.schema.probes import parse_probes
from rkt.schema.streams import parse_log_mode, parse_log_path, parse_streams
from rkt.store.record import FORMAT, REMOTE_FORMAT, parse_image_record, parse_remote_row
from rkt.values import Digest, ImageID
from tests.fuzz.target import Target

#: What breaks parsers of JSON: structure, names, numbers, and text that is none.
JSON_PIECES = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\0", b"\xff",
    b"\xef\xbb\xbf", b"null", b"true", b"false", b"-1", b"-0", b"0", b"1e999", b"1e-999", b"1.5", b"4294967295",
    b"4294967296", b"18446744073709551616", b"9" * 400, b"9" * 4301, b"NaN", b"-Infinity", b'""', b"[]", b"{}",
    b"[" * 70, b'{"a":' * 70, b"\xe2\x80\xae", b"\xc2\x85", b"\t",
)  # fmt: skip
_APPC_PIECES = (
    b'"name"', b'"NAME"', b'"acKind"', b'"ackind"', b'"value"', b'"app"', b'"set"', b'"../../etc"', b'"a//b"', b'"sha512-"',
    b'"CAP_SYS_ADMIN"', b'"@appc.io/all"', b'"isolators"', b'"resource/memory"', b'"1e18"', b'"dependencies"', b'"pathWhitelist"',
)  # fmt: skip
OCI_PIECES = (
    b'"layers"', b'"manifests"', b'"config"', b'"mediaType"', b'"digest"', b'"size"', b'"sha256:"', b'"sha512:"', b'"platform"',
    b'"urls"', b'"data"', b'"artifactType"', b'"subject"', b'"rootfs"', b'"diff_ids"', b'"history"', b'"User"', b'"ExposedPorts"',
    b'"Env"', b'"Volumes"', b'"/../x"', b'"StopSignal"', b'"Healthcheck"', b"application/vnd.oci.image.manifest.v1+json",
)  # fmt: skip
_DIGEST = Digest.parse(f"sha256:{'0' * 64}")
_ID = ImageID.parse(f"sha512-{'a' * 128}")
_OCI_ID = ImageID.parse(f"sha256:{'b' * 64}")


# --- JSON ---------------------------------------------------------------------------------------------------------


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member is there twice")
    return dict(pairs)


def _finite(text: str) -> float:
    if float(text) in {float("inf"), float("-inf")}:
        raise ValueError("out of range")
    return float(text)


def _refuse(text: str) -> None:
    raise ValueError(text)


def _depth(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(each) for each in inside), default=0)


def reference_json(data: bytes) -> Any:
    """What the library makes of a document, with the limits that ours has.

    Raises:
        ValueError: not to be accepted.
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_float=_finite, parse_constant=_refuse)
    except RecursionError as e:
        raise ValueError("too deep") from e
    if _depth(value) > jsontext.MAX_DEPTH:
        raise ValueError("too deep")
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair
    return value


def read_json(data: bytes) -> None:
    """Ours and the library's agree, on what is refused and on what is read; what is written reads back as the same."""
    try:
        expected: Any = reference_json(data)
        is_good = True
    except ValueError:
        is_good = False
    try:
        value = jsontext.parse(data, what="document")
    except InvalidManifest:
        assert not is_good, "the library reads it"
        raise
    assert is_good, "the library refuses it"
    # ``repr`` tells 1, 1.0 and true apart, and -0.0 from 0.0.
    assert repr(value) == repr(expected), "the library reads something else"
    text = jsontext.dump(value)
    assert "\n" not in text, "more than one line"
    assert repr(jsontext.parse(text.encode(), what="document")) == repr(value), "written and read again"
    assert repr(json.loads(text)) == repr(value), "written, and read by the library"
    assert json.loads(jsontext.dump_pretty(value)) == value, "indented and read by the library"


# --- appc ---------------------------------------------------------------------------------------------------------


def check_app(app: App) -> None:
    """An image never gains, and a second look takes nothing more away (design §9.4)."""
    kept, _ = tightened_app(app, list)
    assert set(retained_capabilities(kept.isolators)) <= set(DEFAULT_CAPABILITIES), "a capability is gained"
    again, said = tightened_app(kept, list)
    assert again == kept, "tightened twice is something else"
    assert not said, "what was tightened is said to ask for too much"


def read_image_manifest(data: bytes) -> None:
    """What is accepted is written and read again as the same."""
    manifest = parse_image_manifest(data)
    assert parse_image_manifest(jsontext.dump(manifest.to_json()).encode()) == manifest, (
        "written and read again"
    )
    if manifest.app is not None:
        check_app(manifest.app)
    for path in manifest.path_whitelist:
        assert ".." not in path.split("/"), "a whitelist climbs"


def read_pod_manifest(data: bytes) -> None:
    """What is accepted is written and read again as the same, and every mount has one place, which is below the root."""
    manifest = parse_pod_manifest(data)
    assert parse_pod_manifest(jsontext.dump(manifest.to_json()).encode()) == manifest, (
        "written and read again"
    )
    for runtime_app in manifest.apps:
        if runtime_app.app is not None:
            places = [clean_path(mount.path) for mount in pair_mounts(runtime_app, runtime_app.app, manifest)]
            assert len(set(places)) == len(places), "two mounts have one place"
            assert all(place.startswith("/") and ".." not in place.split("/") for place in places), (
                "a mount climbs"
            )


def read_annotations(data: bytes) -> None:
    """What annotations of an app ask of stage1 is understood, or refused by the error for that."""
    value = jsontext.parse(data, what="annotations")
    if not isinstance(value, dict) or not all(isinstance(member, str) for member in value.values()):
        raise InvalidManifest("annotations are texts")
    for probe in parse_probes(value):
        assert probe.timeout_seconds > 0, "a probe that cannot be waited for"
    assert len(parse_streams(value).modes) == 3, "three streams"
    parse_log_mode(value)
    path = parse_log_path(value)
    assert ".." not in path.split("/"), "the path of a log climbs"
    assert "\0" not in path, "the path of a log is none"


# --- OCI ----------------------------------------------------------------------------------------------------------


def read_oci_document(data: bytes) -> None:
    """All that is asked of an index or a manifest; nobody else may take it for the other (CVE-2021-41190)."""
    document = parse_document(data)
    members = json.loads(data)
    assert not ("layers" in members and "manifests" in members), "two documents in one"
    if isinstance(document, Index):
        assert "layers" not in members, "an index with layers"
        try:
            assert document.choose(Platform.parse("linux/arm")).size_bytes >= 0, "a size below nothing"
        except NotFound:
            pass
    if isinstance(document, Manifest):
        document.check_image()
        assert document.layers, "an image without layers"
        for layer in document.layers:
            assert Digest.parse(layer.digest) == layer.digest, "a digest that is none (CVE-2024-3727)"


def read_oci_config(data: bytes) -> None:
    """A configuration becomes an image manifest that is one by all the rules, always the same."""
    config = parse_config(data)
    origin = Origin(name="example.com/x", tag="1")
    view = render_view(config, origin, digest=_DIGEST, config_digest=_DIGEST)
    manifest = parse_image_manifest(view)
    assert manifest.name == "example.com/x", "the image names itself"
    assert render_view(parse_config(data), origin, digest=_DIGEST, config_digest=_DIGEST) == view, (
        "not always the same"
    )
    if manifest.app is not None:
        check_app(manifest.app)


# --- records ------------------------------------------------------------------------------------------------------


def read_record(data: bytes) -> None:
    """A record that is not what was written is damaged; what is read is written and read again as the same."""
    try:
        body = jsontext.parse(data, what="body")
    except InvalidManifest:
        body = None
    if not isinstance(body, dict):
        # Not sealed by us: the envelope itself.
        open_sealed(data, FORMAT, "record")
        return
    image_id = _OCI_ID if "oci" in body else _ID
    if "url" in body:
        row = parse_remote_row(seal(REMOTE_FORMAT, 1, body), "record")
        assert parse_remote_row(row.seal(), "record") == row, "written and read again"
        return
    record = parse_image_record(seal(FORMAT, 1, body), image_id.key, "record")
    assert parse_image_record(record.seal(), image_id.key, "record") == record, "written and read again"


TARGETS = (
    Target(name="json", read=read_json, refuses=(InvalidManifest,), pieces=JSON_PIECES),
    Target(
        name="image-manifest",
        read=read_image_manifest,
        refuses=(InvalidManifest,),
        pieces=(*JSON_PIECES, *_APPC_PIECES),
    ),
    Target(
        name="pod-manifest",
        read=read_pod_manifest,
        refuses=(InvalidManifest,),
        pieces=(*JSON_PIECES, *_APPC_PIECES),
    ),
    Target(
        name="annotations",
        read=read_annotations,
        refuses=(InvalidManifest,),
        pieces=(
            *JSON_PIECES,
            b"coreos.com/rkt/",
            b"readiness",
            b"liveness-",
            b"exec:",
            b"http:",
            b"tcp:",
            b"1h",
            b"0.5s",
            b"k8s-plain",
        ),
    ),
    Target(
        name="oci-document",
        read=read_oci_document,
        refuses=(InvalidManifest,),
        pieces=(*JSON_PIECES, *OCI_PIECES),
    ),
    Target(
        name="oci-config",
        read=read_oci_config,
        refuses=(InvalidManifest,),
        pieces=(*JSON_PIECES, *OCI_PIECES),
    ),
    Target(
        name="store-record",
        read=read_record,
        refuses=(DamagedRecord, StoreError),
        pieces=(*JSON_PIECES, b'"layers"', b'"verdict"', b'"labels"', b'"oci"', b'"url"', b'"key"'),
    ),
)
