# SPDX-License-Identifier: Apache-2.0
"""Pods with networks, on a host of the test's own."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from tests.lib.images import fetch
from tests.lib.nethost import NetHost
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tests.lib.rkt import Result, Running

INSECURE = "--insecure-options=image"


class PodLab:
    """A host, an engine that runs on it, and an image of its."""

    def __init__(self, base: str, image: str, flavor: str) -> None:
        self.host = NetHost(f"{base}/host", flavor)
        self.rkt = self.host.rkt()
        self.image = fetch(self.rkt, image)
        self.net_d = f"{self.rkt.local}/net.d"
        os.makedirs(self.net_d, mode=0o755)

    def define(self, name: str, kind: str, *, file: str = "", **members: Any) -> None:
        """Configure a network of one plugin."""
        self.write(file or f"10-{name}.conf", {"cniVersion": "0.4.0", "name": name, "type": kind, **members})

    def chain(self, name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
        """Configure a network of several."""
        self.write(f"10-{name}.conflist", {"cniVersion": version, "name": name, "plugins": list(plugins)})

    def write(self, file: str, members: dict[str, Any]) -> None:
        """Write a configuration."""
        with open(f"{self.net_d}/{file}", "w", encoding="utf-8") as stream:
            json.dump(members, stream)

    def plugin(self, name: str, text: str, *, interpreter: str = "/bin/sh") -> None:
        """Write a plugin of somebody else's."""
        with open(f"{self.net_d}/{name}", "w", encoding="utf-8") as stream:
            stream.write(f"#!{interpreter}\n{text}\n")
        os.chmod(f"{self.net_d}/{name}", 0o755)

    def python_plugin(self, name: str, text: str) -> None:
        """The same in Python."""
        self.plugin(name, text, interpreter=f"{os.path.realpath(sys.executable)} -IS")

    def sh(self, net: str, script: str, *flags: str, check: int | None = 0) -> Result:
        """Run a pod of one shell script."""
        return self.rkt.run("run", *self._words(net, script, *flags), check=check)

    def start(self, net: str, script: str, *flags: str) -> tuple[str, Running]:
        """Start one that goes on; its UUID."""
        known = set(self.rkt.pods("run"))
        process = self.rkt.popen("run", *self._words(net, script, *flags))

        def uuid() -> str | None:
            assert process.poll() is None, process.stderr_text
            new = [each for each in self.rkt.pods("run") if each not in known]
            return next((each for each in new if os.path.exists(f"{self.rkt.pod_path(each)}/pid")), None)

        return wait_for(uuid, "a running pod"), process

    def stop(self, uuid: str, process: Running) -> None:
        """End one at once."""
        self.rkt.run("stop", "--force", uuid, check=0)
        process.wait(20)

    def _words(self, net: str, script: str, *flags: str) -> list[str]:
        return [INSECURE, f"--net={net}", *flags, self.image, "--exec=/bin/sh", "--", "-c", script]

    def status(self, uuid: str) -> dict[str, Any]:
        """What the command line says about a pod."""
        shown = json.loads(self.rkt.run("status", "--format=json", uuid, check=0).stdout)
        assert isinstance(shown, dict)
        return shown

    def address(self, uuid: str, index: int = 0) -> str:
        """The address of a pod on one of its networks."""
        return str(self.status(uuid)["networks"][index]["ip"])

    def close(self, *, but: Sequence[str] = ()) -> None:
        """Stop everything; what is left on the host is an error.

        Args:
            but: interfaces that networks may leave, such as bridges.
        """
        self.rkt.stop_everything()
        leaks = self.host.leaks(but=but)
        self.host.__exit__(None, None, None)
        assert not leaks, "\n".join(leaks)
