# SPDX-License-Identifier: Apache-2.0
"""The system call filter of an app as directives of its unit, with the verdicts of the compiled filter of ``ns``.

``seccomp_profiles`` has the lists. What directives cannot say is in the pod's own filter, which all of a pod inherits:
``linux.seccomp.compile_pod_filter``. The first ``SystemCallFilter=`` makes the list one of what is allowed; systemd then
adds a set of its own, ``@default``, which is taken away again before the names are given, so that nothing is allowed but
these. A name after ``~`` with an errno gets that answer instead of the default one; but of a name that is there already
systemd only takes notice that it is to be gone, so each is named once.

Names that the host's libseccomp does not know are passed over by systemd, so these calls answer as unknown ones do.
"""

from __future__ import annotations

import errno

from rkt.errors import Stage1Error
from rkt.linux import seccomp_isolators as wishes
from rkt.linux import seccomp_profiles as profiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rkt.schema.isolators import Isolator

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
#: Calls that ``RestrictNamespaces=`` narrows beside ``clone``: an operator who gives one back means it.
_NAMESPACE_CALLS = frozenset(("unshare", "setns"))
_FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"


def directives(isolators: Sequence[Isolator], *, pod_filtered: bool) -> list[tuple[str, str]]:
    """Names and values for the ``[Service]`` section, in order; none when the app is to have no filter.

    Args:
        isolators: of the app.
        pod_filtered: whether the pod's own filter is there; without it what comes nearest is said here.
    Raises:
        Stage1Error: an isolator names what cannot be.
    """
    try:
        wish = wishes.parse(
            [
                (i.name, i.value.names, i.value.errno)
                for i in isolators
                if i.name.startswith("os/linux/seccomp-")
            ]
        )
    except ValueError as e:
        raise Stage1Error(str(e)) from e
    if wish.everything:
        return []
    retains = wish.kind == wishes.RETAIN
    answer = errno.errorcode[wish.action & 0xFFFF] if wish.action & 0xFFFF else ""
    lines = []
    #: Calls with an answer of their own.
    refused: dict[str, str] = {}
    if not retains:
        default = "ENOSYS"
        allowed = set(profiles.default_names())
        refused.update(dict.fromkeys(profiles.words(profiles.REFUSED.values()), "EPERM"))
        refused.update(dict.fromkeys(wish.names, answer or "kill"))
    else:
        default = answer
        allowed = {*wish.names, *profiles.words((profiles.IMPLICIT,))}
    refused.update(dict.fromkeys(profiles.NOT_THERE, "ENOSYS"))
    allowed.difference_update(refused)
    if default:
        lines.append(("SystemCallErrorNumber", default))
    lines += [
        ("SystemCallFilter", "execve"),
        ("SystemCallFilter", "~@default"),
        ("SystemCallFilter", _names(allowed)),
    ]
    # libseccomp refuses a rule that says what the filter says anyway.
    for each in sorted(set(refused.values()) - {default}):
        names = [name for name, its in refused.items() if its == each]
        lines.append(("SystemCallFilter", f"~{_names(names, each)}"))
    if not allowed & _NAMESPACE_CALLS:
        lines.append(("RestrictNamespaces", "yes"))
    lines.append(("RestrictAddressFamilies", _FAMILIES))
    if not pod_filtered:
        lines += [("SystemCallArchitectures", "native"), ("LockPersonality", "yes")]
    return lines


def _names(names: Iterable[str], answer: str = "") -> str:
    suffix = f":{answer}" if answer else ""
    found = sorted(names)
    for name in found:
        if not name or not _NAME.issuperset(name):
            raise Stage1Error(f"no system call is named {name!r}")
    return " ".join(name + suffix for name in found)
