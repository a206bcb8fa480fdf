# SPDX-License-Identifier: Apache-2.0
"""The engines that are compared, each ready to run one small root file system made from busybox.

A peer keeps all it needs below one directory and removes it again. Every one starts ``/bin/true`` or ``/bin/sleep``
as root, with the options it needs on a host without CAP_SYS_RESOURCE; with no network, or with the one that it gives
containers without a word, on a host of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.lib import host
from tests.lib.rkt import ROOT, Rkt, wait_for

if TYPE_CHECKING:
    from tests.lib.nethost import NetHost

#: The image's name in every engine.
IMAGE = "example.com/bench"
SLEEP_SECONDS = "600"
#: How many sleep at once when memory is measured.
CONTAINERS = 4
#: Limits that a root without CAP_SYS_RESOURCE may set.
ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Unavailable(Exception):
    """The peer cannot run here; the text says why."""


def make_rootfs(path: str) -> None:
    """A root file system of one static program under several names."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("busybox is not installed")
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr"):
        os.makedirs(os.path.join(path, name))
    shutil.copy(busybox, os.path.join(path, "bin", "busybox"))
    for name in ("sh", "sleep", "true"):
        os.symlink("busybox", os.path.join(path, "bin", name))
    for name, text in (
        ("passwd", "root:x:0:0::/:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        ("os-release", "ID=bench\n"),
    ):
        with open(os.path.join(path, "etc", name), "w", encoding="ascii") as stream:
            stream.write(text)


def call(*args: str, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; its standard output."""
    done = subprocess.run(
        args, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL, timeout=120
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(args[:2])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def descendants(pid: int) -> list[int]:
    """``pid`` and all below it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def command_line(pid: int) -> str:
    """Words of a process, joined by spaces."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def remove_empty_cgroups(mark: str, *, seconds: float = 5.0) -> None:
    """Remove what an engine leaves behind for its next container, once nobody is in it any more."""
    deadline = time.monotonic() + seconds
    while paths := sorted((path for path in host.cgroups() if mark in path), key=len, reverse=True):
        for path in paths:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


class Peer:
    """One engine."""

    name = ""
    #: Words for a container without network.
    no_network: tuple[str, ...] = ("--network", "none")
    #: Budget of design for (start latency of rkt) / (start latency of this), 0 for none.
    start_budget = 0.0
    #: The same with networks.
    network_budget = 0.0

    def __init__(self, base: str, rootfs: str, place: NetHost | None = None) -> None:
        #: Words before commands, that have them run on a host with networks of its own.
        self.prefix = place.prefix if place else ()
        #: Words that say which network a container gets.
        self.network = () if place else self.no_network
        self.base = os.path.join(base, self.name)
        self.rootfs = rootfs
        os.makedirs(self.base)
        self.count = 0
        #: Which of several containers at once the next command is for.
        self.instance = 0

    def prepare(self) -> None:
        """Make the image.

        Raises:
            Unavailable: it cannot run here.
        """

    def version(self) -> str:
        """What runs, for the report."""
        return self.name

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` in a new container and waits for its end."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Environment of the command."""
        return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": self.base}

    def after(self) -> None:
        """Tidy up after one run, not timed."""

    def close(self) -> None:
        """Remove everything."""

    def start_once(self) -> float:
        """Seconds from the start of the command to its end, of ``/bin/true``."""
        args = self.command("/bin/true")
        started = time.monotonic_ns()
        done = subprocess.run(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment(),
            check=False,
            timeout=120,
        )
        seconds = (time.monotonic_ns() - started) / 1e9
        if done.returncode != 0:
            raise Unavailable(
                f"status {done.returncode}: {done.stderr.decode(errors='replace').strip()[-300:]}"
            )
        self.after()
        return seconds

    def start_many(self, count: int) -> float:
        """Seconds from the start of the first of ``count`` commands at once to the end of the last, of ``/bin/true``.

        Raises:
            Unavailable: one of them failed.
        """
        args = [self.command("/bin/true") for _ in range(count)]
        environment = self.environment()
        with open(os.path.join(self.base, "log"), "w+b") as log:
            begun = time.monotonic_ns()
            running = [
                subprocess.Popen(
                    each, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment
                )
                for each in args
            ]
            statuses = [process.wait(300) for process in running]
            seconds = (time.monotonic_ns() - begun) / 1e9
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
        self.after()
        if any(statuses):
            failed = sum(status != 0 for status in statuses)
            raise Unavailable(f"{failed} of {count} at once failed: {said[-300:]}")
        return seconds

    def overhead(self, count: int) -> tuple[float, float]:
        """Memory that one of ``count`` sleeping containers needs beyond the app.

        Of several at once, because what they share is paid for once.

        Args:
            count: containers.

        Returns:
            (proportional, private) MiB of all processes that exist because of them, divided by ``count``.
        """
        before = host.processes()
        started: list[subprocess.Popen[bytes]] = []
        with open(os.path.join(self.base, "log"), "wb") as log:
            try:
                for self.instance in range(count):
                    started.append(
                        subprocess.Popen(
                            self.command("/bin/sleep", SLEEP_SECONDS),
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            env=self.environment(),
                        )
                    )
                    wait_for(partial(self._all_run, started, before), f"running {self.name} container")
                # What starts a container has ended or become idle after this.
                time.sleep(0.5)
                apps = self._apps(started, before)
                total = sum_memory([p for p in self._all(started, before) if p not in apps])
                return total[0] / count, total[1] / count
            finally:
                self.instance = 0
                for app in self._apps(started, before):
                    os.kill(app, signal.SIGKILL)
                for process in started:
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                self.after()

    def _all_run(self, started: list[subprocess.Popen[bytes]], before: frozenset[host.Process]) -> bool:
        return len(self._apps(started, before)) == len(started)

    def _all(self, started: list[subprocess.Popen[bytes]], before: frozenset[host.Process]) -> set[int]:
        return {pid for process in started for pid in self._pids(process.pid, before)}

    def _apps(self, started: list[subprocess.Popen[bytes]], before: frozenset[host.Process]) -> set[int]:
        lines = {f"/bin/sleep {SLEEP_SECONDS}", f"sleep {SLEEP_SECONDS}"}
        return {pid for pid in self._all(started, before) if command_line(pid) in lines}

    def _pids(self, pid: int, before: frozenset[host.Process]) -> list[int]:
        known = {process.pid for process in before}
        return [p for p in descendants(pid) if p not in known]


def sum_memory(pids: list[int]) -> tuple[float, float]:
    """(PSS, private) of processes, in MiB."""
    proportional = private = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            for line in stream:
                name, _, rest = line.partition(":")
                if name == "Pss":
                    proportional += int(rest.split()[0])
                elif name in {"Private_Clean", "Private_Dirty"}:
                    private += int(rest.split()[0])
    return proportional / 1024, private / 1024


#: What ``make bench`` installs: start-up is that of an installation, not of a checkout.
INSTALLED = os.path.join(ROOT, "build", "installed", "bin", "rkt")


class RktPeer(Peer):
    """This engine: a signed image, its key trusted, fetched once."""

    name = "rkt"
    no_network = ("--net=none",)
    #: Words that choose a flavour.
    stage1: tuple[str, ...] = ()

    def prepare(self) -> None:
        self.engine = Rkt(os.path.join(self.base, "engine"), INSTALLED, prefix=self.prefix)
        if not self.network:
            self.engine.use_the_usual_network()
        image = os.path.join(self.base, "bench.aci")
        keys = os.path.join(self.base, "gnupg")
        os.mkdir(keys, 0o700)
        gpg = {**self.environment(), "GNUPGHOME": keys}
        identity = "bench@example.com"
        call(
            "gpg",
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-generate-key",
            identity,
            "ed25519",
            "sign",
            env=gpg,
        )
        public = os.path.join(self.base, "key.asc")
        with open(public, "w", encoding="ascii") as stream:
            stream.write(call("gpg", "--batch", "--armor", "--export", identity, env=gpg))
        self._rkt("image", "create", f"--name={IMAGE}", f"--rootfs={self.rootfs}", "--exec=/bin/true", image)
        self._rkt("image", "sign", f"--key={identity}", image, env=gpg)
        self._rkt("trust", f"--prefix={IMAGE}", "--skip-fingerprint-review", public)
        self.key = self._rkt("fetch", image).strip().splitlines()[-1]
        call("gpgconf", "--kill", "all", env=gpg)

    def _rkt(self, *args: str, env: dict[str, str] | None = None) -> str:
        result = self.engine.run(*args, env=env)
        if result.status != 0:
            raise Unavailable(str(result))
        return result.stdout

    def version(self) -> str:
        return self._rkt("version").splitlines()[0]

    def command(self, *words: str) -> list[str]:
        flags = (*self.stage1, *self.network)
        return self.engine.command("run", *flags, self.key, f"--exec={words[0]}", "--", *words[1:])

    def after(self) -> None:
        self._rkt("gc", "--grace-period=0")

    def close(self) -> None:
        self.engine.close()


class RktNspawn(RktPeer):
    """The flavour that runs systemd in the pod."""

    stage1 = ("--stage1-name=coreos.com/rkt/stage1-nspawn",)


class RktFly(RktPeer):
    """The flavour that isolates nothing but the root."""

    no_network = ("--net=host",)
    stage1 = ("--stage1-name=coreos.com/rkt/stage1-fly",)


class RktDefault(RktPeer):
    """The default flavour, as something to compare another with."""

    name = "rkt, default flavour"


class Runc(Peer):
    """The OCI runtime alone: no image, no store, no network."""

    name = "runc"
    start_budget = 2.0

    def prepare(self) -> None:
        call("runc", "spec", "--bundle", self.base)
        path = os.path.join(self.base, "config.json")
        with open(path, encoding="utf-8") as stream:
            self.config = json.load(stream)
        self.config["process"]["terminal"] = False
        self.config["root"]["path"] = self.rootfs

    def version(self) -> str:
        return call("runc", "--version").splitlines()[0]

    def command(self, *words: str) -> list[str]:
        self.config["process"]["args"] = list(words)
        with open(os.path.join(self.base, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(self.config, stream)
        self.count += 1
        return [
            "runc",
            "--root",
            os.path.join(self.base, "state"),
            "run",
            "--bundle",
            self.base,
            f"rkt-bench-{os.getpid()}-{self.count}",
        ]


class Podman(Peer):
    """podman with runc, its store and state below our directory."""

    name = "podman"
    start_budget = 0.35
    network_budget = 0.5

    def _base_command(self) -> list[str]:
        return [
            *self.prefix,
            "podman",
            "--root",
            os.path.join(self.base, "root"),
            "--runroot",
            os.path.join(self.base, "run"),
            "--runtime",
            "runc",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            f"--network-config-dir={self.base}/networks",
        ]

    def prepare(self) -> None:
        archive = os.path.join(self.base, "rootfs.tar")
        call("tar", "-C", self.rootfs, "-cf", archive, ".")
        call(*self._base_command(), "import", "--quiet", archive, "bench", env=self.environment())

    def version(self) -> str:
        return call("podman", "--version").strip()

    def command(self, *words: str) -> list[str]:
        return [
            *self._base_command(),
            "run",
            "--rm",
            *self.network,
            *ULIMITS,
            "localhost/bench",
            *words,
        ]

    def _pids(self, pid: int, before: frozenset[host.Process]) -> list[int]:
        # conmon leaves the tree of the command that started it.
        known = {process.pid for process in before}
        own = [
            p.pid for p in host.processes(self.base) if p.pid not in known and "gpg-agent" not in p.command
        ]
        return [p for p in {q for o in own for q in descendants(o)} if p not in known]

    def close(self) -> None:
        subprocess.run(
            [*self._base_command(), "system", "reset", "--force"],
            capture_output=True,
            check=False,
            env=self.environment(),
        )
        remove_empty_cgroups("/libpod_parent")


class Docker(Peer):
    """A Docker engine of our own; without bridge and firewall rules, unless it has a host to itself."""

    name = "docker"
    start_budget = 0.35

    def start(self) -> None:
        """Start the daemon."""
        if shutil.which("dockerd") is None:
            raise Unavailable("dockerd is not installed")
        self.socket = f"unix://{self.base}/docker.sock"
        self.log = open(os.path.join(self.base, "dockerd.log"), "wb")  # noqa: SIM115 - closed in close()
        self.daemon = subprocess.Popen(
            [
                *self.prefix,
                "dockerd",
                *(("--iptables=false", "--ip6tables=false", "--bridge=none") if self.network else ()),
                f"--data-root={self.base}/data",
                f"--exec-root={self.base}/exec",
                f"--pidfile={self.base}/pid",
                f"--host={self.socket}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env=self.environment(),
        )
        deadline = time.monotonic() + 30
        while not os.path.exists(f"{self.base}/docker.sock"):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"dockerd does not start, see {self.base}/dockerd.log")
            time.sleep(0.1)

    def prepare(self) -> None:
        self.start()
        archive = os.path.join(self.base, "rootfs.tar")
        call("tar", "-C", self.rootfs, "-cf", archive, ".")
        call("docker", "--host", self.socket, "import", archive, "bench", env=self.environment())

    def version(self) -> str:
        return call(
            "docker", "--host", self.socket, "version", "--format", "docker {{.Server.Version}}"
        ).strip()

    def command(self, *words: str) -> list[str]:
        return [
            "docker",
            "--host",
            self.socket,
            "run",
            "--rm",
            *self.network,
            *ULIMITS,
            "bench",
            *words,
        ]

    def _pids(self, pid: int, before: frozenset[host.Process]) -> list[int]:
        # The shim belongs to the daemon; the daemon itself serves all containers and is not counted.
        known = {process.pid for process in before} | {self.daemon.pid}
        shims = [p for p in host.processes(self.base) if "containerd-shim" in p.command]
        return [p for p in {pid, *(q for s in shims for q in descendants(s.pid))} if p not in known]

    def close(self) -> None:
        if hasattr(self, "daemon"):
            self.daemon.terminate()
            self.daemon.wait(30)
            self.log.close()
            remove_empty_cgroups("/docker")


class Nspawn(Peer):
    """systemd-nspawn without an init in the container."""

    name = "systemd-nspawn"

    def prepare(self) -> None:
        # It locks the directory: each of several at once needs its own.
        for number in range(CONTAINERS):
            shutil.copytree(self.rootfs, os.path.join(self.base, str(number)), symlinks=True)

    def version(self) -> str:
        return call("systemd-nspawn", "--version").splitlines()[0].replace("systemd", "systemd-nspawn")

    def command(self, *words: str) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--as-pid2",
            f"--directory={self.base}/{self.instance}",
            *words,
        ]


class NspawnBoot(Peer):
    """systemd-nspawn that boots the host's systemd, from its ``/usr``, with one unit and nothing else."""

    name = "systemd-nspawn --boot"
    start_budget = 1.3
    _UNIT = """\
[Unit]
DefaultDependencies=no
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
RootDirectory=/opt/app
ExecStart={command}
"""

    def prepare(self) -> None:
        self.root = os.path.join(self.base, "root")
        self.units = os.path.join(self.root, "etc/systemd/system")
        os.makedirs(self.units)
        for name in ("usr", "dev", "proc", "sys", "run", "tmp", "var"):
            os.mkdir(os.path.join(self.root, name))
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), os.path.join(self.root, name))
        for name, text in (("os-release", "ID=bench"), ("machine-id", "0123456789abcdef" * 2)):
            self._write(os.path.join(self.root, "etc", name), f"{text}\n")
        shutil.copytree(self.rootfs, os.path.join(self.root, "opt/app"), symlinks=True)

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)

    def version(self) -> str:
        return call("systemd-nspawn", "--version").splitlines()[0].replace("systemd", "systemd-nspawn --boot")

    def command(self, *words: str) -> list[str]:
        self._write(os.path.join(self.units, "bench.service"), self._UNIT.format(command=" ".join(words)))
        return [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--private-network",
            f"--directory={self.root}",
            "--bind-ro=/usr",
            "--console=pipe",
            "--boot",
            "--",
            "--unit=bench.service",
        ]


class Chroot(Peer):
    """A mount namespace and chroot(2): what is left of a container for an agent of the host."""

    name = "unshare, chroot"

    def version(self) -> str:
        return call("unshare", "--version").strip()

    def command(self, *words: str) -> list[str]:
        return ["unshare", "--mount", "--propagation=slave", "chroot", self.rootfs, *words]


class Bubblewrap(Peer):
    """Namespaces and nothing else: the floor."""

    name = "bubblewrap"

    def version(self) -> str:
        return call("bwrap", "--version").strip()

    def command(self, *words: str) -> list[str]:
        return [
            "bwrap",
            "--unshare-all",
            "--bind",
            self.rootfs,
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            *words,
        ]


PROGRAMS = {Podman: "podman", Docker: "docker", Runc: "runc", Nspawn: "systemd-nspawn", Bubblewrap: "bwrap"}
#: Flavours beside their own peers, by the flavour's name.
FLAVORS: dict[str, tuple[type[RktPeer], dict[type[Peer], str]]] = {
    "nspawn": (RktNspawn, {NspawnBoot: "systemd-nspawn"}),
    "fly": (RktFly, {RktDefault: "", Chroot: "unshare"}),
}
