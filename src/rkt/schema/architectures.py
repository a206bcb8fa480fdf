# SPDX-License-Identifier: Apache-2.0
"""What processors are called: by appc, by OCI, by uname(2), and by people; one table for all of them.

OCI has an architecture and, of some processors, a variant: ``arm`` and ``v7``. Whatever is not in the table has the same
name everywhere, as ``riscv64``.
"""

from __future__ import annotations

#: appc's word, architecture and variant as OCI has them, and what else it is called.
_TABLE = (
    ("amd64", ("amd64", ""), ("x86_64", "x86-64")),
    ("i386", ("386", ""), ("i486", "i586", "i686")),
    ("aarch64", ("arm64", ""), ()),
    ("aarch64_be", ("arm64be", ""), ()),
    ("armv6l", ("arm", "v6"), ("armel",)),
    ("armv7l", ("arm", "v7"), ("armhf", "armv8l")),
    ("armv7b", ("armbe", ""), ()),
    ("loongarch64", ("loong64", ""), ()),
)
_TO_OCI = {word: oci for appc, oci, others in _TABLE for word in (appc, *others)}
_TO_APPC = {word: appc for appc, _, others in _TABLE for word in others}
#: By ``architecture``, or by ``architecture/variant`` where that is another processor to appc.
_FROM_OCI = {
    **{architecture: appc for appc, (architecture, _), _ in _TABLE},
    "arm/v5": "armv6l",
    "arm/v6": "armv6l",
}


def appc_name(word: str) -> str:
    """Appc's word for what uname(2) says."""
    return _TO_APPC.get(word, word)


def appc_name_of(architecture: str, variant: str) -> str:
    """Appc's word for what an OCI image says."""
    return _FROM_OCI.get(f"{architecture}/{variant}") or _FROM_OCI.get(architecture, architecture)


def oci_names(word: str) -> tuple[str, str]:
    """OCI's architecture and variant for any word; the variant is empty unless the word says it."""
    return _TO_OCI.get(word, (word, ""))
