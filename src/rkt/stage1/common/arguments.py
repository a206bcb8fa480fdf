# SPDX-License-Identifier: Apache-2.0
"""Arguments of the entrypoints (spec runtime §1.5)."""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import files
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.userns import IdRange

#: How the pod was run, for ``enter`` (spec runtime §2.3).
RUNTIME_CONFIG = "runtime-config"
_LIMIT_BYTES = 64 << 10


class RunArguments(Record):
    """What stage0 tells the ``run`` entrypoint.

    Attributes:
        networks: normalised ``--net`` list; empty means ``default``.
        resolv_mode: of ``/etc/resolv.conf``; ``network`` once a network has said what is in it.
        ipc: ``auto``, ``private`` or ``parent``.
        metadata_url: of a pod that is registered, empty for others; not an argument, see ``metadata``.
    """

    uuid: PodUUID
    debug: bool = False
    networks: list[str] = []
    interactive: bool = False
    private_users: str = ""
    local_config: str = "/etc/rkt"
    hostname: str = ""
    resolv_mode: str = "default"
    hosts_mode: str = "default"
    disable_capabilities_restriction: bool = False
    disable_paths: bool = False
    disable_seccomp: bool = False
    mutable: bool = False
    ipc: str = "auto"
    metadata_url: str = ""


def parse_run(arguments: list[str]) -> RunArguments:
    """Parse the arguments of ``run``.

    Raises:
        Stage1Error: an argument that this stage1 does not know, or a value it cannot honour.
    """
    values: dict[str, object] = {}
    for argument in arguments[:-1]:
        name, equals, value = argument.partition("=")
        if name in {"--debug", "--interactive", "--mutable"} and not equals:
            values[name[2:]] = True
        elif (
            name in {"--disable-capabilities-restriction", "--disable-paths", "--disable-seccomp"}
            and not equals
        ):
            values[name[2:].replace("-", "_")] = True
        elif name == "--net":
            values["networks"] = value.split(",") if value else []
        elif name in {"--hostname", "--local-config", "--private-users", "--ipc"} and equals:
            values[name[2:].replace("-", "_")] = value
        elif name == "--dns-conf-mode" and equals:
            for part in value.split(","):
                kind, _, mode = part.partition("=")
                if kind not in {"resolv", "hosts"} or mode not in {"default", "stage0", "host", "none"}:
                    raise Stage1Error(f"invalid value {value!r} of --dns-conf-mode")
                values[f"{kind}_mode"] = mode
        elif name == "--mds-token" and equals:
            pass
        else:
            raise Stage1Error(f"unknown argument {argument!r}")
    if values.get("ipc", "auto") not in {"auto", "private", "parent"}:
        raise Stage1Error(f"unknown value for --ipc parameter: {values['ipc']}")
    if not arguments:
        raise Stage1Error("the pod's UUID is missing")
    return RunArguments(uuid=PodUUID.parse(arguments[-1]), **values)  # type: ignore[arg-type]


def ids_of(arguments: RunArguments) -> IdRange | None:
    """The ids of a pod that has a user namespace."""
    if not arguments.private_users:
        return None
    from rkt.stage1.common.private_users import parse_ids

    return parse_ids(arguments.private_users)


def save_run(argv: list[str]) -> None:
    """Keep the arguments of ``run`` in the pod directory."""
    text = jsontext.dump({"version": 1, "arguments": argv})
    files.replace_file(RUNTIME_CONFIG, text.encode(), 0o640, sync=False)


def load_run() -> RunArguments:
    """The arguments with which the pod was run, as its ``run`` entrypoint left them."""
    words = jsontext.parse(files.read_bounded(RUNTIME_CONFIG, _LIMIT_BYTES), what=RUNTIME_CONFIG)
    arguments = parse_run([str(word) for word in words["arguments"]])
    if os.path.exists(contract.METADATA_URL):
        from rkt.stage1.common import metadata

        return arguments.replace(metadata_url=metadata.known_url())
    return arguments
