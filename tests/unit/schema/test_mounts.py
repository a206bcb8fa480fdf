# SPDX-License-Identifier: Apache-2.0
import pytest

from rkt.errors import InvalidManifest
from rkt.schema.appc import App, Mount, MountPoint, PodManifest, RuntimeApp, Volume
from rkt.schema.mounts import PairedMount, clean_path, named_volumes, pair_mounts
from rkt.values import ACName

IMAGE_ID = "sha512-" + "0" * 128
HOST = Volume(name=ACName("data"), kind="host", source="/srv")
EMPTY = Volume(name=ACName("data"), kind="empty", mode=0o123, uid=9991, gid=9992)


def point(name: str, path: str, *, read_only: bool = False) -> MountPoint:
    """A mount point of an image."""
    return MountPoint(name=ACName(name), path=path, read_only=read_only)


def pair(points: list[MountPoint], mounts: list[Mount], volumes: list[Volume]) -> list[PairedMount]:
    """The mounts of the only app of a pod."""
    runtime = RuntimeApp(name=ACName("app"), image_id=IMAGE_ID, mounts=mounts)
    pod = PodManifest(apps=[runtime], volumes=volumes)
    return pair_mounts(runtime, App(exec=["/x"], user="0", group="0", mount_points=points), pod)


def mount(path: str, volume: str = "data", own: Volume | None = None) -> Mount:
    """A mount of an app."""
    return Mount(volume=ACName(volume), path=path, app_volume=own)


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("/", "/"),
        ("", "/"),
        ("dir1", "/dir1"),
        ("/mnt/", "/mnt"),
        ("//a/./b//", "/a/b"),
        ("/dir1/../dir1/.//x", "/dir1/x"),
        ("/dir1/../../../foo", "/foo"),
        ("../../../../foo", "/foo"),
    ],
)
def test_clean_path(path: str, cleaned: str) -> None:
    """Cleaning starts at the root and never leaves it."""
    assert clean_path(path) == cleaned


def test_explicit_mount_needs_no_mount_point() -> None:
    """A mount is made although the image declares nothing (V8); a relative target starts at the root (V3)."""
    assert pair([], [mount("dir1")], [HOST]) == [
        PairedMount(
            name=ACName("data"),
            directory="data",
            path="/dir1",
            source="/srv",
            read_only=False,
            recursive=True,
        )
    ]


def test_volume_alone_serves_the_mount_point_of_its_name() -> None:
    """An image's mount point is served by a volume of the same name without any mount."""
    (paired,) = pair([point("data", "/var/data")], [], [HOST])
    assert (paired.path, paired.source, paired.implicit) == ("/var/data", "/srv", False)


def test_mount_point_with_a_mount_on_its_path_is_done() -> None:
    """A mount on the path of a mount point replaces it, whatever their names."""
    paired = pair([point("other", "/data/")], [mount("/data")], [HOST])
    assert [one.path for one in paired] == ["/data"]


def test_implicit_volume() -> None:
    """A mount point without volume gets an empty one that says so (V9)."""
    assert pair([point("cache", "/cache")], [], [HOST]) == [
        PairedMount(
            name=ACName("app-cache"),
            directory="app.cache.implicit",
            path="/cache",
            source=None,
            read_only=False,
            recursive=True,
            mode=0o755,
            uid=0,
            gid=0,
            implicit=True,
            kind="empty",
        )
    ]


def test_empty_volume_keeps_mode_and_owner() -> None:
    """Mode and owner of an empty volume are handed on (P5)."""
    (paired,) = pair([], [mount("/dir1")], [EMPTY])
    assert (paired.source, paired.mode, paired.uid, paired.gid) == (None, 0o123, 9991, 9992)


@pytest.mark.parametrize(
    ("volume", "image", "expected"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False), (True, True, True)],
)
@pytest.mark.parametrize("mounts", [[], [mount("/dir1")], [mount("/dir2")]])
def test_read_only(volume: bool | None, image: bool, expected: bool, mounts: list[Mount]) -> None:
    """The volume's word counts, else that of the mount point of the volume's name (P7, P8, P11, P12)."""
    paired = pair([point("data", "/dir1", read_only=image)], mounts, [HOST.replace(read_only=volume)])
    assert paired[0].read_only is expected


def test_read_only_by_path() -> None:
    """A volume of another name on a read-only mount point is read-only too."""
    assert pair([point("x", "/dir1", read_only=True)], [mount("/dir1/")], [HOST])[0].read_only


@pytest.mark.parametrize(
    ("stated", "default", "expected"), [(None, True, True), (None, False, False), (False, True, False)]
)
def test_recursive(stated: bool | None, default: bool, expected: bool) -> None:
    """Recursion is the volume's, else the flavour's default."""
    runtime = RuntimeApp(name=ACName("app"), image_id=IMAGE_ID, mounts=[mount("/x")])
    pod = PodManifest(apps=[runtime], volumes=[HOST.replace(recursive=stated)])
    app = App(exec=[], user="0", group="0")
    assert pair_mounts(runtime, app, pod, recursive_default=default)[0].recursive is expected


def test_first_mount_on_a_path_counts() -> None:
    """Of two mounts on one cleaned path the first is made (V18)."""
    other = Volume(name=ACName("other"), kind="host", source="/other")
    paired = pair([], [mount("/mnt"), mount("/mnt/", "other"), mount("/x/../mnt", "other")], [HOST, other])
    assert [(one.path, one.source) for one in paired] == [("/mnt", "/srv")]


def test_target_is_not_cleaned() -> None:
    """The target goes to stage1 as written, to be resolved along the image's links."""
    assert pair([], [mount("/dir1/../dir1/.//link/foo")], [HOST])[0].path == "/dir1/../dir1/.//link/foo"


def test_own_volume_of_an_app() -> None:
    """A mount's own volume comes before the pod's volume of that name."""
    own = Volume(name=ACName("data"), kind="host", source="/own")
    assert pair([], [mount("/x", own=own)], [HOST])[0].source == "/own"


def test_unknown_volume() -> None:
    """A mount of a volume that nobody declared is refused."""
    with pytest.raises(InvalidManifest, match='could not find volume "nope"'):
        pair([], [mount("/x", "nope")], [HOST])


@pytest.mark.parametrize("path", ["/", "", ".", "/x/..", "/proc", "proc/", "/proc/sys", "/x/../proc/1"])
def test_targets_that_are_refused(path: str) -> None:
    """Neither an image nor an operator mounts at or above /proc (invariant RN4)."""
    with pytest.raises(InvalidManifest, match="must not have a mount"):
        pair([], [mount(path)], [HOST])
    with pytest.raises(InvalidManifest, match="must not have a mount"):
        pair([point("data", path)], [], [HOST])


@pytest.mark.parametrize("path", ["/sys", "/sys/class", "/procx", "/dev/loop-control"])
def test_targets_that_are_allowed(path: str) -> None:
    """Volumes below /sys and /dev are the operator's right (V21 to V23, A7)."""
    assert pair([], [mount(path)], [HOST])[0].path == path


def test_implicit_volumes_of_two_apps_never_meet() -> None:
    """App a with point b-c and app a-b with point c get different volumes, whichever apps are beside them."""
    apps = [RuntimeApp(name=ACName(name), image_id=IMAGE_ID) for name in ("a", "a-b")]
    found = [
        pair_mounts(
            runtime,
            App(exec=[], user="0", group="0", mount_points=[point(name, "/x")]),
            PodManifest(apps=beside),
        )[0].directory
        for beside in (apps, apps[:1], [])
        for runtime, name in zip(apps, ("b-c", "c"), strict=True)
    ]
    assert found == ["a.b-c.implicit", "a-b.c.implicit"] * 3


def test_what_an_app_has_of_its_own_is_kept_apart() -> None:
    """A volume of the pod, one of the app's own and an implicit one, all called alike, share nothing."""
    own = Volume(name=ACName("data"), kind="tmpfs")
    found = pair([point("data", "/x"), point("cache", "/y")], [mount("/own", own=own)], [EMPTY])
    assert [(one.path, one.directory) for one in found] == [
        ("/own", "app.data"),
        ("/x", "data"),
        ("/y", "app.cache.implicit"),
    ]
    assert named_volumes(
        PodManifest(
            apps=[RuntimeApp(name=ACName("app"), image_id=IMAGE_ID, mounts=[mount("/own", own=own)])],
            volumes=[EMPTY],
        )
    ) == [("data", EMPTY), ("app.data", own)]


def test_one_name_for_two_volumes_of_an_app() -> None:
    """Two volumes of an app's own must not share a name; one may be mounted twice."""
    first, second = (Volume(name=ACName("v"), kind=kind) for kind in ("empty", "tmpfs"))
    assert len(pair([], [mount("/a", own=first), mount("/b", own=first)], [])) == 2
    with pytest.raises(InvalidManifest, match='app "app" has two volumes of its own named "v"'):
        pair([], [mount("/a", own=first), mount("/b", own=second)], [])
