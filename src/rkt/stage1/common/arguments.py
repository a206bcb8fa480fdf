# SPDX-License-Identifier: Apache-2.0
"""Arguments of the entrypoints (spec runtime §1.5)."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.schema.record import Record
from rkt.values import PodUUID


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
