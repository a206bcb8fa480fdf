# SPDX-License-Identifier: Apache-2.0
"""What holds for every manifest, not only for those that somebody thought of."""

import json
import posixpath
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rkt.errors import InvalidManifest
from rkt.schema import jsontext
from rkt.schema.appc import App, ImageManifest, PodManifest, parse_image_manifest, parse_pod_manifest
from rkt.schema.isolators import DEFAULT_CAPABILITIES, Isolator, NameSet, retained_capabilities, tighten
from rkt.schema.mounts import clean_path, pair_mounts
from rkt.schema.quantity import to_thousandths, to_units
from rkt.values import ACIdentifier, ACName, AppcReference
from tests.property import strategies


def scrambled(value: Any) -> Any:
    """The same JSON with every member of the schema in capitals; members that users name are left alone."""
    if isinstance(value, list):
        return [scrambled(element) for element in value]
    if isinstance(value, dict):
        return {
            name.upper(): member if name in {"userAnnotations", "userLabels"} else scrambled(member)
            for name, member in value.items()
        }
    return value


@given(strategies.json_values)
def test_json_round_trip(value: Any) -> None:
    """Text that is written reads back as the same value, and as the json package reads it."""
    text = jsontext.dump(value)
    assert jsontext.parse(text, what="value") == value
    assert json.loads(text) == value


@given(strategies.image_manifests)
def test_image_manifest_round_trip(manifest: ImageManifest) -> None:
    """An image manifest that is written reads back as itself, with its members in any case."""
    assert parse_image_manifest(jsontext.dump(manifest.to_json()).encode()) == manifest
    assert parse_image_manifest(jsontext.dump(scrambled(manifest.to_json())).encode()) == manifest


@given(strategies.pod_manifests)
def test_pod_manifest_round_trip(manifest: PodManifest) -> None:
    """A pod manifest that is written reads back as itself, with its members in any case."""
    assert parse_pod_manifest(jsontext.dump(manifest.to_json()).encode()) == manifest
    assert parse_pod_manifest(jsontext.dump(scrambled(manifest.to_json())).encode()) == manifest


@given(strategies.references)
def test_reference_round_trip(reference: AppcReference) -> None:
    """An appc string that is printed reads back as itself."""
    assert AppcReference.parse(str(reference)) == reference


@given(st.text(max_size=12))
def test_names_stay_inside_a_directory(text: str) -> None:
    """A name that is accepted, as a path, never leaves the directory it is looked up in (invariant HH3)."""
    for kind in (ACName, ACIdentifier):
        try:
            name = kind.parse(text)
        except InvalidManifest:
            continue
        assert posixpath.normpath(f"/base/{name}") == f"/base/{name}"


@given(st.text(max_size=12))
def test_sanitized_names_are_names(text: str) -> None:
    """Whatever comes out of sanitising is accepted as it is."""
    for kind in (ACName, ACIdentifier):
        try:
            name = kind.sanitize(text)
        except InvalidManifest:
            continue
        assert kind.parse(name) == name


@given(
    st.integers(0, 10**6),
    st.integers(0, 999),
    st.sampled_from(
        [
            ("", 1),
            ("m", Fraction(1, 1000)),
            ("k", 1000),
            ("Mi", 2**20),
            ("e-2", Fraction(1, 100)),
            ("E3", 1000),
        ]
    ),
)
def test_quantities_round_up(whole: int, thousandths: int, suffix: tuple[str, Fraction | int]) -> None:
    """A quantity is the exact value, rounded up to the unit asked for."""
    text = f"{whole}.{thousandths:03}{suffix[0]}"
    exact = (Fraction(whole) + Fraction(thousandths, 1000)) * suffix[1]
    assert to_units(text, "limit") == -(-exact.numerator // exact.denominator)
    exact *= 1000
    assert to_thousandths(text, "limit") == -(-exact.numerator // exact.denominator)


@given(st.text("ab./", max_size=20))
def test_clean_path_agrees_with_the_library(path: str) -> None:
    """Cleaning is what POSIX normalisation does to an absolute path."""
    cleaned = posixpath.normpath("/" + path)
    assert clean_path(path) == (cleaned[1:] if cleaned.startswith("//") else cleaned)


@given(strategies.pod_manifests, strategies.apps)
def test_every_mount_point_is_served_once(pod: PodManifest, fallback: App) -> None:
    """Each path of an app gets one mount, each mount point one on its path, and no two apps share an implicit volume."""
    owners: dict[str, str] = {}
    for runtime_app in pod.apps:
        app = runtime_app.app or fallback
        try:
            paired = pair_mounts(runtime_app, app, pod)
        except InvalidManifest:
            continue
        places = [clean_path(mount.path) for mount in paired]
        assert len(set(places)) == len(places)
        wanted = [
            clean_path(path)
            for path in (*(m.path for m in runtime_app.mounts), *(p.path for p in app.mount_points))
        ]
        assert set(places) == set(wanted)
        for mount in paired:
            if mount.implicit:
                assert owners.setdefault(mount.name, runtime_app.name) == runtime_app.name
                assert mount.name not in {volume.name for volume in pod.volumes}


@given(st.lists(st.sampled_from([*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_NET_RAW"]), min_size=1))
def test_images_never_gain_capabilities(names: list[str]) -> None:
    """Whatever an image asks for, it ends up with a part of the default set (design §9.4)."""
    for kind in ("retain", "remove"):
        own = Isolator(name=f"os/linux/capabilities-{kind}-set", value=NameSet(names=names))
        kept, _ = tighten([own], lambda calls: calls)
        assert set(retained_capabilities(kept)) <= set(DEFAULT_CAPABILITIES)
        assert set(retained_capabilities(kept)) == set(retained_capabilities([own])) & set(
            DEFAULT_CAPABILITIES
        )
