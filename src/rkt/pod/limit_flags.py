# SPDX-License-Identifier: Apache-2.0
"""Flags for limits that appc does not know, to isolators; imported when one is given."""

from __future__ import annotations

import os
import stat

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema import isolators, limits
from rkt.schema.isolators import Isolator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.pod.request import AppRequest, PodRequest


def app_isolators(flags: AppRequest) -> list[Isolator]:
    """Isolators of ``--pids-limit``, ``--ulimit``, ``--cpuset-cpus``, ``--io-weight`` and ``--device-…``.

    They stand after those of the image, so they win.

    Raises:
        UsageError: a value is malformed.
    """
    found: list[Isolator] = []
    if flags.pids_limit is not None:
        value = _value("--pids-limit", isolators.PIDS, {"limit": flags.pids_limit})
        found.append(Isolator(name=isolators.PIDS, value=value))
    if flags.ulimits:
        pairs = [_read("--ulimit", limits.parse_ulimit, text) for text in flags.ulimits]
        found.append(Isolator(name=isolators.RLIMITS, value=dict(pairs)))
    if flags.cpuset_cpus is not None:
        value = _value("--cpuset-cpus", isolators.CPUSET_CPUS, flags.cpuset_cpus)
        found.append(Isolator(name=isolators.CPUSET_CPUS, value=value))
    if flags.io_weight is not None:
        found.append(Isolator(name=isolators.IO_WEIGHT, value=flags.io_weight))
    if flags.device_rates:
        rates = []
        for kind, text in flags.device_rates:
            try:
                limit = limits.parse_device_rate(kind, text)
            except InvalidManifest as e:
                raise _usage(f"--device-{kind}", e) from e
            _check_device(kind, limit["device"])
            rates.append(limit)
        found.append(Isolator(name=isolators.IO_LIMITS, value=rates))
    return found


def sysctl_isolators(request: PodRequest) -> list[Isolator]:
    """The pod isolator of ``--sysctl=NAME=VALUE``.

    Raises:
        UsageError: a value is malformed, or no pod may set it.
    """
    values = dict(_sysctl(text)[:2] for text in request.sysctls)
    return [Isolator(name=isolators.SYSCTL, value=values)]


def check_sysctls(texts: list[str], *, networks: list[str], ipc: str) -> None:
    """Notice before there is a pod what stage1 would refuse: a parameter of a namespace that is the host's.

    Raises:
        UsageError: names the parameter and the flag.
    """
    for text in texts:
        name, _, namespace = _sysctl(text)
        for shared, flag, kind in (
            ("host" in networks, "--net=host", limits.NAMESPACE_NET),
            (ipc == "parent", "--ipc=parent", limits.NAMESPACE_IPC),
        ):
            if shared and namespace == kind:
                raise UsageError(f"sysctl {name} would be the host's with {flag}", hint=f"leave out {flag}")


def _sysctl(text: str) -> tuple[str, str, str]:
    """Name, value and namespace."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"invalid value in --sysctl flag: {quoted(text)}", hint="--sysctl=NAME=VALUE")
    return name, value, _read("--sysctl", lambda word: limits.check_sysctl(word, value), name)


def _check_device(kind: str, path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise UsageError(f"invalid value in --device-{kind} flag: {path}: {e.strerror}") from e
    if not stat.S_ISBLK(mode):
        raise UsageError(
            f"invalid value in --device-{kind} flag: {path} is no block device", hint="lsblk lists them"
        )


def _value(flag: str, name: str, value: object) -> Any:
    return _read(flag, lambda one: isolators.parse_value(name, one), value)


def _read(flag: str, parse: Callable[[Any], Any], value: object) -> Any:
    try:
        return parse(value)
    except InvalidManifest as e:
        raise _usage(flag, e) from e


def _usage(flag: str, e: InvalidManifest) -> UsageError:
    return UsageError(f"invalid value in {flag} flag: {e.message}", hint=e.hint)
