# SPDX-License-Identifier: Apache-2.0
"""What a hostile member of the group ``rkt`` may put into the spool, and what root makes of it (sentences 45 to 50)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import RktError, StoreError
from rkt.fetch import spool as fetch_spool
from rkt.fetch.fetch import fetch_image
from rkt.fetch.report import Reporter
from rkt.linux import landlock, libc, mount
from rkt.privsep import confine
from rkt.schema.envelope import seal
from rkt.store.cas import Store
from rkt.store.pending import DEFAULT_SPOOL_LIMITS, Spool
from rkt.store.pending_gc import collect_spool
from tests.lib.isolated import errno_of, run_isolated
from tests.lib.members import ALICE, BOB, GROUP, Members, read, signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.store.pending import Pending as Claim
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        landlock.abi() == 0, reason="this kernel has no Landlock, so that members cannot fetch"
    ),
]

NAME = "example.com/app"
NEVER = "--pull-policy=never"
SECRET = b"root:$y$secret\n"


class Pending:
    """An image that Alice fetched, honestly; then its parts are replaced.

    Attributes:
        home, blob, signature, record: her paths.
        secret: a file that only root can read.
    """

    def __init__(self, rkt: Rkt, members: Members, images: Images) -> None:
        self.rkt, self.members = rkt, members
        members.trust(images)
        self.source = signed(images, members)
        self.key = members.run(ALICE, "fetch", "--full", self.source, check=0).lines[0]
        self.home = members.home(ALICE)
        self.blob = f"{self.home}/cas/blob/{self.key}"
        self.signature = f"{self.blob}.asc"
        self.record = f"{self.home}/cas/record/{self.key}"
        self.secret = f"{rkt.base}/secret"
        with open(self.secret, "wb") as file:
            file.write(SECRET)
        os.chmod(self.secret, 0o600)
        self.before = members.records()

    def settings(self) -> Settings:
        """For calling the engine's functions in this process."""
        libraries = [path for path in sys.path if path.endswith("site-packages")]
        source = os.path.join(os.path.dirname(os.path.dirname(self.rkt.binary)), "src")
        return Settings(
            installation=Installation(package_path=source, library_paths=libraries, stage1_images_path=""),
            data_dir=self.rkt.data,
            system_config_dir=self.rkt.system,
            local_config_dir=self.rkt.local,
        )

    def refused(self, *, reference: str = "", seconds: float = 20.0) -> str:
        """Root wants it, gets nothing, in time, and the secret is where it was; what root was told."""
        start = time.monotonic()
        result = self.rkt.run("prepare", NEVER, reference or self.key, check=254)
        assert time.monotonic() - start < seconds
        assert [key for key in self.members.records() if key not in self.before] in ([], [self.stage1()])
        assert read(self.secret) == SECRET
        assert "secret" not in result.stdout + result.stderr
        assert os.listdir(f"{self.rkt.data}/cas/tmp") == []
        return result.stderr

    def stage1(self) -> str:
        """Key of the stage1 image, which root imports first."""
        rows = self.rkt.run("image", "list", "--no-legend", "--full", "--fields=id,name", check=0).lines
        return next((row.split()[0] for row in rows if "/stage1-" in row), "")

    def replace(self, path: str, make: Callable[[str], object]) -> None:
        """Put something else in the place of a file; Alice's, whoever makes it."""
        os.unlink(path)
        make(path)
        os.chown(path, ALICE, GROUP, follow_symlinks=False)


@pytest.fixture
def members(rkt: Rkt) -> Members:
    """A data directory for members."""
    return Members(rkt)


@pytest.fixture
def pending(rkt: Rkt, members: Members, images: Images) -> Pending:
    """An image that a member fetched."""
    return Pending(rkt, members, images)


@pytest.mark.parametrize("part", ["blob", "signature", "record"])
@pytest.mark.parametrize("kind", ["link to a secret", "pipe", "directory"])
def test_what_is_no_file(pending: Pending, part: str, kind: str) -> None:
    """Sentence 47: a link to a file of root's, a named pipe or a directory in place of any part is neither followed nor waited for."""
    path: str = getattr(pending, part)
    make: dict[str, Callable[[str], object]] = {
        "link to a secret": lambda path: os.symlink(pending.secret, path),
        "pipe": os.mkfifo,
        "directory": os.mkdir,
    }
    pending.replace(path, make[kind])
    pending.refused()
    pending.rkt.run("image", "list", check=0)
    pending.rkt.run("image", "gc", check=0)
    assert read(pending.secret) == SECRET


@pytest.mark.parametrize("whose", ["root", "own"])
def test_hard_links(pending: Pending, whose: str) -> None:
    """Sentence 47: a file that belongs to somebody else, or that has another name, is not read."""
    if whose == "root":
        os.unlink(pending.blob)
        os.link(pending.secret, pending.blob)
        expected = "belongs to user 0"
    else:
        os.link(pending.blob, f"{pending.home}/cas/tmp/other")
        expected = "has other names"
    assert expected in pending.refused()


@pytest.mark.parametrize("directory", ["cas/blob", "cas/record", "cas", ""])
def test_directories_that_lead_elsewhere(pending: Pending, directory: str) -> None:
    """Sentence 47: no directory on the way may be a link, to root's own store least of all."""
    path = f"{pending.home}/{directory}".rstrip("/")
    os.rename(path, f"{pending.rkt.base}/moved")
    target = f"{pending.rkt.base}/moved"
    os.symlink(target, path)
    os.lchown(path, ALICE, GROUP)
    pending.refused()
    before = pending.members.records()
    os.unlink(path)
    os.symlink(f"{pending.rkt.data}/{directory or 'cas'}", path)
    os.lchown(path, ALICE, GROUP)
    pending.rkt.run("image", "list", check=0)
    pending.rkt.run("image", "gc", check=0)
    assert pending.members.records() == before
    assert os.path.isdir(f"{pending.rkt.data}/cas/layer")


@pytest.mark.parametrize("directory", ["cas/blob", "cas", ""])
def test_mounts_on_the_way(pending: Pending, directory: str) -> None:
    """Sentence 47: a file system that a member mounted there, which could keep root waiting for ever, is not entered."""
    path = os.fsencode(f"{pending.home}/{directory}")

    def body() -> list[object]:
        mount.attach(mount.create(b"tmpfs"), path)
        with Spool(pending.rkt.data) as spool:
            found = spool.pending()
            return [len(found), [_errno_of_open(spool, p) for p in found]]

    count, errors = run_isolated(body)
    assert errors == [errno.EXDEV] * count
    assert count == (1 if directory == "cas/blob" else 0)


def _errno_of_open(spool: Spool, found: Claim) -> int | None:
    with pytest.raises(StoreError) as caught:
        spool.open_blob(found)
    return caught.value.__cause__.errno if isinstance(caught.value.__cause__, OSError) else None


def test_a_lease_does_not_keep_root_waiting(pending: Pending) -> None:
    """Sentence 47: a lease that the member holds on the file is not waited for."""
    code = (
        "import fcntl, os, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN); fd = os.open(sys.argv[1], os.O_RDWR); "
        f"fcntl.fcntl(fd, {fcntl.F_SETLEASE}, {fcntl.F_WRLCK}); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-IS", "-c", code, pending.blob],
        user=ALICE,
        group=ALICE,
        extra_groups=[GROUP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        pending.refused(seconds=10)
    finally:
        holder.communicate()


def test_a_giant_with_holes(pending: Pending) -> None:
    """Sentence 47: a file of a terabyte that takes no room is refused at once, before a byte of it is copied."""
    os.truncate(pending.blob, 1 << 40)
    assert "has 1099511627776 bytes, at most" in pending.refused(seconds=10)


def test_another_signed_image_in_its_place(
    pending: Pending, members: Members, images: Images, rkt: Rkt
) -> None:
    """Sentence 45: an image that is signed, but is not the one that the record speaks of, is refused and removed."""
    other = signed(images, members, NAME, file="other-version", labels={"version": "0.9"})
    for source, target in ((other, pending.blob), (f"{other}.asc", pending.signature)):
        data = read(source)
        with open(target, "wb") as file:
            file.write(data)
    assert "it is said to be" in pending.refused(reference=f"{NAME}:1.0")
    assert members.kept(ALICE) == []
    assert members.names() == {}


@pytest.mark.parametrize(
    "lie",
    [
        {"name": "example.com/other"},
        {"labels": {"os": "linux", "version": "9.9"}},
        {"id": "sha512-" + "ab" * 64},
        {"name": "../../../etc/shadow"},
        {"name": "example.com/\x1b[2J"},
        {"labels": {"version": 7}},
        {"labels": "x"},
        {"size": 10**30},
        {"size": -1},
        {"labels": {"version": "1\nsha512-0\texample.com/forged"}},
        {"labels": {"version": "1" * 10_000}},
    ],
    ids=[
        "name",
        "label",
        "id",
        "traversal",
        "escape",
        "number",
        "types",
        "size",
        "negative",
        "table",
        "long",
    ],
)
def test_records_that_lie(pending: Pending, images: Images, lie: dict[str, object]) -> None:
    """Sentence 45: name, labels and ID that a record claims are the image's, or the image is refused; a bad record is none."""
    from rkt.schema.envelope import open_sealed

    _, body = open_sealed(read(pending.record), "rkt.image", "record")
    body |= lie
    key = str(body["id"])[: 7 + 64]
    os.unlink(pending.record)
    for path in (pending.blob, pending.signature):
        os.rename(path, path.replace(pending.key, key))
    record = pending.record.replace(pending.key, key)
    with open(record, "wb") as file:
        file.write(seal("rkt.image", 1, body))
    os.chown(record, ALICE, GROUP)
    pending.refused(reference=key)
    if lie.get("name") == "example.com/other":
        # Not by the name it claims either: trust for one name is none for another.
        pending.refused(reference="example.com/other")
    shown = pending.rkt.run("image", "list", check=0).stdout
    assert "\x1b" not in shown
    assert "forged" not in shown
    assert len(shown) < 2000


def test_a_verdict_in_a_record_is_nobodys(pending: Pending) -> None:
    """Sentence 45: the verdict in a member's record says nothing to root, however good."""
    pending.members.distrust()
    assert "no key counts" in pending.refused() or "unknown entity" in pending.refused()


def test_swapped_while_it_is_judged(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentence 45: what becomes the image is what was judged, whatever the member does to the file meanwhile."""
    original = fetch_spool.Taking._judge

    def judge(self: fetch_spool.Taking, *words: object) -> object:
        with open(pending.blob, "r+b") as file:
            file.write(b"\0" * 4096)
        verdict = original(self, *words)  # type: ignore[arg-type]
        with open(pending.blob, "r+b") as file:
            file.truncate(10)
        return verdict

    monkeypatch.setattr(fetch_spool.Taking, "_judge", judge)
    record = fetch_image(pending.key, pending.settings())
    assert record.key == pending.key
    pending.rkt.run("image", "verify", pending.key, check=0)


def test_swapped_while_it_is_copied(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentence 45: a file that changes after its signature was read is judged as it was copied, and refused."""
    original = fetch_spool.Taking._run

    def run(self: fetch_spool.Taking, *words: object) -> object:
        with open(pending.blob, "r+b") as file:
            file.seek(-600, os.SEEK_END)
            file.write(b"evil")
        return original(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(fetch_spool.Taking, "_run", run)
    with pytest.raises(RktError):
        fetch_image(pending.key, pending.settings())
    assert pending.members.records() == pending.before
    assert pending.members.kept(ALICE) == []


def test_insecure_words_do_not_reach_it(pending: Pending) -> None:
    """Sentence 46: not even called directly does the engine take an unverified image from a member."""
    from rkt.config.settings import InsecureOptions

    settings = pending.settings().replace(insecure=InsecureOptions.parse("image"))
    with Spool(settings.data_dir) as spool:
        taking = fetch_spool.Taking(spool, spool.pending()[0], settings, Reporter(settings))
        with pytest.raises(RktError, match="never used without verification"):
            taking.run()


# Between members


def test_homes_of_others(rkt: Rkt, members: Members, images: Images) -> None:
    """Sentence 47: a directory with another user's number counts for nobody, does not hinder that user, and is collected."""
    members.trust(images)
    path = signed(images, members)
    false = f"{members.incoming}/{BOB}-{'0' * 16}"
    os.mkdir(false)
    os.chown(false, ALICE, GROUP)
    for name in ("x", f"{BOB}-zz", f"0{BOB}-{'0' * 16}", f"{BOB}"):
        os.symlink(rkt.base, f"{members.incoming}/{name}")
        os.lchown(f"{members.incoming}/{name}", ALICE, GROUP)
    members.run(BOB, "fetch", path, check=0)
    os.rmdir(false)
    assert len(members.kept(BOB)) == 2
    rkt.run("image", "gc", check=0)
    assert os.listdir(members.incoming) == [os.path.basename(members.home(BOB))]
    assert os.path.isdir(rkt.local)


def test_members_cannot_touch_each_other(pending: Pending) -> None:
    """Sentences 47 and 49: another member can neither remove, rename, replace nor add to what somebody fetched."""

    def body() -> list[int]:
        os.setgroups([GROUP])
        os.setresgid(BOB, BOB, BOB)
        os.setresuid(BOB, BOB, BOB)
        return [
            errno_of(lambda: os.rename(pending.home, f"{pending.home}x")),
            errno_of(lambda: os.rmdir(pending.home)),
            errno_of(lambda: os.mkdir(f"{pending.home}/x")),
            errno_of(lambda: os.unlink(pending.record)),
            errno_of(lambda: os.open(pending.blob, os.O_RDONLY)),
            errno_of(lambda: os.open(f"{pending.home}/cas/removal/{pending.key}", os.O_WRONLY | os.O_CREAT)),
            errno_of(lambda: os.mkdir(f"{pending.rkt.data}/cas/x")),
            errno_of(lambda: os.unlink(f"{pending.rkt.data}/cas/record/{pending.key}")),
        ]

    errors = run_isolated(body, 0)
    assert set(errors[:-1]) <= {errno.EACCES, errno.EPERM}
    assert errors[-1] in {errno.EACCES, errno.ENOENT}


def test_nobody_is_crowded_out(pending: Pending, members: Members, images: Images) -> None:
    """Sentence 45: however many bad images of a name one member has, a good one of another member is found."""
    path = signed(images, members)
    members.run(BOB, "fetch", path, check=0)
    home = members.home(BOB)
    for number in range(6):
        key = f"sha512-{number:064x}"
        for part, suffix in (("record", ""), ("blob", ""), ("blob", ".asc")):
            target = f"{home}/cas/{part}/{key}{suffix}"
            shutil.copyfile(f"{home}/cas/{part}/{pending.key}{suffix}", target)
            os.chown(target, BOB, GROUP)
        data = read(f"{home}/cas/record/{key}")
        from rkt.schema.envelope import open_sealed

        _, body = open_sealed(data, "rkt.image", "record")
        body["id"] = f"{key}{'0' * 64}"
        with open(f"{home}/cas/record/{key}", "wb") as file:
            file.write(seal("rkt.image", 1, body))
    os.unlink(f"{home}/cas/blob/{pending.key}")
    result = pending.rkt.run("prepare", NEVER, NAME, check=0)
    assert f"fetched by user {ALICE}" in result.stderr


@pytest.mark.parametrize("mode", [0o2770, 0o3777])
def test_a_spool_that_is_not_safe(pending: Pending, mode: int) -> None:
    """Sentence 47: without the sticky bit, or open to everybody, the spool is an error that says what to type."""
    if mode == 0o3777:
        os.chown(pending.members.incoming, ALICE, GROUP)
    os.chmod(pending.members.incoming, mode)
    result = pending.rkt.run("prepare", NEVER, NAME, check=254)
    assert "members could replace what others fetched" in result.stderr
    assert "chmod 3770" in result.stderr


# Removal


def test_forged_removals(pending: Pending, members: Members, rkt: Rkt) -> None:
    """Sentence 49: a wish dated into the future, of a stage1 image, or that is a link, changes nothing."""
    rkt.run("prepare", NEVER, NAME, check=0)
    rkt.run("gc", "--expire-prepared=0s", check=0)
    rkt.run("gc", "--grace-period=0s", check=0)
    records = members.records()
    assert len(records) == 2
    for key in records:
        path = f"{pending.home}/cas/removal/{key}"
        with open(path, "wb"):
            pass
        os.chown(path, ALICE, GROUP)
        os.utime(path, (2**33, 2**33))
    # A use that came later than the wish, however it is dated.
    rkt.run("prepare", NAME, check=0)
    rkt.run("image", "gc", check=0)
    assert members.records() == records
    rkt.run("gc", "--expire-prepared=0s", check=0)
    rkt.run("gc", "--grace-period=0s", check=0)
    path = f"{pending.home}/cas/removal/{pending.key}"
    os.unlink(path)
    os.symlink(pending.secret, path)
    os.lchown(path, ALICE, GROUP)
    rkt.run("image", "gc", check=0)
    assert members.records() == records
    assert read(pending.secret) == SECRET


# Bounds


def test_collecting_the_spool(pending: Pending, members: Members) -> None:
    """Sentence 50: ``image gc`` takes what is old, what is unfinished, and everything of who is over the share."""
    store = Store(pending.rkt.data)
    half = f"{pending.home}/cas/partial"
    os.mkdir(half)
    os.symlink(pending.rkt.base, f"{half}/link")
    for path in (half, f"{half}/link"):
        os.lchown(path, ALICE, GROUP)
    assert collect_spool(store) == []
    assert len(members.kept(ALICE)) == 2
    assert os.listdir(half) == ["link"]
    limits = DEFAULT_SPOOL_LIMITS.replace(unfinished_seconds=-60.0, age_seconds=-60.0)
    assert collect_spool(store, limits) == []
    assert (members.kept(ALICE), os.listdir(half)) == ([], [])
    assert os.path.isdir(pending.rkt.data)
    junk = f"{pending.home}/junk"
    with open(junk, "wb") as file:
        file.write(b"x" * 100_000)
    os.chown(junk, ALICE, GROUP)
    problems = collect_spool(store, DEFAULT_SPOOL_LIMITS.replace(user_bytes=50_000))
    assert len(problems) == 1
    assert f"user {ALICE} had" in problems[0]
    assert os.listdir(members.incoming) == []


def test_what_others_keep_in_a_members_directory(pending: Pending) -> None:
    """Sentence 47: a directory in which others have files, moved into a home or the spool, costs those others nothing."""
    trap = f"{pending.home}/trap"
    os.makedirs(f"{trap}/victim")
    with open(f"{trap}/victim/file", "wb") as file:
        file.write(b"x" * 100_000)
    os.chown(trap, ALICE, GROUP)
    os.chown(f"{trap}/victim", BOB, BOB)
    os.makedirs(f"{pending.members.incoming}/junk/victim")
    os.chown(f"{pending.members.incoming}/junk", ALICE, GROUP)
    with open(f"{pending.members.incoming}/junk/victim/file", "wb"):
        pass
    problems = collect_spool(Store(pending.rkt.data), DEFAULT_SPOOL_LIMITS.replace(user_bytes=50_000))
    assert any("Permission denied" in problem for problem in problems)
    assert os.path.exists(f"{trap}/victim/file")
    assert os.path.exists(f"{pending.members.incoming}/junk/victim/file")
    # And root is root again.
    assert read(pending.secret) == SECRET


def test_the_oldest_go_first(pending: Pending, members: Members, images: Images) -> None:
    """Sentence 50: who is over the share loses the oldest image, not the newest."""
    other = signed(images, members, "example.com/other")
    members.run(ALICE, "fetch", other, check=0)
    size = os.stat(pending.blob).st_blocks * 512
    assert (
        collect_spool(Store(pending.rkt.data), DEFAULT_SPOOL_LIMITS.replace(user_bytes=size * 3 // 2)) == []
    )
    assert members.names() == {"example.com/other:1.0": "pending"}


def test_looking_is_bounded(pending: Pending) -> None:
    """Sentence 47: many records, directories and removals of one member cost what a few cost."""
    for number in range(3000):
        path = f"{pending.home}/cas/record/sha512-{number:064x}"
        with open(path, "wb"):
            os.truncate(path, 1 << 20)
        os.chown(path, ALICE, GROUP)
    for number in range(100):
        path = f"{pending.members.incoming}/{ALICE}-{number:016x}"
        os.mkdir(path)
        os.chown(path, ALICE, GROUP)
    with Spool(pending.rkt.data) as spool:
        assert len(spool.homes) == DEFAULT_SPOOL_LIMITS.user_homes
        assert len(spool.pending()) <= DEFAULT_SPOOL_LIMITS.user_images


# The worker of a member


def as_member(function: Callable[[], object], *, network: bool = False, confined: bool = True) -> object:
    """What a function finds out in a process that has become a member's worker."""

    def body() -> object:
        os.setgroups([GROUP])
        os.setresgid(ALICE, ALICE, ALICE)
        os.setresuid(ALICE, ALICE, ALICE)
        # As it is for a program that this user started.
        libc.prctl(libc.PR_SET_DUMPABLE, 1)
        if confined:
            confine.begin(b"rkt-fetch", network=network)
            confine.confine_fetch(network=network, file_size_bytes=1 << 20, uid=0)
        return function()

    return run_isolated(body, 0)


def test_what_a_members_worker_can_reach(rkt: Rkt) -> None:
    """Sentence 48: not the member's own files, no place to write, no Unix socket; certificates, and TCP to servers."""
    import socket

    own = f"{rkt.base}/own"
    os.mkdir(own)
    with open(f"{own}/key", "wb"):
        pass
    for path in (own, f"{own}/key"):
        os.chown(path, ALICE, ALICE)
    os.chmod(rkt.base, 0o755)

    def attempts() -> list[int]:
        return [
            errno_of(lambda: os.open(f"{own}/key", os.O_RDONLY)),
            errno_of(lambda: os.open(f"{own}/new", os.O_WRONLY | os.O_CREAT)),
            errno_of(lambda: os.close(os.open("/dev/null", os.O_WRONLY))),
            errno_of(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()),
        ]

    assert as_member(attempts, confined=False) == [0, 0, 0, 0]
    for network in (True, False):
        errors = as_member(attempts, network=network)
        assert isinstance(errors, list)
        refusals = {errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT}
        assert set(errors) <= refusals, [errno.errorcode.get(n, n) for n in errors]
    assert as_member(lambda: errno_of(lambda: socket.socket(socket.AF_INET).close()), network=True) == 0
    assert as_member(lambda: errno_of(lambda: os.listdir("/etc/ssl")), network=True) == 0


@pytest.mark.parametrize("lacks", ["Landlock", "system call filters"])
def test_no_fetch_without_walls(monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    """Sentence 48: on a kernel that has no Landlock, or no system call filters, a member's fetch is refused and says why."""
    if lacks == "Landlock":
        monkeypatch.setattr(landlock, "abi", lambda: 0)
    else:
        monkeypatch.setattr(libc, "seccomp_action_available", lambda _: False)
    with pytest.raises(RktError, match=f"only root can fetch on this host: its kernel has no {lacks}"):
        confine.require_walls()


def test_signatures_are_read_confined(pending: Pending) -> None:
    """Sentence 48: the OpenPGP program of a member's fetch reads no file of the member's, opens no socket, sends no signal, starts nothing."""
    from rkt.trust.program import run_confined

    own = f"{pending.rkt.base}/own"
    with open(own, "wb"):
        pass
    os.chown(own, ALICE, ALICE)
    code = (
        "import errno, os, socket, sys\n"
        "def attempt(function):\n"
        "    try: function()\n"
        "    except OSError as e: return errno.errorcode[e.errno]\n"
        "    return 'done'\n"
        f"words = [attempt(lambda: open({own!r})), attempt(lambda: socket.socket(socket.AF_UNIX)), attempt(socket.socket),\n"
        "    attempt(lambda: os.kill(os.getppid(), 0)), attempt(os.fork)]\n"
        "os.write(int(sys.argv[1]), ' '.join(words).encode())\n"
    )
    installation = pending.settings().installation

    def look() -> str:
        null = os.open("/dev/null", os.O_RDONLY)
        outcome = run_confined(
            lambda status: [os.path.realpath(sys.executable), "-ISc", code, str(status)],
            stdin=null,
            descriptors=[],
            timeout_seconds=30,
            package_path=installation.package_path,
        )
        return (outcome.status_output or outcome.error_output).decode()

    assert as_member(look, confined=False) == "EACCES ENOSYS ENOSYS ENOSYS ENOSYS"
