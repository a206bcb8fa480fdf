# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for manifests and what they are made of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rkt.schema import isolators
from rkt.schema.appc import (
    MAX_ID,
    PLATFORMS,
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
from rkt.schema.isolators import AppArmorProfile, Isolator, NameSet, Resource, SELinuxContext
from rkt.values import ACIdentifier, ACName, AppcReference

_ALNUM = "abcdefghijklmnopqrstuvwxyz0123456789"

#: Any text that JSON and the kernel can hold.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
full_texts = texts.filter(bool)
ids = st.integers(0, MAX_ID)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=20,
)


def _between(separators: str) -> st.SearchStrategy[str]:
    """Words of letters and digits joined by single separators."""
    word = st.text(_ALNUM, min_size=1, max_size=6)
    return st.lists(st.tuples(word, st.sampled_from(separators)), min_size=1, max_size=4).map(
        lambda parts: "".join(word + separator for word, separator in parts)[:-1]
    )


names = _between("-").map(ACName)
identifiers = _between("-._~/").map(ACIdentifier)
variables = st.from_regex(r"[A-Za-z_][A-Za-z_0-9.-]{0,9}", fullmatch=True)
image_ids = st.text("0123456789abcdef", min_size=1, max_size=128).map("sha512-{}".format)
absolute_paths = texts.map("/{}".format)
#: Users and groups: an id, a name, or a path.
owners = ids.map(str) | names | st.text(_ALNUM, max_size=9).map("/{}".format)
platforms = st.sampled_from([(system, arch) for system, arches in PLATFORMS.items() for arch in arches])


@st.composite
def labels(draw: st.DrawFn) -> dict[str, str]:
    """Labels of an image, with a platform that exists or none."""
    names_of_labels = identifiers.filter(lambda name: name not in {"name", "os", "arch"}).map(str)
    found = draw(st.dictionaries(names_of_labels, texts, max_size=3))
    if draw(st.booleans()):
        found["os"], found["arch"] = draw(platforms)
    return found


references = st.builds(
    AppcReference,
    identifiers,
    st.dictionaries(
        identifiers.filter(lambda name: name != "name").map(str),
        full_texts.filter(lambda value: not set(value) & set(",:")),
        max_size=3,
    ),
)

mount_points = st.builds(MountPoint, name=names, path=full_texts, read_only=st.booleans())


@st.composite
def ports(draw: st.DrawFn) -> Port:
    """A range of ports below 65536."""
    number = draw(st.integers(1, 65535))
    return Port(
        name=draw(names),
        protocol=draw(texts),
        port=number,
        count=draw(st.integers(1, 65536 - number)),
        socket_activated=draw(st.booleans()),
    )


def _resource(name: str, amounts: dict[str, int]) -> st.SearchStrategy[Isolator]:
    return st.sampled_from(sorted(amounts)).map(
        lambda text: Isolator(
            name=name,
            value=Resource(
                limit=text, request=text, limit_amount=amounts[text], request_amount=amounts[text]
            ),
        )
    )


_capability_sets = st.lists(st.sampled_from(isolators.DEFAULT_CAPABILITIES), min_size=1, max_size=4).map(
    lambda found: NameSet(names=list(found))
)
_call_sets = st.builds(
    NameSet,
    names=st.lists(st.sampled_from(["read", "stat", "@rkt/default-whitelist"]), min_size=1, max_size=3),
    errno=st.sampled_from(["", "EPERM", "E2BIG"]),
)


def _named(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Isolator]:
    return values.map(lambda value: Isolator(name=name, value=value))


#: Isolators of an app, any of which may stand beside any other, each at most once.
app_isolators = st.lists(
    st.one_of(
        _named(isolators.CAPABILITIES_REMOVE, _capability_sets),
        _named(isolators.SECCOMP_RETAIN, _call_sets),
        _named(isolators.NO_NEW_PRIVILEGES, st.booleans()),
        _named(isolators.OOM_SCORE_ADJ, st.integers(-1000, 1000)),
        _named(isolators.CPU_SHARES, st.integers(2, 262144)),
        _named(
            isolators.SELINUX_CONTEXT,
            st.builds(SELinuxContext, user=names, role=names, type=names, level=names),
        ),
        _named(isolators.APPARMOR_PROFILE, st.builds(AppArmorProfile, profile=names)),
        _resource(isolators.MEMORY, {"16M": 16 * 10**6, "1.5Ki": 1536}),
        _resource(isolators.CPU, {"500m": 500, "2": 2000}),
    ),
    max_size=4,
    unique_by=lambda isolator: isolator.name,
)

apps = st.builds(
    App,
    exec=st.lists(texts, max_size=4),
    user=owners,
    group=owners,
    supplementary_gids=st.lists(ids, max_size=3),
    event_handlers=st.dictionaries(st.sampled_from(["pre-start", "post-stop"]), st.lists(texts, max_size=2)),
    working_directory=st.just("") | absolute_paths,
    environment=st.dictionaries(variables, texts, max_size=4),
    mount_points=st.lists(mount_points, max_size=3),
    ports=st.lists(ports(), max_size=2),
    isolators=app_isolators,
    user_annotations=st.dictionaries(texts, texts, max_size=2),
    user_labels=st.dictionaries(texts, texts, max_size=2),
)

annotation_maps = st.dictionaries(
    identifiers.filter(lambda name: name not in {"created", "homepage", "documentation"}).map(str),
    texts,
    max_size=3,
)

image_manifests = st.builds(
    ImageManifest,
    name=identifiers,
    labels=labels(),
    app=st.none() | apps,
    annotations=annotation_maps,
    dependencies=st.lists(
        st.builds(
            Dependency,
            image_name=identifiers,
            image_id=st.just("") | image_ids,
            labels=labels(),
            size_bytes=st.integers(0, 2**40),
        ),
        max_size=2,
    ),
    path_whitelist=st.lists(absolute_paths.filter(lambda path: ".." not in path), max_size=3),
)

_flags = st.none() | st.booleans()
volumes = st.builds(
    Volume, name=names, kind=st.just("host"), source=absolute_paths, read_only=_flags, recursive=_flags
) | st.builds(
    Volume, name=names, kind=st.just("empty"), read_only=_flags, mode=st.integers(0, 0o7777), uid=ids, gid=ids
)

pod_manifests = st.builds(
    PodManifest,
    apps=st.lists(
        st.builds(
            RuntimeApp,
            name=names,
            image_id=image_ids,
            image_name=st.none() | identifiers,
            image_labels=labels(),
            app=st.none() | apps,
            readonly_rootfs=st.booleans(),
            mounts=st.lists(
                st.builds(Mount, volume=names, path=full_texts, app_volume=st.none() | volumes), max_size=3
            ),
            annotations=annotation_maps,
        ),
        max_size=3,
        unique_by=lambda app: app.name,
    ),
    volumes=st.lists(volumes, max_size=3, unique_by=lambda volume: volume.name),
    isolators=app_isolators,
    annotations=annotation_maps,
    ports=st.lists(
        st.builds(
            ExposedPort,
            name=names,
            host_port=st.integers(1, 65535),
            host_ip=st.sampled_from(["", "127.0.0.1", "::1"]),
            pod_port=st.none() | ports(),
        ),
        max_size=2,
    ),
    user_annotations=st.dictionaries(texts, texts, max_size=2),
    user_labels=st.dictionaries(texts, texts, max_size=2),
)
