# SPDX-License-Identifier: Apache-2.0
"""Whether this host can confine an app as its isolators say: asked before a pod exists, for apps that have such isolators."""

from __future__ import annotations

from rkt.errors import InvalidManifest
from rkt.schema import isolators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.schema.isolators import Isolator

_CAPABILITIES = (isolators.CAPABILITIES_RETAIN, isolators.CAPABILITIES_REMOVE)
_SECCOMP = (isolators.SECCOMP_RETAIN, isolators.SECCOMP_REMOVE)


def check_confinement(given: Sequence[Isolator]) -> None:
    """Hold capabilities and system calls against what the kernel knows.

    Raises:
        InvalidManifest: a capability, a call to remove or an errno that nobody knows, or a capability to keep that rkt
            itself does not have.
    """
    seccomp = []
    for isolator in given:
        if isolator.name in _CAPABILITIES:
            _check_capabilities(isolator)
        elif isolator.name in _SECCOMP:
            seccomp.append((isolator.name, isolator.value.names, isolator.value.errno))
    if seccomp:
        from rkt.linux import seccomp_isolators

        try:
            seccomp_isolators.parse(seccomp)
        except ValueError as e:
            raise InvalidManifest(str(e)) from e


def _check_capabilities(isolator: Isolator) -> None:
    from rkt.linux import capabilities

    try:
        bits = capabilities.mask(isolator.value.names)
    except ValueError as e:
        raise InvalidManifest(str(e)) from e
    unknown = bits & ~capabilities.full_mask()
    if unknown:
        names = ", ".join(capabilities.names(unknown))
        raise InvalidManifest(f"unknown capability {names}: this kernel has none of that name")
    lacking = capabilities.missing(bits) if isolator.name == isolators.CAPABILITIES_RETAIN else 0
    if lacking:
        names = ", ".join(capabilities.names(lacking))
        raise InvalidManifest(f"cannot keep {names}: rkt itself does not have it here")
