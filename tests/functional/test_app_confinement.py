# SPDX-License-Identifier: Apache-2.0
"""Capabilities, system call filters and privileges of apps, by image, by flag and by pod manifest.

Rows C1 to C13, S1 to S11, A1 to A6, P16 and P17 of spec *runtime* §6, R24 and R29 of spec *cli* §10.8. Where the answer is
not rkt's, ``docs/compatibility.md`` says why. Apps that need nothing special share a pod, which is what row C7 asks for.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from rkt.linux import capabilities
from rkt.schema.isolators import DEFAULT_CAPABILITIES
from tests.lib.flavors import pods
from tests.lib.images import Images, fetch
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Result

pytestmark = [pytest.mark.root, pods("confinement")]

INSECURE = "--insecure-options=image"
DEFAULT = frozenset(DEFAULT_CAPABILITIES)
RETAIN, REMOVE = "os/linux/capabilities-retain-set", "os/linux/capabilities-remove-set"
CALLS_RETAIN, CALLS_REMOVE = "os/linux/seccomp-retain-set", "os/linux/seccomp-remove-set"
PRIVILEGES = "os/linux/no-new-privileges"
#: rkt's default, of which ours is a part.
FOURTEEN = [*DEFAULT_CAPABILITIES, "CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"]
#: What systemd-nspawn keeps, less what a host below another engine may lack.
NSPAWN = [
    *FOURTEEN, "CAP_AUDIT_CONTROL", "CAP_DAC_READ_SEARCH", "CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BROADCAST", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_TTY_CONFIG",
]  # fmt: skip
#: What ``stat`` is to the C libraries of today.
STAT = ["stat", "lstat", "newfstatat", "statx"]

_SHOW = """
grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/self/status | while read name value rest; do
  echo "$AC_APP_NAME $name $value"
done
echo "$AC_APP_NAME stat: $(stat -c works / 2>&1)"
"""


class Seen(NamedTuple):
    """What an app said of itself."""

    bounding: frozenset[str]
    permitted: frozenset[str]
    effective: frozenset[str]
    passed_on: int
    no_new_privileges: int
    has_filter: bool
    uid: int
    stat: str


@pytest.fixture(scope="module")
def engine(rkt_binary: str, flavor: str) -> Iterator[Rkt]:
    """An engine for all tests here, with its images."""
    rkt = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor=flavor)
    try:
        yield rkt
    finally:
        rkt.close()


class Apps:
    """Makes images with isolators, each once, and runs them."""

    def __init__(self, engine: Rkt, images: Images) -> None:
        self.engine = engine
        self._images = images
        self._made: dict[str, str] = {}

    def image(self, *isolators: tuple[str, Any]) -> str:
        """Key of a stored image that shows what its app can do."""
        key = json.dumps(isolators)
        if key not in self._made:
            number = len(self._made)
            path = self._images.busybox(
                f"example.com/confined-{number}",
                ("/bin/sh", "-c", _SHOW),
                app={"isolators": [{"name": name, "value": value} for name, value in isolators]},
            )
            self._made[key] = fetch(self.engine, path)
        return self._made[key]

    def run(
        self, *words: str, insecure: str = "image", prepared: bool = False
    ) -> tuple[Result, dict[str, Seen]]:
        """Run a pod at once, or prepare it and run it then; what its apps said, by name."""
        option = f"--insecure-options={insecure}"
        if prepared:
            uuid = self.engine.run(option, "prepare", *words, check=0).stdout.strip()
            result = self.engine.run(option, "run-prepared", uuid, check=0)
        else:
            result = self.engine.run(option, "run", *words, check=0)
        said: dict[str, dict[str, str]] = {}
        for line in result.lines:
            # Of several apps each line says whose it is.
            app, name, value = (line.partition("]: ")[2] or line).split(" ", 2)
            said.setdefault(app, {})[name.rstrip(":")] = value
        return result, {app: _seen(values) for app, values in said.items()}

    def one(self, image: str, *flags: str, **how: Any) -> Seen:
        """Run a pod of one app."""
        _, seen = self.run(image, "--name=only", *flags, **how)
        return seen["only"]


def _seen(values: dict[str, str]) -> Seen:
    sets = {name: int(values[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")}
    return Seen(
        bounding=frozenset(capabilities.names(sets["CapBnd"])),
        permitted=frozenset(capabilities.names(sets["CapPrm"])),
        effective=frozenset(capabilities.names(sets["CapEff"])),
        passed_on=sets["CapInh"] | sets["CapAmb"],
        no_new_privileges=int(values["NoNewPrivs"]),
        has_filter=values["Seccomp"] == "2",
        uid=int(values["Uid"]),
        stat=values["stat"],
    )


@pytest.fixture(scope="module")
def apps(engine: Rkt, images: Images) -> Apps:
    """Images and runs."""
    return Apps(engine, images)


def _retain(*names: str) -> tuple[str, Any]:
    return RETAIN, {"set": list(names)}


def _remove(*names: str) -> tuple[str, Any]:
    return REMOVE, {"set": list(names)}


def _calls(kind: str, names: list[str], errno: str = "") -> tuple[str, Any]:
    return kind, {"set": names, **({"errno": errno} if errno else {})}


#: (row, isolators of the image, flags, capabilities that are left)
CAPABILITY_ROWS: list[tuple[str, list[tuple[str, Any]], list[str], frozenset[str]]] = [
    ("c1", [], [], DEFAULT),
    ("c2-image", [_retain("CAP_NET_ADMIN")], [], frozenset()),
    ("c2-flag", [], ["--caps-retain=CAP_NET_ADMIN"], frozenset({"CAP_NET_ADMIN"})),
    ("c2-old", [], ["--cap-retain=CAP_NET_ADMIN"], frozenset({"CAP_NET_ADMIN"})),
    ("c3-one", [_retain("CAP_CHOWN")], [], frozenset({"CAP_CHOWN"})),
    (
        "c3-mixed",
        [],
        ["--caps-retain=CAP_CHOWN,CAP_SYS_PTRACE,CAP_KILL,CAP_MKNOD"],
        frozenset({"CAP_CHOWN", "CAP_SYS_PTRACE", "CAP_KILL", "CAP_MKNOD"}),
    ),
    ("c3-nspawn", [], [f"--caps-retain={','.join(NSPAWN)}"], frozenset(NSPAWN)),
    ("c4-image", [_remove("CAP_CHOWN")], [], DEFAULT - {"CAP_CHOWN"}),
    ("c4-flag", [], ["--caps-remove=CAP_CHOWN"], DEFAULT - {"CAP_CHOWN"}),
    ("c4-old", [], ["--cap-remove=CAP_CHOWN"], DEFAULT - {"CAP_CHOWN"}),
    ("c5", [_remove("CAP_SYS_ADMIN")], [], DEFAULT),
    ("c6-two", [_remove("CAP_CHOWN", "CAP_SYS_ADMIN")], [], DEFAULT - {"CAP_CHOWN"}),
    ("c6-all", [_remove(*FOURTEEN)], [], frozenset()),
    (
        "c6-but-one",
        [_remove(*(name for name in FOURTEEN if name != "CAP_SYS_CHROOT"))],
        [],
        frozenset({"CAP_SYS_CHROOT"}),
    ),
    ("c6-more", [_remove(*FOURTEEN, "CAP_SYS_ADMIN")], [], frozenset()),
    ("c8-remove", [_remove("CAP_CHOWN")], ["--cap-retain=CAP_SYS_ADMIN"], frozenset({"CAP_SYS_ADMIN"})),
    ("c8-retain", [_retain("CAP_MKNOD")], ["--cap-retain=CAP_SYS_ADMIN"], frozenset({"CAP_SYS_ADMIN"})),
    ("c9-remove", [_remove("CAP_CHOWN")], ["--cap-remove=CAP_KILL"], DEFAULT - {"CAP_KILL"}),
    ("c9-retain", [_retain("CAP_MKNOD")], ["--cap-remove=CAP_KILL"], DEFAULT - {"CAP_KILL"}),
    ("c13-user", [_retain("CAP_CHOWN")], ["--user=9000", "--group=9000"], frozenset({"CAP_CHOWN"})),
]


@pytest.fixture(scope="module")
def of_capabilities(apps: Apps) -> tuple[Result, dict[str, Seen]]:
    """One pod with an app for each row (C7)."""
    words: list[str] = []
    for row, isolators, flags, _ in CAPABILITY_ROWS:
        words += [apps.image(*isolators), f"--name={row}", *flags]
    return apps.run(*words)


@pytest.mark.parametrize(
    ("row", "left"),
    [(row, left) for row, _, _, left in CAPABILITY_ROWS],
    ids=[row[0] for row in CAPABILITY_ROWS],
)
def test_capabilities(
    of_capabilities: tuple[Result, dict[str, Seen]], row: str, left: frozenset[str]
) -> None:
    """An app has what its image leaves of the eleven, or exactly what the operator says (C1 to C9, C13, R24)."""
    seen = of_capabilities[1][row]
    assert seen.bounding == left
    assert seen.effective == seen.permitted == (left if seen.uid == 0 else frozenset())
    assert seen.passed_on == 0


def test_an_image_asks_in_vain_for_more(of_capabilities: tuple[Result, dict[str, Seen]]) -> None:
    """What an image may not have is named, with the flag that gives it."""
    wishes = [line for line in of_capabilities[0].stderr.splitlines() if "in vain" in line]
    assert [
        line for line in wishes if "CAP_NET_ADMIN: give them by --caps-retain" in line and "c2-image" in line
    ]
    # A flag replaces what the image says, so there is nothing left to say.
    assert not [line for line in wishes if "c8-retain" in line]


@pytest.mark.parametrize("prepared", [False, True], ids=["run", "run-prepared"])
@pytest.mark.parametrize("insecure", ["image,ondisk,paths", "all-fetch"])
def test_other_insecure_options_leave_capabilities(apps: Apps, insecure: str, prepared: bool) -> None:
    """C10: switching something else off gives no capability."""
    assert apps.one(apps.image(), insecure=insecure, prepared=prepared).bounding == DEFAULT


@pytest.mark.parametrize("prepared", [False, True], ids=["run", "run-prepared"])
@pytest.mark.parametrize("insecure", ["image,capabilities", "all"])
def test_insecure_capabilities(apps: Apps, insecure: str, prepared: bool) -> None:
    """C11: with ``capabilities`` an app has every capability that rkt has, up to the kernel's last."""
    own = capabilities.names(capabilities.read_status()["CapPrm"])
    assert apps.one(apps.image(_retain("CAP_CHOWN")), insecure=insecure, prepared=prepared).effective == set(
        own
    )


@pytest.mark.parametrize("prepared", [False, True], ids=["run", "run-prepared"])
def test_capabilities_of_a_pod_manifest(apps: Apps, tmp_path: os.PathLike[str], prepared: bool) -> None:
    """P16, P17: the manifest's app replaces the image's, and a pod manifest is the operator's word."""
    plain = apps.image()
    manifest = json.loads(apps.engine.run("image", "cat-manifest", plain, check=0).stdout)
    pod: dict[str, Any] = {"acVersion": "0.8.11", "acKind": "PodManifest", "apps": []}
    for name, own, said in (
        ("p16", [_retain("CAP_NET_ADMIN")], []),
        ("p17", [_retain("CAP_NET_BIND_SERVICE")], [_retain("CAP_NET_ADMIN")]),
        ("s8", [], [(PRIVILEGES, False)]),
        ("both", [], [(PRIVILEGES, False), (PRIVILEGES, True)]),
        ("image", [_retain("CAP_CHOWN", "CAP_NET_ADMIN", "CAP_WINGS"), (PRIVILEGES, False)], None),
    ):
        image = apps.image(*own)
        (identity,) = [
            line.split()[0]
            for line in apps.engine.run(
                "image", "list", "--no-legend", "--full", "--fields=id", check=0
            ).lines
            if line.strip().startswith(image[:20])
        ]
        pod["apps"].append({"name": name, "image": {"id": identity}})
        if said is not None:
            isolators = [{"name": n, "value": v} for n, v in said]
            pod["apps"][-1]["app"] = {**manifest["app"], "isolators": isolators}
    path = os.path.join(tmp_path, "pod.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(pod, file)
    _, seen = apps.run(f"--pod-manifest={path}", prepared=prepared)
    assert seen["p16"].bounding == DEFAULT
    assert seen["p17"].bounding == {"CAP_NET_ADMIN"}
    assert seen["s8"].no_new_privileges == 0
    # The filter stays, although it takes privileges to install it then.
    assert seen["s8"].has_filter
    assert seen["both"].no_new_privileges == 1
    # Without an app section the image's counts, which only confines.
    assert seen["image"].bounding == {"CAP_CHOWN"}
    assert seen["image"].no_new_privileges == 1


_STAT_GONE = _calls(CALLS_REMOVE, STAT, "EXFULL")
#: (row, isolators of the image, flags, what ``stat`` says)
WORKS = "works"
FILTER_ROWS: list[tuple[str, list[tuple[str, Any]], list[str], str]] = [
    ("s1-none", [], [], WORKS),
    ("s1-all", [_calls(CALLS_RETAIN, ["@appc.io/all"])], [], WORKS),
    ("s1-empty", [_calls(CALLS_REMOVE, ["@appc.io/empty"])], [], WORKS),
    ("s1-black", [_calls(CALLS_REMOVE, ["@rkt/default-blacklist"])], [], WORKS),
    ("s1-docker-black", [_calls(CALLS_REMOVE, ["@docker/default-blacklist"], "EPERM")], [], WORKS),
    ("s1-reboot", [_calls(CALLS_REMOVE, ["reboot"])], [], WORKS),
    ("s1-white", [_calls(CALLS_RETAIN, ["@rkt/default-whitelist"])], [], WORKS),
    ("s1-docker", [_calls(CALLS_RETAIN, ["@docker/default-whitelist"])], [], WORKS),
    ("s2", [_STAT_GONE], [], "Exchange full"),
    ("s3-group", [_calls(CALLS_REMOVE, ["reboot"])], ["--group=100"], WORKS),
    ("s3-user", [_calls(CALLS_REMOVE, ["reboot"])], ["--user=1000"], WORKS),
    ("s4", [_STAT_GONE], ["--seccomp=mode=retain,@appc.io/all"], WORKS),
    ("s5", [], [f"--seccomp=mode=remove,errno=EXFULL,{','.join(STAT)}"], "Exchange full"),
    (
        "s5-user",
        [],
        [f"--seccomp=errno=EMULTIHOP,{','.join(STAT)},mode=remove", "--user=1000"],
        "Multihop attempted",
    ),
]


@pytest.fixture(scope="module")
def of_filters(apps: Apps) -> tuple[Result, dict[str, Seen]]:
    """One pod with an app for each row."""
    words: list[str] = []
    for row, isolators, flags, _ in FILTER_ROWS:
        words += [apps.image(*isolators), f"--name={row}", *flags]
    return apps.run(*words)


@pytest.mark.parametrize(
    ("row", "says"), [(row, says) for row, _, _, says in FILTER_ROWS], ids=[row[0] for row in FILTER_ROWS]
)
def test_filters(of_filters: tuple[Result, dict[str, Seen]], row: str, says: str) -> None:
    """Named sets, removed calls with their errno, and flags over images do what they say (S1 to S5, R24)."""
    seen = of_filters[1][row]
    assert says in seen.stat
    assert seen.has_filter == (row != "s4")


def test_an_image_does_not_take_the_filter_off(of_filters: tuple[Result, dict[str, Seen]]) -> None:
    """An image that retains everything keeps the default filter, and is told so; the operator may (S1, S4)."""
    result, seen = of_filters
    assert seen["s1-all"].has_filter
    assert "wider system call filter: choose one by --seccomp" in result.stderr
    assert not seen["s4"].has_filter


@pytest.mark.parametrize(
    ("insecure", "says"),
    [
        ("image,ondisk,capabilities,paths", "Multihop attempted"),
        ("image,seccomp", WORKS),
        ("image,all-run", WORKS),
    ],
)
def test_insecure_seccomp(apps: Apps, insecure: str, says: str) -> None:
    """S6, S7: only ``seccomp``, by itself or in ``all-run``, takes the filter off."""
    image = apps.image(_calls(CALLS_REMOVE, STAT, "EMULTIHOP"))
    seen = apps.one(image, insecure=insecure)
    assert says in seen.stat
    assert seen.has_filter == (says != WORKS)


#: (row, isolators of the image, flags, no_new_privs)
PRIVILEGE_ROWS: list[tuple[str, list[tuple[str, Any]], list[str], int]] = [
    ("s8-true", [(PRIVILEGES, True)], [], 1),
    ("s8-absent", [], [], 1),
    ("s8-false", [(PRIVILEGES, False)], [], 1),
    ("s8-flag", [], ["--no-new-privileges=false"], 0),
    ("s8-flag-over", [(PRIVILEGES, True)], ["--no-new-privileges=false"], 0),
    ("s9", [(PRIVILEGES, False), (PRIVILEGES, True)], [], 1),
    ("s10-filter", [], ["--user=1000", "--no-new-privileges=false"], 1),
    ("s11", [(PRIVILEGES, True)], ["--user=1000"], 1),
]


@pytest.fixture(scope="module")
def of_privileges(apps: Apps) -> tuple[Result, dict[str, Seen]]:
    """One pod with an app for each row."""
    words: list[str] = []
    for row, isolators, flags, _ in PRIVILEGE_ROWS:
        words += [apps.image(*isolators), f"--name={row}", *flags]
    return apps.run(*words)


@pytest.mark.parametrize(
    ("row", "value"),
    [(row, value) for row, _, _, value in PRIVILEGE_ROWS],
    ids=[row[0] for row in PRIVILEGE_ROWS],
)
def test_no_new_privileges(of_privileges: tuple[Result, dict[str, Seen]], row: str, value: int) -> None:
    """no_new_privs is on unless the operator says otherwise, and always where a user is filtered (S8, S9, S11)."""
    assert of_privileges[1][row].no_new_privileges == value
    assert of_privileges[1][row].has_filter


def test_a_user_without_filter_may_keep_privileges(apps: Apps) -> None:
    """S10: without a filter nothing forces no_new_privs on a user."""
    flags = ("--user=1000", "--no-new-privileges=false")
    assert apps.one(apps.image(), *flags, insecure="image,seccomp").no_new_privileges == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--caps-retain=CAP_WINGS", "unknown capability CAP_WINGS"),
        ("--caps-remove=CAP_WINGS", "unknown capability CAP_WINGS"),
        ("--caps-retain=WINGS", "invalid capability"),
        ("--seccomp=mode=remove,sokcet", "no system call is named sokcet"),
        ("--seccomp=mode=remove,errno=EWHATEVER,stat", "unknown errno EWHATEVER"),
        ("--seccomp=mode=retain,@rkt/nothing", "unknown seccomp wildcard"),
        ("--seccomp=mode=remove,@appc.io/all", "would leave no system call"),
        ("--no-new-privileges=maybe", "--no-new-privileges must be set with a boolean"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "prepare"])
def test_what_cannot_be_confined_so_is_no_pod(apps: Apps, verb: str, flag: str, message: str) -> None:
    """A name that nobody knows is an error before there is a pod."""
    before = apps.engine.pods()
    result = apps.engine.run(INSECURE, verb, apps.image(), flag, check=254)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert apps.engine.pods() == before


def test_conflicts(apps: Apps) -> None:
    """R24: capabilities are retained or removed, not both; an app has one filter."""
    both = ("--caps-retain=CAP_CHOWN", "--caps-remove=CAP_KILL")
    refused = apps.engine.run(INSECURE, "run", apps.image(), *both, check=254)
    assert "cannot use both --caps-retain and --caps-remove on the same image" in refused.stderr


def test_what_rkt_itself_lacks(apps: Apps) -> None:
    """A capability that rkt does not have is refused by name if asked for, and left out otherwise."""
    lacking = capabilities.names(capabilities.missing(capabilities.full_mask()))
    if not lacking:
        pytest.skip("this host gives root every capability")
    refused = apps.engine.run(INSECURE, "run", apps.image(), f"--caps-retain={lacking[0]}", check=254)
    assert f"cannot keep {lacking[0]}" in refused.stderr


#: Kernels are built without magic keys and the image of their memory; what every kernel has takes their place.
_TRIGGER = "/proc/sysrq-trigger" if os.path.exists("/proc/sysrq-trigger") else "/proc/sys/kernel/core_pattern"
_MEMORY = "/proc/kcore" if os.path.exists("/proc/kcore") else "/proc/interrupts"
_FILES = f"""
stat -c 'firmware %A' /sys/firmware
stat -c 'memory %A' {_MEMORY}
stat -L -c 'ptmx %A %u:%g %t:%T' /dev/ptmx
"""
#: A4 to A6: (what is made, major, minor).
_NODES = "".join(
    f"mknod /{name} c {major} {minor} 2>/dev/null && echo made {name}\n"
    for name, major, minor in (("null", 1, 3), ("ptmx", 5, 2), ("fd", 10, 237))
)


@pytest.mark.parametrize("prepared", [False, True], ids=["run", "run-prepared"])
@pytest.mark.parametrize("insecure", ["image", "image,ondisk,capabilities", "all-fetch"])
def test_protected_paths(apps: Apps, insecure: str, prepared: bool) -> None:
    """A1 to A3, R29: sensitive paths cannot be written, and are hidden, whatever else is switched off."""
    script = f"(echo h > {_TRIGGER}) 2>&1 | sed 's/.*: //'\n{_FILES}"
    lines = _script(apps, script, insecure=insecure, prepared=prepared)
    assert lines == [
        "Read-only file system",
        "firmware d---------",
        "memory ----------",
        "ptmx crw-rw-rw- 0:0 5:2",
    ]


def test_insecure_paths(apps: Apps) -> None:
    """R29: with ``paths`` they are as the kernel shows them."""
    lines = _script(apps, f"(: >> {_TRIGGER}) && echo writable\n{_FILES}", insecure="image,paths")
    assert lines[0] == "writable"
    assert "memory ----------" not in lines
    assert "firmware d---------" not in lines


def test_device_nodes(apps: Apps) -> None:
    """A4, A5: no node without CAP_MKNOD, which rkt gave by default; with it, those that an app may use anyway."""
    assert _script(apps, _NODES) == []
    assert _script(apps, _NODES, "--caps-retain=CAP_MKNOD") == ["made null"]


def test_device_nodes_with_insecure_paths(apps: Apps) -> None:
    """A6: ``paths`` lifts the device policy as well."""
    assert _script(apps, _NODES, "--caps-retain=CAP_MKNOD", insecure="image,paths") == [
        "made null",
        "made ptmx",
        "made fd",
    ]


def _script(
    apps: Apps, script: str, *flags: str, insecure: str = "image", prepared: bool = False
) -> list[str]:
    """Lines that a shell in an app prints."""
    option = f"--insecure-options={insecure}"
    words = (apps.image(), "--exec=/bin/sh", *flags, "--", "-c", script + "\ntrue")
    if prepared:
        uuid = apps.engine.run(option, "prepare", *words, check=0).stdout.strip()
        return apps.engine.run(option, "run-prepared", uuid, check=0).lines
    return apps.engine.run(option, "run", *words, check=0).lines


@pytest.mark.parametrize(
    ("insecure", "flags"),
    [
        ("image", ("--caps-retain=CAP_KILL,CAP_NET_ADMIN",)),
        ("image,all-run", ()),
        ("image", ("--no-new-privileges=false", f"--seccomp=mode=remove,errno=EXFULL,{','.join(STAT)}")),
        ("image", ("--user=1000",)),
    ],
    ids=["capabilities", "all-run", "filter", "user"],
)
def test_entering_is_confined_as_the_app_is(apps: Apps, insecure: str, flags: tuple[str, ...]) -> None:
    """Through ``enter`` and ``app exec`` a command has what isolators and insecure options gave the app, no more, no less."""
    name = "entered"
    script = "sh -c 'AC_APP_NAME=only; " + _SHOW.replace("'", "'\\''") + "'; exec sleep 600"
    process = apps.engine.popen(
        f"--insecure-options={insecure}", "run", f"--name={name}", apps.image(), "--name=only", "--exec=/bin/sh",
        *flags, "--", "-c", script,
    )  # fmt: skip
    try:
        wait_for(lambda: len(process.stdout_text.splitlines()) == 9, "what the app says of itself")
        texts = [
            apps.engine.run(*verb, name, "/bin/sh", "-c", _SHOW, check=0).stdout
            for verb in (("enter",), ("app", "exec"))
        ]
        own = process.stdout_text
        assert texts == [own, own]
    finally:
        apps.engine.run("stop", "--force", name)
        process.wait(20)
        apps.engine.run("rm", name)
