# SPDX-License-Identifier: Apache-2.0
"""``rkt metadata-service``: answer the pods of this host (spec cli §2.31)."""

from __future__ import annotations

from rkt.cli.command import LIST, Command, Flag
from rkt.errors import HostError, UsageError, quoted
from rkt.values import is_ip, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Serve until SIGTERM or SIGINT; returns 0 then."""
    import os

    from rkt.linux import listening
    from rkt.metadata.service import Service
    from rkt.stage0.messages import tell

    values = invocation.values
    settings = invocation.settings
    port = _parse_port(values["listen-port"])
    addresses = _parse_addresses(values["listen-address"])
    try:
        passed = listening.passed(dict(os.environ), os.getpid())
    except ValueError as e:
        raise UsageError(str(e)) from e
    try:
        service = Service(settings.data_dir, port, addresses, passed, lambda text: tell(settings, text))
    except OSError as e:
        where = f"{', '.join(addresses) or '127.0.0.1'} port {port}"
        raise HostError(f"cannot listen on {where}: {e.strerror}", hint="--listen-port=N") from e
    try:
        service.run()
    finally:
        service.close()
    return 0


def _parse_port(text: str) -> int:
    if not is_number(text, most_digits=5) or not 0 < int(text) < 65536:
        raise UsageError(f"invalid value {quoted(text)} for --listen-port: a number up to 65535 is expected")
    return int(text)


def _parse_addresses(values: list[str]) -> list[str]:
    addresses = [address for value in values for address in value.split(",")]
    for address in addresses:
        if not is_ip(address):
            raise UsageError(
                f"invalid value {quoted(address)} for --listen-address: an IP address is expected"
            )
    return addresses


COMMAND = Command(
    name="metadata-service",
    summary="answer pods that ask about themselves",
    description=(
        "Serves appc's metadata to the pods of this host that were run with --mds-register: their manifests and annotations, "
        "and signatures by which one pod knows another. An app finds it by the variable AC_METADATA_URL, which is a secret of "
        "its pod.\n\n"
        "Runs in the foreground, as a service does; rkt-metadata.service and rkt-metadata.socket are for systemd. It listens "
        "on 127.0.0.1 for pods of the host's network, and on the host's address in the network of each other pod that is "
        "registered, unless --listen-address says otherwise. Registrations and the key for signatures are in the data "
        "directory, so that it can be restarted at any time."
    ),
    run=run,
    flags=(
        Flag(
            name="listen-address",
            kind=LIST,
            help="addresses to listen on, instead of those that pods need; repeatable",
            metavar="IP[,IP…]",
        ),
        Flag(name="listen-port", default="18112", help="port to listen on", metavar="PORT"),
    ),
    needs_root=True,
    examples=(
        ("rkt metadata-service", "serve until it is stopped"),
        (
            "rkt run --mds-register example.com/web --exec=/bin/sh -- -c 'wget -O - \"$AC_METADATA_URL/acMetadata/v1/pod/uuid\"'",
            "a pod that asks for its UUID",
        ),
    ),
)
