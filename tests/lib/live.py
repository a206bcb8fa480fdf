# SPDX-License-Identifier: Apache-2.0
"""A sandbox pod whose apps come and go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lib.inspect import INSECURE, inspect_image, stored
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt, Running


class Sandbox:
    """A running sandbox pod and an image in its store."""

    def __init__(self, rkt: Rkt, images: Images, *flags: str) -> None:
        self.rkt = rkt
        self.image = stored(rkt, inspect_image(images))
        before = set(rkt.pods("run"))
        self.process: Running = rkt.popen("app", "sandbox", INSECURE, *flags)
        self.uuid = wait_for(lambda: self._new(before), "a pod with a pid file")

    def _new(self, before: set[str]) -> str | None:
        assert self.process.poll() is None, self.process.texts()
        for uuid in set(self.rkt.pods("run")) - before:
            if os.path.exists(os.path.join(self.rkt.pod_path(uuid), "pid")):
                return uuid
        return None

    def app(self, verb: str, *words: str, check: int | None = 0) -> Result:
        """``rkt app VERB UUID …``."""
        return self.rkt.run("app", verb, self.uuid, *words, check=check)

    def add(self, name: str, script: str, *flags: str, check: int | None = 0) -> Result:
        """Add a shell script."""
        words = (f"--name={name}", *flags, "--exec=/bin/sh", "--", "-c", script)
        return self.rkt.run("app", "add", INSECURE, self.uuid, self.image, *words, check=check)

    def start(self, name: str, script: str, *flags: str) -> None:
        """Add and start one."""
        self.add(name, script, *flags)
        self.app("start", f"--app={name}")

    def said(self, name: str, script: str, *flags: str) -> list[str]:
        """Run a script to its end as an app of its own; the lines of its log, without time and stream."""
        self.start(name, f"{script}\necho\necho .end", *flags)
        wait_for(lambda: " .end\n" in self.rkt.log(self.uuid, name), f"end of {name}")
        lines = [line.split(" ", 3)[3] for line in self.rkt.log(self.uuid, name).splitlines()]
        self.app("rm", f"--app={name}")
        return "\n".join(lines).removesuffix(".end").rstrip("\n").split("\n")

    def states(self) -> dict[str, str]:
        """App -> state."""
        lines = self.app("list", "--no-legend").stdout.split("\n")
        return dict(line.split("\t") for line in lines if line)

    def wait_for(self, **states: str) -> None:
        """Wait until the pod has exactly these apps in these states."""
        wait_for(lambda: self.states() == states, f"{states}")

    def end(self) -> None:
        """The pod is still running, and stop ends it with status 0."""
        assert self.process.poll() is None, self.process.texts()
        self.rkt.run("stop", self.uuid, check=0)
        assert self.process.wait(20) == 0, self.process.texts()
