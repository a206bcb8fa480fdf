# SPDX-License-Identifier: Apache-2.0
"""Pods of the same network find each other by name, and registered ones the metadata service (spec runtime §3.8, §5.6)."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.nethost import NetHost, marks
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [*marks(), pods("networks")]
#: Says what it finds in its hosts file each time that this changes.
WATCH = 'while :; do now=$(grep -o "^[^#]*web[^#]*" /etc/hosts | tr -s " "); [ "$now" = "$old" ] || echo "now: $now"; old=$now; sleep 0.05; done'
SERVE = "while :; do echo hello | nc -l -p 80; done"


class Lab:
    """A host with an engine whose pods are on its default network."""

    def __init__(self, base: str, images: Images, flavor: str) -> None:
        self.host = NetHost(f"{base}/host", flavor)
        self.rkt: Rkt = self.host.rkt()
        hosts: dict[str, bytes | tuple[bytes, int]] = {"etc/hosts": b"192.0.2.9 of-the-image\n"}
        self.image = fetch(self.rkt, images.busybox("example.com/named", files=hosts))

    def start(self, script: str, *flags: str) -> tuple[str, Running]:
        """Start a pod; its UUID."""
        known = set(self.rkt.pods("run"))
        words = ["run", "--insecure-options=image", "--net=default", *flags, self.image]
        process = self.rkt.popen(*words, "--exec=/bin/sh", "--", "-c", script)

        def uuid() -> str | None:
            assert process.poll() is None, process.stderr_text
            new = [each for each in self.rkt.pods("run") if each not in known]
            return next((each for each in new if os.path.exists(f"{self.rkt.pod_path(each)}/pid")), None)

        return wait_for(uuid, "a running pod"), process

    def enter(self, uuid: str, script: str) -> str:
        """What a command in a pod prints."""
        return self.rkt.run("enter", uuid, "/bin/sh", "-c", script).stdout


@pytest.fixture(scope="module")
def lab(images: Images, flavor: str) -> Iterator[Lab]:
    """One host for all of this file."""
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base:
        made = Lab(base, images, flavor)
        try:
            yield made
        finally:
            made.rkt.stop_everything()
            left = made.host.run("find", "/run/rkt", "-type", "f", "!", "-name", "*.lock")
            made.host.__exit__(None, None, None)
            assert left == ""


def test_pods_find_each_other(lab: Lab) -> None:
    """A pod that was there first reaches one that came later by name and by rkt-UUID, sees it go when it ends, and when it was killed with the next gc; a user's volume and the host's file win."""
    client, watching = lab.start(WATCH, "--name=client")
    web, server = lab.start(SERVE, "--name=web", "--hostname=front")
    wait_for(lambda: f"web front rkt-{web}" in watching.stdout_text, "the name of the new pod")
    for name in ("web", "front", f"rkt-{web}"):
        # Its server serves one, and needs a moment until it serves the next.
        assert lab.enter(client, f"until nc {name} 80; do sleep 0.05; done") == "hello\n"
    assert f" client rkt-{client}" in lab.enter(web, "cat /etc/hosts")
    hosts = lab.enter(client, "cat /etc/hosts; echo x >>/etc/hosts")
    assert f"127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 rkt-{client}\n" in hosts
    assert "of-the-image" not in hosts
    assert lab.enter(client, "tail -n 1 /etc/hosts").startswith("172.16.28."), "the file is read-only"
    with open(f"{lab.rkt.base}/own-hosts", "w", encoding="ascii") as stream:
        stream.write("192.0.2.7 mine\n")
    volume = (
        f"--volume=own,kind=host,source={lab.rkt.base}/own-hosts",
        "--mount=volume=own,target=/etc/hosts",
    )
    for flags, shown in ((volume, "192.0.2.7 mine\n"), (("--hosts-entry=host",), None)):
        words = ["run", "--insecure-options=image", "--net=default", *flags, lab.image]
        done = lab.rkt.run(*words, "--exec=/bin/cat", "--", "/etc/hosts", check=0)
        with open("/etc/hosts", encoding="utf-8") as stream:
            assert done.stdout == (shown or stream.read())
    lab.rkt.run("stop", web, check=0)
    server.wait(20)
    wait_for(lambda: watching.stdout_text.endswith("now: \n"), "the end of the name")
    again, server = lab.start(SERVE, "--name=web", "--hosts-entry=192.0.2.8=other", "--private-users")
    assert "192.0.2.8 other\n" in lab.enter(again, "cat /etc/hosts")
    wait_for(lambda: f"web rkt-{again}" in watching.stdout_text.rpartition("now:")[2], "the name once more")
    server.send_signal(signal.SIGKILL)
    server.wait(20)
    lab.rkt.run("rm", again, check=0)
    wait_for(lambda: watching.stdout_text.endswith("now: \n"), "the end of the killed pod's name")
    lab.rkt.run("stop", client, check=0)
    watching.wait(20)


def test_the_metadata_service_is_at_the_gateway(lab: Lab) -> None:
    """A registered pod asks at the address of its host in its network, where the service listens as long as such a pod is there, and nowhere else."""
    service = lab.rkt.popen("metadata-service", "--listen-port=18119")
    wait_for(lambda: "listening on" in service.stderr_text, "metadata service")

    def listening() -> set[str]:
        lines = lab.host.run("cat", "/proc/net/tcp").splitlines()[1:]
        return {line.split()[1] for line in lines if line.split()[3] == "0A"}

    alone = {"0100007F:46C7"}
    assert listening() == alone
    ask = 'wget -q -O - "$AC_METADATA_URL/acMetadata/v1/pod/uuid"; echo " $AC_METADATA_URL"; while :; do sleep 0.1; done'
    uuid, pod = lab.start(ask, "--mds-register")
    wait_for(lambda: f"{uuid} http://172.16.28.1:18119/" in pod.stdout_text, "answer of the service")
    assert listening() == {*alone, "011C10AC:46C7"}
    lab.rkt.run("stop", uuid, check=0)
    pod.wait(20)
    assert listening() == alone
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
