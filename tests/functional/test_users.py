# SPDX-License-Identifier: Apache-2.0
"""As whom an app runs (spec runtime §3.7, §6.2, spec cli §10.8 R15, R16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import Entry
from tests.lib.flavors import pods
from tests.lib.idmap import needs_idmapped_mounts
from tests.lib.inspect import INSECURE, inspect_image, run_apps, shell_app, stored

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

#: Row -> (user and group of the image, flags, expected).
ROWS = {
    "U1": ("0", "0", (), "0:0"),
    "U2": ("0", "0", ("--user=200",), "200:0"),
    "U3": ("0", "0", ("--group=300",), "0:300"),
    "U4": ("0", "0", ("--user=200", "--group=300"), "200:300"),
    "U5": ("0", "0", ("--user=user1", "--group=300"), "1000:300"),
    "U6": ("0", "0", ("--user=200", "--group=group1"), "200:100"),
    "U7": ("400", "500", (), "400:500"),
    "U8": ("400", "500", ("--user=200",), "200:500"),
    "U9": ("400", "500", ("--group=300",), "400:300"),
    "U10": ("400", "500", ("--user=200", "--group=300"), "200:300"),
    "U11": ("400", "500", ("--user=user1", "--group=group1"), "1000:100"),
    "U12": ("root", "root", (), "0:0"),
    "U13": ("0", "0", ("--user=root", "--group=root"), "0:0"),
    "U14": ("0", "0", ("--user=/bin/busybox", "--group=/bin/busybox"), "0:0"),
    "U14-other-owner": ("0", "0", ("--user=/owned", "--group=/owned"), "1234:4321"),
    "U14-owner-of-a-link": ("0", "0", ("--user=/link-out", "--group=/link-out"), "0:0"),
}


@pytest.fixture(
    scope="module",
    params=[
        "",
        pytest.param("--private-users", marks=[needs_idmapped_mounts, pods("user namespaces")]),
        pytest.param("--private-users --no-overlay", marks=pods("user namespaces")),
    ],
)
def identities(request: pytest.FixtureRequest, module_rkt: Rkt, images: Images) -> dict[str, str]:
    """What each row's app says of itself, where there may be several all in one pod, each with others before and after it."""
    owned = [Entry("rootfs/owned", uid=1234, gid=4321)]
    paths: dict[tuple[str, str], str] = {}
    apps: list[list[str]] = []
    for row, (user, group, flags, _) in ROWS.items():
        if (user, group) not in paths:
            path = inspect_image(
                images,
                f"users-{user}-{group}",
                app={"user": user, "group": group},
                entries=owned,
                links={"link-out": "/owned"},
            )
            paths[user, group] = stored(module_rkt, path)
        apps.append(shell_app(paths[user, group], row.lower(), "echo $(id -u):$(id -g)", *flags))
    return run_apps(module_rkt, apps, *request.param.split())


@pytest.mark.representative
@pytest.mark.parametrize("row", ROWS)
def test_an_app_runs_as_its_image_says_or_else_its_flags(identities: dict[str, str], row: str) -> None:
    """Numbers, names and owners of files, given by the image or by flags, each alone and both (runtime U1-U14, cli R15)."""
    assert identities[row.lower()] == f"{ROWS[row][3]}\n"


@pods("supervision")
@pytest.mark.representative
@pytest.mark.parametrize(
    "flags",
    [[], pytest.param(["--private-users"], marks=[needs_idmapped_mounts, pods("user namespaces")])],
    ids=["host's users", "own users"],
)
def test_another_user_can_open_its_streams(module_rkt: Rkt, images: Images, flags: list[str]) -> None:
    """An app that is not root can open ``/dev/stdout`` and ``/dev/stderr``, as many programs that log there do."""
    image = stored(module_rkt, inspect_image(images, "streams"))
    script = "echo out > /dev/stdout; echo err > /dev/stderr; id -u"
    done = module_rkt.run("run", INSECURE, *flags, *shell_app(image, "app", script, "--user=user1"), check=0)
    assert done.stdout == "out\n1000\n"
    assert done.stderr.endswith("err\n")


@pytest.mark.representative
def test_supplementary_groups(module_rkt: Rkt, images: Images) -> None:
    """An app has the groups of its image or of its flags, its own group among them, and none of the host's (runtime R29, cli R16, RN12)."""
    image = stored(
        module_rkt,
        inspect_image(images, "groups", app={"supplementaryGIDs": [400, 500, 1200]}),
    )
    script = "id -G; sed -n 's/^Groups:[[:space:]]*//p' /proc/self/status"
    apps = [
        shell_app(image, "image", script),
        shell_app(image, "flag", script, "--supplementary-gids=7,8", "--supplementary-gids=9"),
        shell_app(image, "user", script, "--user=200", "--group=300"),
        shell_app(image, "repeated", script, "--group=500"),
    ]
    said = run_apps(module_rkt, apps)
    assert {name: text.replace(" \n", "\n").splitlines() for name, text in said.items()} == {
        "image": ["0 400 500 1200", "0 400 500 1200"],
        "flag": ["0 7 8 9", "0 7 8 9"],
        "user": ["300 400 500 1200", "300 400 500 1200"],
        "repeated": ["500 400 1200", "400 500 1200"],
    }


def test_a_converted_image_whose_user_and_group_are_one_word(module_rkt: Rkt, images: Images) -> None:
    """A Docker image names a user only: its group is then the user's id where no group has that name (spec runtime §3.7)."""
    repository = [{"name": "appc.io/docker/repository", "value": "library/inspect"}]
    converted, plain = (
        stored(
            module_rkt,
            inspect_image(
                images,
                f"one-word-{name}",
                name=f"example.com/{name}",
                app={"user": "user1", "group": "user1"},
                annotations=annotations,
            ),
        )
        for name, annotations in (("converted", repository), ("plain", []))
    )
    assert (
        module_rkt.run("run", INSECURE, converted, "--", "-c", "id -u; id -g", check=0).stdout
        == "1000\n1000\n"
    )
    for image, flags in ((plain, ()), (converted, ("--group=group2",)), (converted, ("--user=user2",))):
        refused = module_rkt.run("run", INSECURE, image, *flags, "--", "-c", "id", check=254)
        assert "not found" in refused.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--user=4294967295", "ids go from 0 to 4294967294"),
        ("--user=99999999999999999999", "ids go from 0 to 4294967294"),
        ("--group=4294967296", "ids go from 0 to 4294967294"),
        ("--user=", "user is required"),
        ("--group=a:b", "a number, a name or an absolute path is expected"),
        ("--user=a\nb", "a number, a name or an absolute path is expected"),
        ("--supplementary-gids=4294967295", "is not a gid"),
        ("--supplementary-gids=1,,2", "is not a gid"),
        ("--supplementary-gids=group1", "is not a gid"),
    ],
)
def test_ids_that_cannot_be_are_refused_before_a_pod_exists(
    module_rkt: Rkt, images: Images, flag: str, message: str
) -> None:
    """An id that the kernel would wrap, or text that is neither number, name nor path, makes no pod (RN13)."""
    image = inspect_image(images)
    before = module_rkt.pods()
    result = module_rkt.run("run", INSECURE, image, flag, "--", "-c", "id", check=254)
    assert message in result.stderr
    assert module_rkt.pods() == before


@pytest.mark.representative
@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "binary"])
def test_account_files_that_are_traps(module_rkt: Rkt, images: Images, kind: str) -> None:
    """A passwd that is a FIFO, a link out of the image, a directory or no text blocks nothing and reads nothing of the host (UN18)."""
    passwd = {
        "fifo": Entry("rootfs/etc/passwd", b"6"),
        "link": Entry("rootfs/etc/passwd", b"2", link="../../../../../../../../../../etc/passwd", mode=0o777),
        "directory": Entry("rootfs/etc/passwd", b"5", mode=0o755),
        "binary": Entry("rootfs/etc/passwd", content=b"\0\xff\n:::::\ndaemon\0:x:1:1::/:\n"),
    }[kind]
    image = images.busybox(f"example.com/trap-{kind}", entries=[passwd], without=("etc/passwd",))
    result = module_rkt.run("run", INSECURE, image, "--user=daemon", "--", "-c", "id", check=254)
    assert "passwd cannot be used" in result.stderr or '"daemon" user not found' in result.stderr
