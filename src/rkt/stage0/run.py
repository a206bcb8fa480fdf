# SPDX-License-Identifier: Apache-2.0
"""Become the pod: mount its roots and exec stage1 (spec runtime §1.4). Nothing here returns on success.

The mount namespace is the pod's own before anything is mounted, so a pod's mounts are never seen on the host, and go
with the last process of the pod, however it ends.
"""

from __future__ import annotations

import os
import sys

from rkt.errors import HostError, PodError, Stage1Error
from rkt.pod import lifecycle, status
from rkt.schema.record import Record
from rkt.stage0 import contract, resolver, roots
from rkt.stage0.messages import tell
from rkt.stage0.resolver import Resolver
from rkt.stage0.stage1 import Program, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod

_UMASK = 0o022
#: How the pod was run last, for ``start``; there is none when all was as usual.
RUN_OPTIONS = "run-options"
_RUN_OPTIONS_VERSION = 1
#: Networks of which stage1 leaves no record to show.
_UNRECORDED_NETWORKS = ("none", "host")
#: Variables that change what a program loads or how an interpreter starts, left out of stage1's environment (HH5).
_LOADER_PREFIXES = ("LD_", "PYTHON", "BASH_FUNC_", "GLIBC_", "MALLOC_")
_LOADER_NAMES = frozenset(("BASH_ENV", "CDPATH", "ENV", "GCONV_PATH", "IFS", "LOCPATH", "NLSPATH"))


#: Likewise, and what only stage0 may say.
_LEFT_OUT = _LOADER_NAMES | {contract.ENV_HOST_MOUNTS, contract.ENV_HOST_ROOT, contract.ENV_NET_DIRECTORIES}


class RunOptions(Record):
    """Flags of one run; they are not part of the pod on disk.

    Attributes:
        networks: normalised ``--net`` list, each ``NAME`` or ``NAME:ARGS``.
        ipc: ``auto``, ``private``, ``parent``, or empty for stage1's default.
        mds_register: the metadata service is to know the pod.
        usual_networks: nobody asked for these networks, they are what pods have.
    """

    networks: list[str]
    interactive: bool = False
    hostname: str = ""
    resolver: Resolver = Resolver()
    ipc: str = ""
    mutable: bool = False
    mds_register: bool = False
    usual_networks: bool = False

    @property
    def has_networks(self) -> bool:
        """Whether there is more to set up than a namespace."""
        return any(network not in _UNRECORDED_NETWORKS for network in self.networks)


def take_prepared(pod: Pod) -> None:
    """Lock a prepared pod for running.

    Raises:
        PodError: it is not prepared, or somebody else was faster.
    """
    if pod.place != lifecycle.PREPARED:
        raise PodError(f'pod "{pod.uuid}" is not prepared', hint=f"rkt status {pod.uuid.short}")
    try:
        pod.lock(blocking=True)
    except lifecycle.Moved as e:
        raise PodError(f'pod "{pod.uuid}" is not prepared') from e


def _record_options(pod: Pod, settings: Settings, options: RunOptions) -> list[str]:
    """Add this command's opt-outs to the pod's, for this pod only; they stay visible in ``list`` and ``status`` (SG16).

    Returns:
        all words that are in force.
    """
    recorded = status.insecure_words(pod)
    words = recorded + [word for word in settings.insecure.words() if word not in recorded]
    if words == recorded and not options.has_networks:
        return words
    from rkt.linux.files import replace_file
    from rkt.pod import summary

    glance = status.read_summary(pod).replace(insecure=",".join(words), networks=options.has_networks)
    if words != recorded:
        text = f"{glance.insecure}\n"
        replace_file(f"{pod.path}/{status.INSECURE_OPTIONS}", text.encode(), lifecycle.FILE_MODE, sync=False)
    summary.write(pod.fd, glance)
    return words


def _keep_options(pod: Pod, options: RunOptions) -> None:
    """Record what ``start`` is to do again: all but the terminal, which is the caller's, and what the manifest says."""
    kept = options.replace(interactive=False, mutable=False, usual_networks=False)
    if kept == RunOptions(networks=["none"]):
        return
    from rkt.linux.files import replace_file
    from rkt.schema import jsontext

    members = {
        "version": _RUN_OPTIONS_VERSION,
        "networks": kept.networks,
        "hostname": kept.hostname,
        "ipc": kept.ipc,
        "resolver": kept.resolver.as_dict(),
    }
    if kept.mds_register:
        members["mds_register"] = True
    data = jsontext.dump(members).encode()
    replace_file(f"{pod.path}/{RUN_OPTIONS}", data, lifecycle.FILE_MODE, sync=False)


def kept_options(pod: Pod) -> RunOptions:
    """How a pod was run last.

    Raises:
        PodError: the record is damaged, or of another version.
    """
    data = pod.read(RUN_OPTIONS)
    if data is None:
        return RunOptions(networks=["none"])
    from rkt.schema import jsontext

    what = f'{RUN_OPTIONS} of pod "{pod.uuid}"'
    members = jsontext.parse(data, what=what)
    try:
        if members.pop("version") != _RUN_OPTIONS_VERSION:
            raise PodError(f"{what} has another version than {_RUN_OPTIONS_VERSION}")
        resolver = Resolver(**members.pop("resolver"))
        return RunOptions(resolver=resolver, **members)
    except (AttributeError, KeyError, TypeError):
        raise PodError(f"{what} is damaged", hint=f"rkt export {pod.uuid.short} POD.aci") from None


def run(pod: Pod, settings: Settings, options: RunOptions) -> NoReturn:
    """Turn this process into the pod.

    Args:
        pod: in ``prepare`` or ``prepared``, or started again, locked by this process.
        settings: of the running command.
        options: flags of this run.
    Raises:
        RktError: stage1 could not be started; the pod counts as exited.
    """
    program = read_program(pod)
    if program.has(contract.ANNOTATION_NOT_ENFORCED):
        from rkt.stage0 import enforcement

        options = enforcement.settle(program, options)
        enforcement.announce(settings, pod, program)
    insecure = _record_options(pod, settings, options)
    entrypoint = program.entrypoint(contract.ANNOTATION_RUN)
    arguments = _arguments(pod, program, settings, options, insecure)
    apps = status.app_names(pod)
    store = Store(settings.data_dir)
    _keep_options(pod, options)
    if options.mds_register:
        from rkt.stage0 import metadata

        token = metadata.register(pod)
        if not program.has(contract.ANNOTATION_METADATA):
            # As the contract has it; others on the host can read it then.
            place = next(i for i, word in enumerate(arguments) if word.startswith("--local-config="))
            arguments.insert(place, f"--mds-token={token}")
    pod.move(lifecycle.RUN, sync=False)
    os.chdir(pod.path)
    environment = stage1_environment()
    if options.has_networks or program.has(contract.ANNOTATION_HOST_MOUNTS):
        environment.update(_host_environment(settings))
    _enter_own_mount_namespace()
    overlay = pod.has(contract.OVERLAY_PREPARED)
    if overlay:
        roots.mount_root(pod, store, None)
    users = None
    if pod.has(contract.PRIVATE_USERS_PREPARED):
        from rkt.stage0.users import open_users

        users = open_users(pod)
    for app in apps:
        if overlay:
            roots.mount_root(pod, store, app, users)
        roots.link_mtab(app, users.ids if users else None)
    if users is not None:
        users.close()
    if pod.has(contract.IMAGE_VOLUMES):
        from rkt.stage0.image_volumes import directories, mount_image_volumes

        mount_image_volumes(pod, store, directories(pod))
    _write_resolver_files(options, pod)
    _exec(f"{pod.path}/{contract.STAGE1_ROOTFS}/{entrypoint}", arguments, pod, environment)


def _host_environment(settings: Settings) -> dict[str, str]:
    """What stage1 needs to set networks up, or to mount with: where the host is, and which configuration directories there are."""
    mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for fd in (mounts_fd, root_fd):
        os.set_inheritable(fd, True)
    # The administrator's own directory is an argument.
    others = [f"{each}/net.d" for each in (settings.user_config_dir, settings.system_config_dir) if each]
    return {
        contract.ENV_HOST_MOUNTS: str(mounts_fd),
        contract.ENV_HOST_ROOT: str(root_fd),
        contract.ENV_NET_DIRECTORIES: ":".join(others),
    }


def _arguments(
    pod: Pod, program: Program, settings: Settings, options: RunOptions, insecure: list[str]
) -> list[str]:
    """Words for the run entrypoint, in the order of spec runtime §1.5; those too new for it are left out."""
    version = program.interface_version
    words = ["--debug"] if settings.debug else []
    words.append(f"--net={','.join(options.networks)}")
    if options.interactive:
        words.append("--interactive")
    shift = pod.read_text(contract.PRIVATE_USERS_PREPARED)
    if shift:
        words.append(f"--private-users={shift}")
    words.append(f"--local-config={settings.local_config_dir}")

    def newer(minimum: int, flag: str, values: list[str], *, silent: bool = False) -> None:
        if version >= minimum:
            words.extend(values)
        elif values and not silent:
            tell(settings, f"warning: {flag} option is not supported by stage1")

    newer(2, "--hostname", [f"--hostname={options.hostname}"] if options.hostname else [])
    names = options.resolver
    modes = f"--dns-conf-mode=resolv={names.resolv_mode},hosts={names.hosts_mode}"
    newer(4, "--dns-conf-mode", [] if names.is_default else [modes])
    for word, flag in (
        ("capabilities", "--disable-capabilities-restriction"),
        ("paths", "--disable-paths"),
        ("seccomp", "--disable-seccomp"),
    ):
        # Dropping one of these leaves the pod more confined than asked for: no reason to warn.
        newer(3, flag, [flag] if word in insecure else [], silent=True)
    newer(5, "--mutable", ["--mutable"] if options.mutable else [])
    newer(6, "--ipc", [f"--ipc={options.ipc}"] if options.ipc else [])
    words.append(pod.uuid)
    return words


def _enter_own_mount_namespace() -> None:
    from rkt.linux.interpreter import seal_in_own_namespace

    try:
        seal_in_own_namespace()
    except OSError as e:
        raise HostError(
            f"cannot make a mount namespace for the pod: {e.strerror}", hint="CAP_SYS_ADMIN is needed"
        ) from e


def _write_resolver_files(options: RunOptions, pod: Pod) -> None:
    names = options.resolver
    if resolver.STAGE0 not in {names.resolv_mode, names.hosts_mode}:
        return
    root = os.open(contract.STAGE1_ROOTFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _make_directory(root, "etc")
        if names.resolv_mode == resolver.STAGE0:
            _write_in_root(root, resolver.RESOLV_CONF, names.render_resolv_conf())
        if names.hosts_mode == resolver.STAGE0:
            hostname = options.hostname or f"rkt-{pod.uuid}"
            _write_in_root(root, resolver.HOSTS, names.render_hosts(hostname))
    except OSError as e:
        raise Stage1Error(f"cannot write the resolver files into stage1: {e.strerror}") from e
    finally:
        os.close(root)


def _make_directory(root: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=root)
    except FileExistsError:
        return


def _write_in_root(root: int, path: str, text: str) -> None:
    from rkt.linux import libc
    from rkt.linux.files import write_all

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    fd = libc.openat2(root, path.encode(), flags, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS, 0o644)
    try:
        write_all(fd, text.encode())
    finally:
        os.close(fd)


def stage1_environment() -> dict[str, str]:
    """The caller's environment without what steers loaders and interpreters.

    stage1 gets the rest because it may need it (``LISTEN_FDS``, ``NOTIFY_SOCKET``, ``TERM``); apps get none of it.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _LEFT_OUT and not name.startswith(_LOADER_PREFIXES)
    }


def _exec(program: str, arguments: list[str], pod: Pod, environment: dict[str, str]) -> NoReturn:
    # ``signal`` itself imports ``enum``.
    from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal

    environment[contract.ENV_LOCK_FD] = str(pod.fd)
    os.umask(_UMASK)
    # Python ignores these two, and ignored signals stay so across exec.
    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.set_inheritable(pod.fd, True)
    try:
        os.execve(program, [program, *arguments], environment)
    except OSError as e:
        os.set_inheritable(pod.fd, False)
        raise Stage1Error(f"cannot execute stage1 {program}: {e.strerror}") from e
