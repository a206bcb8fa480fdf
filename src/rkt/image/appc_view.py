# SPDX-License-Identifier: Apache-2.0
"""appc's view of a Docker or OCI image: its configuration as an image manifest (spec cli §7.4).

The mapping is docker2aci's, so that names, labels and annotations are those that rkt's users know. Mended: the group of a
user without one is that of the image's passwd, looked up when the app starts (the annotation ``user`` says so), labels are
kept for every format, ports may be ranges, the variant of an ARM processor counts, and stop signal and health check are
annotations instead of being lost.

The same bytes come of the same image and name at any time: the view is sealed in the image's record.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema import appc, jsontext
from rkt.schema.appc import App, ImageManifest, MountPoint, Port
from rkt.schema.architectures import appc_name_of
from rkt.schema.record import Record
from rkt.values import ACIdentifier, ACName, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.schema.oci import Execution, ImageConfig
    from rkt.values import Digest

_PREFIX = "appc.io/docker/"
#: Signals by name, as ``kill -l`` has them on every architecture that images are made for.
_SIGNALS = {
    name: number
    for number, name in enumerate(
        [
            "HUP",
            "INT",
            "QUIT",
            "ILL",
            "TRAP",
            "ABRT",
            "BUS",
            "FPE",
            "KILL",
            "USR1",
            "SEGV",
            "USR2",
            "PIPE",
            "ALRM",
            "TERM",
            "STKFLT",
            "CHLD",
            "CONT",
            "STOP",
            "TSTP",
            "TTIN",
            "TTOU",
            "URG",
            "XCPU",
            "XFSZ",
            "VTALRM",
            "PROF",
            "WINCH",
            "IO",
            "PWR",
            "SYS",
        ],
        start=1,
    )
} | {"IOT": 6, "POLL": 29}
_RTMIN = 34
_RTMAX = 64
_MAX_NAME_LENGTH = 200


class Origin(Record):
    """What an image is called, which its own documents do not say.

    Attributes:
        name: ``registry/repository``, or what the operator calls it.
        registry, repository: of a registry's image; empty for others.
        tag: empty when it was asked for by digest.
        reference: as it was asked for.
    """

    name: str
    registry: str = ""
    repository: str = ""
    tag: str = ""
    reference: str = ""


def render_view(config: ImageConfig, origin: Origin, *, digest: Digest, config_digest: Digest) -> bytes:
    """The image manifest of appc that stands for an image.

    Args:
        config: of the image.
        origin: what it is called.
        digest: of its manifest.
        config_digest: of its configuration.
    Raises:
        InvalidManifest: something in the configuration has no place in an image manifest.
    """
    labels = {"version": origin.tag} if origin.tag else {}
    labels |= {
        "os": config.platform.os,
        "arch": appc_name_of(config.platform.architecture, config.platform.variant),
    }
    annotations = {"created": config.created} if appc.is_date(config.created) else {}
    if config.author:
        annotations["author"] = config.author
    run = config.execution
    docker = {
        "originalname": origin.reference,
        "registryurl": origin.registry,
        # It also says that there are files to be copied into volumes: never without.
        "repository": origin.repository or origin.name,
        "imageid": config_digest,
        "manifesthash": digest,
    }
    if run is not None:
        if run.entrypoint:
            docker["entrypoint"] = jsontext.dump(run.entrypoint)
        if run.command:
            docker["cmd"] = jsontext.dump(run.command)
        if run.user and ":" not in run.user:
            docker["user"] = run.user
        if number := parse_signal(run.stop_signal):
            docker["stopsignal"] = str(number)
        if run.healthcheck:
            docker["healthcheck"] = jsontext.dump(run.healthcheck)
    manifest = ImageManifest(
        name=ACIdentifier.sanitize(origin.name),
        labels=labels,
        app=None if run is None else _app(run),
        annotations=annotations | {f"{_PREFIX}{name}": text for name, text in docker.items() if text},
    )
    data = jsontext.dump(manifest.to_json()).encode()
    # Every rule of the specification holds for what comes from a foreign configuration as for what an ACI says.
    appc.parse_image_manifest(data)
    return data


def parse_signal(text: str) -> int:
    """The number of a signal given by name, with or without ``SIG``, or by number; 0 for none or an unknown one."""
    word = text.strip().upper().removeprefix("SIG")
    if is_number(word):
        number = int(word) if len(word) <= 2 else 0
        return number if number <= _RTMAX else 0
    for base, start, sign in (("RTMIN", _RTMIN, 1), ("RTMAX", _RTMAX, -1)):
        if word.startswith(base):
            offset = word[len(base) :].lstrip("+-") or "0"
            number = start + sign * int(offset) if is_number(offset) else 0
            return number if _RTMIN <= number <= _RTMAX else 0
    return _SIGNALS.get(word, 0)


def _app(run: Execution) -> App:
    user, _, group = run.user.partition(":")
    directory = run.working_directory
    return App(
        exec=[*(run.entrypoint or ()), *(run.command or ())],
        user=user or "0",
        # Whoever gives a user only gets that user's group; where the account file knows none, the same word remains.
        group=group or user or "0",
        environment=_environment(run.environment),
        working_directory=directory if not directory or directory.startswith("/") else f"/{directory}",
        mount_points=_mount_points(run.volumes),
        ports=_ports(run.ports),
        user_labels=dict(run.labels),
    )


def _environment(lines: list[str]) -> dict[str, str]:
    """Of a variable given twice the last counts, as for the kernel's own; what cannot be a variable is left out."""
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, equals, value in pairs if equals and appc.is_variable_name(name)}


def _mount_points(paths: list[str]) -> list[MountPoint]:
    name = _names()
    points = [
        MountPoint(name=name(f"volume{path if path.startswith('/') else f'/{path}'}"), path=_absolute(path))
        for path in sorted(paths)
    ]
    return sorted(points, key=lambda point: point.name)


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _ports(texts: list[str]) -> list[Port]:
    name = _names()
    ports = []
    for text in sorted(texts):
        numbers, _, protocol = text.partition("/")
        first, dash, last = numbers.partition("-")
        if not all(is_number(n, most_digits=5) for n in (first, last if dash else first)):
            raise InvalidManifest(f"invalid exposed port {quoted(text)}")
        count = int(last) - int(first) + 1 if dash else 1
        ports.append(Port(name=name(text), protocol=protocol.lower() or "tcp", port=int(first), count=count))
    return sorted(ports, key=lambda port: port.name)


def _names() -> Callable[[str], ACName]:
    """Texts to names that are unique: a second one of the same name gets ``-1``."""
    taken: set[str] = set()

    def make(text: str) -> ACName:
        base = ACName.sanitize(text)[:_MAX_NAME_LENGTH].rstrip("-")
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        return ACName(name)

    return make
