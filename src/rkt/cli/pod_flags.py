# SPDX-License-Identifier: Apache-2.0
"""Flags that several pod commands share, and what they mean."""

from __future__ import annotations

from rkt.cli.command import BOOL, LIST, Flag
from rkt.errors import NetworkError, PodError, RktError, UsageError, quoted, reason_of
from rkt.stage0.messages import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.cli.command import Invocation
    from rkt.cli.network_args import Network
    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.pod.request import PodRequest
    from rkt.stage0.run import RunOptions

#: What ``--net`` may say instead of networks.
NETWORKS_ALONE = frozenset(("none", "host"))

STAGE1_FLAGS = (
    Flag(
        name="stage1-from-dir",
        kind=LIST,
        help="file of a stage1 image in the stage1 images directory",
        metavar="FILE",
    ),
    Flag(name="stage1-hash", kind=LIST, help="image ID of a stage1 image in the store", metavar="HASH"),
    Flag(name="stage1-name", kind=LIST, help="name of a stage1 image, with labels", metavar="NAME"),
    Flag(name="stage1-path", kind=LIST, help="file of a stage1 image", metavar="PATH", completes="file"),
    Flag(name="stage1-url", kind=LIST, help="URL of a stage1 image", metavar="URL"),
)
PLATFORM_FLAG = Flag(
    name="platform",
    default="",
    help="fetch Docker and OCI images for another platform than this host's",
    metavar="OS/ARCH[/VARIANT]",
)
LOCKED_FLAG = Flag(
    name="locked",
    default="",
    bare="rkt.lock",
    help="refuse images and signers that this file of rkt lock does not have; default: rkt.lock",
    metavar="FILE",
    completes="file",
)
#: Of ``run`` and ``prepare``.
PREPARE_FLAGS = (
    Flag(
        name="egress",
        kind=LIST,
        help="what the pod may talk to, in order: allow or deny, of all or of an address, network or name; repeatable",
        metavar="allow:TARGET[:PORT[/udp]],…,deny",
    ),
    Flag(
        name="inherit-env",
        kind=BOOL,
        default=False,
        help="give apps the caller's variables that they do not set",
    ),
    LOCKED_FLAG,
    Flag(
        name="name",
        default="",
        help="name of the pod, usable wherever a UUID is; unique among live pods",
        metavar="NAME",
    ),
    Flag(
        name="no-overlay", kind=BOOL, default=False, help="copy root file systems instead of using overlays"
    ),
    Flag(
        name="no-store",
        kind=BOOL,
        default=False,
        help="fetch images again, same as --pull-policy=update",
        hidden=True,
    ),
    PLATFORM_FLAG,
    Flag(
        name="pod-manifest",
        default="",
        help="make the pod of this manifest, whose images are in the store",
        metavar="PATH",
        completes="file",
    ),
    Flag(
        name="port",
        kind=LIST,
        help="forward a port of the host to a port of the pod, by number or by the image's name for it; repeatable",
        metavar="[HOSTIP:]HOSTPORT:PODPORT[/udp]|NAME:[HOSTIP:]HOSTPORT",
    ),
    Flag(
        name="private-users",
        kind=BOOL,
        default=False,
        help="run the pod in a user namespace, with ids of the host that no other pod has",
    ),
    Flag(
        name="pull-policy",
        default="new",
        help="when to fetch images: new (not in the store), update (always), never",
        metavar="POLICY",
        choices=("new", "update", "never"),
    ),
    Flag(name="set-env", kind=LIST, help="set a variable for all apps; repeatable", metavar="NAME=VALUE"),
    Flag(
        name="set-env-file",
        kind=LIST,
        help="file of NAME=VALUE lines for all apps; repeatable",
        metavar="PATH",
        completes="file",
    ),
    Flag(
        name="store-only",
        kind=BOOL,
        default=False,
        help="use images of the store only, same as --pull-policy=never",
        hidden=True,
    ),
    *STAGE1_FLAGS,
    Flag(
        name="sysctl",
        kind=LIST,
        help="kernel parameter of the pod's own namespaces; repeatable",
        metavar="NAME=VALUE",
    ),
    Flag(
        name="volume",
        kind=LIST,
        help="volume for the apps to mount; kinds are host, empty, tmpfs, device and image",
        metavar="NAME,kind=KIND,…",
    ),
)
#: Of ``run`` and ``run-prepared``.
RUN_FLAGS = (
    Flag(
        name="dns",
        kind=LIST,
        help="name servers; host for the host's file, none for the image's own; repeatable",
        metavar="IP[,IP…]",
    ),
    Flag(name="dns-domain", default="", help="DNS domain of the pod", metavar="DOMAIN"),
    Flag(name="dns-opt", kind=LIST, help="resolver option; repeatable", metavar="OPTION"),
    Flag(name="dns-search", kind=LIST, help="domain to search names in; repeatable", metavar="DOMAIN"),
    Flag(name="hostname", default="", help="host name of the pod; default: rkt-UUID", metavar="NAME"),
    Flag(
        name="hosts-entry",
        kind=LIST,
        help="entries for /etc/hosts, or host for the host's file; repeatable",
        metavar="IP=NAME[,IP=NAME…]",
    ),
    Flag(
        name="interactive", kind=BOOL, default=False, help="give the caller's terminal to the pod's only app"
    ),
    Flag(
        name="ipc",
        default="",
        help="IPC namespace: private, which auto means too, or parent, the host's",
        metavar="MODE",
        choices=("auto", "private", "parent"),
    ),
    Flag(
        name="mds-register",
        kind=BOOL,
        default=False,
        help="register the pod with the metadata service",
    ),
    Flag(
        name="net",
        kind=LIST,
        bare="default",
        help="networks to join, or none, or host for the host's own; repetitions add up; default: default",
        metavar="NAME[:ARGS][,NAME…]",
    ),
)
UUID_FILE_FLAG = Flag(
    name="uuid-file",
    default="",
    help="read the pod's UUID from a file instead",
    metavar="FILE",
    completes="file",
)
_LONGEST_HOSTNAME = 64
_MAX_UUID_FILE_BYTES = 4096


def pod_request(invocation: Invocation) -> PodRequest:
    """Flags of ``run`` and ``prepare`` to a request, with the conflicts of ``--pod-manifest`` checked.

    Raises:
        UsageError: flags contradict each other.
    """
    import os

    from rkt.cli.app_args import put_pair
    from rkt.pod.request import PodRequest

    values = invocation.values
    if values["store-only"] and values["no-store"]:
        raise UsageError("both --store-only and --no-store specified")
    policy = "never" if values["store-only"] else "update" if values["no-store"] else values["pull-policy"]
    manifest = values["pod-manifest"] or None
    if manifest is not None:
        conflicting = ("volume", "port", "egress", "sysctl", "inherit-env", "set-env", "set-env-file")
        if (
            invocation.apps
            or invocation.mounts
            or policy != "new"
            or any(name in invocation.given for name in conflicting)
        ):
            raise UsageError("conflicting flags set with --pod-manifest (see --help)")
    elif not invocation.apps:
        raise UsageError(
            "must provide at least one image or specify the pod manifest",
            hint=f"rkt {invocation.command.name} IMAGE",
        )
    set_env: dict[str, str] = {}
    for text in values["set-env"]:
        put_pair(set_env, text, flag="set-env")
    for text in values["port"]:
        from rkt.schema.shorthand import parse_port

        parse_port(text)
    return PodRequest(
        apps=invocation.apps,
        pod_manifest_path=manifest,
        volumes=values["volume"],
        mounts=invocation.mounts,
        ports=values["port"],
        annotations=egress_annotation(values["egress"]),
        sysctls=values["sysctl"],
        set_env=set_env,
        set_env_files=values["set-env-file"],
        inherited_env=dict(os.environ) if values["inherit-env"] else {},
        no_overlay=values["no-overlay"],
        private_users=values["private-users"],
        name=values["name"],
        pull_policy=policy,
        locked=values.get("locked", ""),
    )


def egress_annotation(values: list[str]) -> dict[str, str]:
    """The annotation of a pod that has egress rules.

    Raises:
        UsageError: one is not understood.
    """
    if not values:
        return {}
    from rkt.net.egress import parse
    from rkt.stage0.contract import ANNOTATION_EGRESS

    return {ANNOTATION_EGRESS: ",".join(str(rule) for rule in parse(values))}


def run_options(invocation: Invocation) -> RunOptions:
    """Flags of ``run`` and ``run-prepared``; everything wrong with them is noticed here, before a pod is touched.

    Raises:
        UsageError: a flag is malformed, or they contradict each other.
        NetworkError: a network cannot be had.
    """
    from rkt.cli.network_args import parse_dns, parse_hosts, parse_nets
    from rkt.stage0.resolver import Resolver
    from rkt.stage0.run import RunOptions

    values = invocation.values
    dns = parse_dns(values["dns"], values["dns-search"], values["dns-opt"], values["dns-domain"])
    hosts = parse_hosts(values["hosts-entry"])
    for wanted, path in (
        (dns.mode == "host", "/etc/resolv.conf"),
        (hosts.use_host, "/etc/hosts"),
    ):
        if wanted:
            _check_host_file(path)
    nets = parse_nets(values["net"] or _default_networks(invocation))
    names = [net.name for net in nets]
    alone = [name for name in names if name in NETWORKS_ALONE]
    if alone and len(names) > 1:
        raise NetworkError(
            f"stage1: failed to setup network: {' and '.join(names)} exclude each other",
            hint=f"--net={alone[0]}",
        )
    if not alone:
        _check_networks(nets, invocation)
    networks = [f"{net.name}:{net.args}" if net.args else net.name for net in nets]
    if values.get("port") and networks[0] in NETWORKS_ALONE and not _has_sockets():
        raise UsageError(f"--port flag does not work with '{networks[0]}' networking", hint="--net=default")
    if values.get("egress") and networks[0] in NETWORKS_ALONE:
        from rkt.stage0.egress import check_networks

        check_networks(networks)
    if values["mds-register"]:
        if "none" in names:
            raise UsageError(
                "--mds-register flag does not work with --net=none. Please use 'host', 'default' or an equivalent network"
            )
        from rkt.stage0 import metadata

        metadata.probe()
    if values.get("sysctl"):
        from rkt.pod.limit_flags import check_sysctls

        check_sysctls(values["sysctl"], networks=names, ipc=values.get("ipc", ""))
    return RunOptions(
        networks=networks,
        interactive=values.get("interactive", False),
        hostname=_check_hostname(values["hostname"]),
        resolver=Resolver(
            dns_mode=dns.mode,
            servers=dns.servers,
            search=dns.search,
            options=dns.options,
            domain=dns.domain,
            use_host_file=hosts.use_host,
            hosts=hosts.entries,
        ),
        ipc=values.get("ipc", ""),
        mds_register=values["mds-register"],
        usual_networks=not values["net"],
    )


def _has_sockets() -> bool:
    """Whether a service manager passed sockets, of which ``--port`` says which port they are for."""
    import os

    if "LISTEN_FDS" not in os.environ:
        return False
    from rkt.stage0.activation import passed

    return bool(passed())


def _check_networks(nets: list[Network], invocation: Invocation) -> None:
    from rkt.net.config import Request
    from rkt.stage0.networks import check_networks

    # A stage1 image of somebody else's may bring networks of its own; what a prepared pod has is looked at with the pod.
    is_own = invocation.command.name != "run-prepared" and not any(
        invocation.values.get(flag.name) for flag in STAGE1_FLAGS
    )
    requests = [Request(name=net.name, args=net.args) for net in nets]
    check_networks(requests, invocation.settings, is_own_stage1=is_own)


def _default_networks(invocation: Invocation) -> list[str]:
    from rkt.config.default_network import load_default_networks

    return load_default_networks(invocation.settings)


def _check_host_file(path: str) -> None:
    import os

    if not os.path.isfile(path):
        raise UsageError(f"the host has no {path} to give to the pod")


def _check_hostname(text: str) -> str:
    """A host name as RFC 1123 has it; the kernel takes 64 characters of anything, hosts files do not."""
    labels = text.removesuffix(".").split(".") if text else []
    if len(text) > _LONGEST_HOSTNAME or not all(
        label and label.isascii() and label.replace("-", "").replace("_", "").isalnum() and label[0] != "-"
        for label in labels
    ):
        raise UsageError(
            f"invalid host name {quoted(text)}", hint="--hostname=NAME of letters, digits, - and ."
        )
    return text


def read_uuid_file(path: str) -> str:
    """The UUID in a file, without surrounding white space.

    Raises:
        UsageError: the file cannot be read.
    """
    import os

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _MAX_UUID_FILE_BYTES).decode("utf-8", "replace").strip()
        finally:
            os.close(fd)
    except OSError as e:
        raise UsageError(f"unable to read UUID from file {path}: {e.strerror}") from e


def pod_words(invocation: Invocation, *, several: bool) -> list[str]:
    """The pods a command is about: its words, or ``--uuid-file``, not both.

    Args:
        invocation: the command line.
        several: whether more than one may be given.
    Raises:
        UsageError: none, too many, or both.
    """
    path = invocation.values.get("uuid-file", "")
    words = invocation.words
    if bool(path) == bool(words) or (len(words) > 1 and not several):
        command = invocation.command
        raise UsageError(
            f"{'a pod is' if not several else 'pods are'} expected: UUID, prefix or name"
            + (", or --uuid-file, not both" if "uuid-file" in invocation.values else ""),
            hint=f"rkt {command.name} {command.usage}",
        )
    return [read_uuid_file(path)] if path else words


def one_pod(invocation: Invocation) -> Pod:
    """The pod a command is about, opened.

    Raises:
        UsageError, NotFound, Ambiguous: it cannot be told.
    """
    from rkt.pod import lifecycle

    return lifecycle.find(invocation.settings.pods_dir, pod_words(invocation, several=False)[0])


def report(settings: Settings, e: RktError | OSError) -> None:
    """An error about one of several pods, where the command goes on with the next."""
    if isinstance(e, RktError):
        hint = e.hint
    else:
        from rkt.linux.disk import remedy

        hint = remedy(e.errno)
    tell(settings, reason_of(e))
    if hint:
        tell(settings, f"hint: {hint}")


def each_pod(invocation: Invocation) -> Iterator[tuple[str, Pod | None]]:
    """The pods a command is about, opened; ``None`` for a word that names none, which has been reported then."""
    from rkt.pod import lifecycle

    settings = invocation.settings
    for word in pod_words(invocation, several=True):
        try:
            pod = lifecycle.find(settings.pods_dir, word)
        except RktError as e:
            report(settings, e)
            yield word, None
            continue
        with pod:
            yield word, pod


def for_each_pod(invocation: Invocation, action: Callable[[Pod], None], *, failed: str) -> int:
    """Do something with each pod; one that is refused is reported and does not keep the others.

    Args:
        invocation: the command line.
        action: raises ``RktError`` to refuse, or ``OSError``.
        failed: the error at the end when there were refusals, ``{}`` standing for how many.
    Raises:
        PodError: there were.
    """
    failures = 0
    for _, pod in each_pod(invocation):
        try:
            if pod is not None:
                action(pod)
        except BrokenPipeError:
            raise
        except (RktError, OSError) as e:
            report(invocation.settings, e)
            failures += 1
        else:
            failures += pod is None
    if failures:
        raise PodError(failed.format(failures))
    return 0
