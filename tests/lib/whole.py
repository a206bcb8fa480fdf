# SPDX-License-Identifier: Apache-2.0
"""What must hold of an engine after any fault: every command works, images are whole, one gc leaves nothing of the pods."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

NAME = "example.com/matrix"
PREFIX = f"--prefix={NAME}"


class Subject:
    """One engine, one signed image, and what each command of the matrix starts from."""

    def __init__(self, rkt: Rkt, images: Images) -> None:
        self.rkt = rkt
        self.images = images
        self.file = images.busybox(NAME, ("/bin/echo", "whole"), file="matrix")
        images.sign(self.file)
        self.trust()
        self.fetch()
        # The stage1 image is in the store from here on, as on every host that ran a pod once.
        self.rkt.run("run", NAME, check=0)
        self.stored = self.check("at the start")

    def trust(self) -> None:
        """The image's key is trusted."""
        self.rkt.run("trust", PREFIX, "--skip-fingerprint-review", self.images.key_file, check=0)

    def fetch(self) -> None:
        """The image is in the store."""
        self.rkt.run("fetch", self.file, check=0)

    def forget(self) -> None:
        """The image is not in the store."""
        self.rkt.run("image", "rm", NAME)

    def prepared(self) -> str:
        """A prepared pod."""
        return self.rkt.run("prepare", NAME, check=0).stdout.strip()

    def exited(self) -> str:
        """A pod that is over."""
        self.rkt.run("run", NAME, check=0)
        (uuid,) = self.rkt.pods()
        return uuid

    def running(self) -> str:
        """A pod that runs until it is stopped."""
        self.rkt.popen("run", NAME, "--exec=/bin/sleep", "--", "1000")
        uuid = self.rkt.wait_for_pod()
        self.rkt.run("status", "--wait-ready=10s", uuid, check=0)
        return uuid

    def check(self, moment: str) -> list[str]:
        """Everything works, nothing is half there, one gc leaves nothing; returns the images that there are."""
        self.check_pods(moment)
        return self.check_images(moment)

    def check_pods(self, moment: str) -> None:
        """One gc leaves nothing of the pods."""
        rkt = self.rkt
        for uuid, place in rkt.pods().items():
            if place == "run":
                rkt.run("stop", "--force", uuid)

        def over() -> bool:
            listed = rkt.run("list", "--format=json", check=0)
            assert listed.stderr == "", (moment, listed)
            return all(pod["state"] != "running" for pod in json.loads(listed.stdout) or ())

        wait_for(over, "end of the pods")
        collected = rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
        assert rkt.pods() == {}, (moment, collected)
        names = f"{rkt.data}/pods/names"
        assert not os.path.isdir(names) or os.listdir(names) == [], moment

    def check_images(self, moment: str) -> list[str]:
        """Each image is whole and verified, one image gc leaves nothing else; returns the images that there are."""
        rkt = self.rkt
        rkt.run("image", "gc", "--grace-period=24h", check=0)
        assert os.listdir(f"{rkt.data}/cas/tmp") == [], moment
        listed = rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0)
        assert listed.stderr == "", (moment, listed)
        if listed.lines:
            rkt.run("image", "verify", *listed.lines, check=0)
        assert sorted(os.listdir(f"{rkt.data}/cas/layer")) == sorted(listed.lines), moment
        return sorted(listed.lines)

    def proves_usable(self, moment: str = "at the end") -> None:
        """Fetch and run as on the first day."""
        self.rkt.run("trust", "list", check=0)
        self.trust()
        self.fetch()
        assert self.rkt.run("run", NAME, check=0).lines == ["whole"], moment
        self.check_pods(moment)
