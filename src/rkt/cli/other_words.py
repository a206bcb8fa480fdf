# SPDX-License-Identifier: Apache-2.0
"""What rkt calls the commands that people know of docker and podman; looked at when a word is none of rkt's."""

from __future__ import annotations

#: Their word -> ours; where there are several, the most likely first.
WORDS = {
    "build": ("image create",),
    "commit": ("export",),
    "container": ("list",),
    "create": ("prepare",),
    "exec": ("enter",),
    "images": ("image list",),
    "info": ("check-host", "version"),
    "inspect": ("status", "cat-manifest", "image cat-manifest"),
    "kill": ("stop",),
    "load": ("fetch",),
    "login": ("help config",),
    "network": ("net list",),
    "pod": ("list",),
    "port": ("status",),
    "ps": ("list",),
    "pull": ("fetch",),
    "push": ("image push",),
    "restart": ("start",),
    "rmi": ("image rm",),
    "save": ("image export",),
    "system": ("gc", "image gc"),
}
