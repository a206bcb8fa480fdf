# SPDX-License-Identifier: Apache-2.0
"""The metadata service (spec runtime §5.6), on a host of its own: a network namespace, and a mount namespace with its own /run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib import rkt as rkt_library
from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, by_app
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Running

pytestmark = [pytest.mark.root, pods("networks")]

SOCKET = "/run/rkt/metadata-svc.sock"
HOST = "mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && echo up && exec sleep 3600"
#: The checks of appc's validator, apart from its programming language.
VALIDATOR = r"""
fail() { echo "==> $1" >&2; failed=1; }
has() { [ -e "$1" ] || fail "$1 does not exist"; }
hasnt() { [ ! -e "$1" ] || fail "$1 exists"; }
create() { hasnt "$1"; touch "$1" || fail "touch $1"; }
await() { n=0; while [ ! -e "$1" ]; do n=$((n + 1)); [ $n -lt 200 ] || { fail "no $1"; return; }; sleep 0.1; done; }
get() { wget -q -O - --header 'Metadata-Flavor: AppContainer' "$AC_METADATA_URL/acMetadata/v1/$1" || fail "GET $1"; }
post() { wget -q -O - --post-data "$2" "$AC_METADATA_URL/acMetadata/v1/$1"; }
failed=
case "$1" in
prestart) create /prestart; hasnt /main; hasnt /poststop ;;
main)
    has /prestart; create /main; hasnt /poststop
    [ "$PATH" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ] || fail "PATH=$PATH"
    [ "$(pwd)" = /opt/acvalidator ] || fail "working directory $(pwd)"
    [ "$IN_ACE_VALIDATOR $HOME $USER $LOGNAME $SHELL" = "correct /root root root /bin/sh" ] || fail "environment"
    grep -q '^[^ ]* /db [^ ]* rw,' /proc/mounts || fail "/db is not mounted"
    [ "$AC_APP_NAME" = ace-validator-main ] || fail "AC_APP_NAME=$AC_APP_NAME"
    [ -n "$AC_METADATA_URL" ] || fail "no AC_METADATA_URL"
    get pod/manifest | grep -q '"acKind": *"PodManifest"' || fail "pod manifest"
    uuid=$(get pod/uuid)
    [ "$(hostname)" = "rkt-$uuid" ] || fail "UUID $uuid"
    get pod/annotations | grep -q '^\[' || fail "annotations of the pod"
    for app in main sidekick; do
        get apps/ace-validator-$app/image/manifest | grep -q "\"name\": *\"coreos.com/ace-validator-$app\"" || fail "manifest of $app"
        id=$(get apps/ace-validator-$app/image/id)
        get pod/manifest | grep -q "$id" || fail "image $id of $app"
        get apps/ace-validator-$app/annotations/ | grep -q '"name": *"coreos.com/rkt/stage1/run"' || fail "annotations of $app"
        [ "$(get apps/ace-validator-$app/annotations/coreos.com/rkt/stage1/run)" = /ace ] || fail "annotation of $app"
    done
    text="Old%20MacDonald%20Had%20A%20Farm"
    signature=$(post pod/hmac/sign "content=$text") || fail sign
    post pod/hmac/verify "content=$text&uuid=$uuid&signature=$signature" || fail verify
    post pod/hmac/verify "content=other&uuid=$uuid&signature=$signature" 2>/dev/null && fail "a wrong signature is good"
    await /db/sidekick; create /db/main
    ;;
sidekick) create /db/sidekick; await /db/main ;;
poststop) has /prestart; has /main; create /poststop ;;
esac
[ -z "$failed" ] && echo "$1 OK" || { echo "$1 FAIL"; exit 1; }
"""


#: What systemd does for rkt-metadata.socket, with a second socket on which pods ask.
ACTIVATE = f"""
import os, socket, sys
os.makedirs("/run/rkt", exist_ok=True)
if os.path.exists("{SOCKET}"): os.unlink("{SOCKET}")
register = socket.socket(socket.AF_UNIX)
register.bind("{SOCKET}")
register.listen()
ask = socket.create_server(("127.0.0.1", 18113))
for place, each in ((10, register), (11, ask)): os.dup2(each.fileno(), place)
for place in (3, 4): os.dup2(place + 7, place)
os.closerange(5, 100)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(sys.argv[1], sys.argv[1:])
"""


#: Asks on the socket of registrations as some user.
ASK = f"""
import os, socket, sys
os.setgroups([])
os.setresuid(*[int(sys.argv[1])] * 3)
client = socket.socket(socket.AF_UNIX)
client.connect("{SOCKET}")
try:
    client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print(client.recv(1000))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


class Host:
    """A host with the metadata service; its engine is started there."""

    def __init__(self, base: str, flavor: str) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c", HOST], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as output:
            assert output.readline() == b"up\n"
        self.enter = [
            "nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--net=/proc/{self._holder.pid}/ns/net", "--wd=.", "--"
        ]  # fmt: skip
        self.directory = tempfile.mkdtemp(prefix="rkt-test-mds-")
        binary = f"{self.directory}/rkt"
        with open(binary, "w", encoding="utf-8") as stream:
            stream.write(f'#!/bin/sh\nexec {" ".join(self.enter)} {rkt_library.BINARY} "$@"\n')
        os.chmod(binary, 0o755)
        self.rkt = rkt_library.Rkt(base, binary, flavor=flavor)
        self.service: Running | None = None

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command of the host."""
        return subprocess.run(
            [*self.enter, *words], input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    def start(self, *flags: str) -> Running:
        """Start the service; returns when it listens."""
        self.service = self.rkt.popen("metadata-service", *flags)
        wait_for(lambda: "listening on" in self.service_log(), "metadata service")
        return self.service

    def stop(self) -> None:
        """Stop it as a service manager does."""
        assert self.service is not None
        self.service.send_signal(signal.SIGTERM)
        assert self.service.wait(20) == 0, self.service_log()

    def service_log(self) -> str:
        """What the service says."""
        assert self.service is not None
        assert self.service.poll() is None, self.service.stderr_text
        return self.service.stderr_text

    def http(self, request: str) -> str:
        """Whatever comes back for these bytes, on the address for pods of the host's network."""
        return self.run("busybox", "nc", "127.0.0.1", "18112", stdin=request).stdout

    def get(self, url: str) -> str:
        """Status and body of a path."""
        answer = self.http(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")
        return answer.split(" ", 2)[1] + " " + answer.partition("\n\n")[2]

    def close(self) -> None:
        """Take everything back."""
        try:
            if self.service is not None and self.service.poll() is None:
                self.stop()
            self.rkt.close()
        finally:
            self._holder.kill()
            self._holder.wait()
            rkt_library.remove_tree(self.directory)


@pytest.fixture(scope="module")
def host(flavor: str) -> Iterator[Host]:
    """A host with the service, which the tests of this file share."""
    each = Host(tempfile.mkdtemp(prefix="rkt-test-"), flavor)
    try:
        each.start()
        yield each
    finally:
        each.close()


def validator(images: Images, role: str) -> str:
    """One of the two images of the validator."""
    handlers = [
        {"name": "pre-start", "exec": ["/bin/sh", "/ace", "prestart"]},
        {"name": "post-stop", "exec": ["/bin/sh", "/ace", "poststop"]},
    ]
    app = {
        "workingDirectory": "/opt/acvalidator",
        "environment": [{"name": "IN_ACE_VALIDATOR", "value": "correct"}],
        "mountPoints": [{"name": "database", "path": "/db"}],
    }
    return images.busybox(
        f"coreos.com/ace-validator-{role}",
        ("/bin/sh", "/ace", role),
        files={"ace": VALIDATOR.encode(), "opt/acvalidator/x": b""},
        app={**app, "eventHandlers": handlers} if role == "main" else app,
        annotations=[{"name": "coreos.com/rkt/stage1/run", "value": "/ace"}],
    )


def test_the_validator_of_the_specification(host: Host, images: Images) -> None:
    """Rows runtime M1, M2, cli X15, X16: environment, mounts, handlers and metadata are as appc has them; no token is written down or shown on a command line, and the pod is forgotten when it is over."""
    done = host.rkt.run(
        "run", INSECURE, "--net=host", "--mds-register=true", "--volume=database,kind=empty",
        validator(images, "main"), validator(images, "sidekick"), "--name=ace-validator-sidekick", check=0,
    )  # fmt: skip
    said = by_app(done.stdout)
    assert said["ace-validator-main"].split("\n")[:-1] == ["prestart OK", "main OK", "poststop OK"]
    assert said["ace-validator-sidekick"] == "sidekick OK\n"
    log = host.service_log()
    (uuid,) = host.rkt.pods("run")
    assert f"GET /acMetadata/v1/pod/uuid - 200, pod {uuid}" in log
    assert "POST /acMetadata/v1/pod/hmac/verify - 403" in log
    assert not re.search("[0-9a-f]{32}", log.replace("-", "").replace(uuid.replace("-", ""), ""))
    assert f"DELETE /pods/{uuid} - 200" in log
    assert os.listdir(f"{host.rkt.data}/metadata/pods") == []
    host.rkt.run("rm", uuid, check=0)


def test_registrations_and_key_outlive_the_service(host: Host, images: Images) -> None:
    """After the service was killed and started again a pod is known by the same URL, and what it signed is still good; a killed pod is forgotten by gc, also while nobody serves; files are root's."""
    script = (
        'echo "$AC_METADATA_URL"; wget -q -O - --post-data content=x "$AC_METADATA_URL/acMetadata/v1/pod/hmac/sign";'
        " echo; while :; do sleep 0.1; done"
    )
    pod = host.rkt.popen(
        "run",
        INSECURE,
        "--net=host",
        "--mds-register",
        images.busybox(),
        "--exec=/bin/sh",
        "--",
        "-c",
        script,
    )

    def lines() -> list[str] | None:
        found = pod.stdout_text.splitlines()
        return found if len(found) == 2 else None

    url, signature = wait_for(lines, "URL and signature")
    token = url.rpartition("/")[2]
    assert re.fullmatch(r"http://127.0.0.1:18112/[0-9a-f]{64}", url)
    uuid = host.rkt.wait_for_pod()
    with open(f"/proc/{pod.pid}/cmdline", "rb") as stream:
        assert token.encode() not in stream.read()
    path = host.rkt.pod_path(uuid)
    for name in ("mds-registered", "metadata-url", f"../../../metadata/pods/{uuid}", "../../../metadata/key"):
        assert os.stat(f"{path}/{name}").st_mode & 0o077 == 0, name
    with open(f"{host.rkt.data}/metadata/pods/{uuid}", encoding="utf-8") as record:
        assert token not in record.read()
    assert host.rkt.run("enter", uuid, "/bin/sh", "-c", "echo $AC_METADATA_URL").stdout == f"{url}\n"
    assert host.service is not None
    host.service.kill()
    host.service.wait()
    host.start()
    assert host.get(f"/{token}/acMetadata/v1/pod/uuid") == f"200 {uuid}"
    form = f"uuid={uuid}&content=x&signature={signature}"
    for known, status in ((token, " 200 "), ("0" * 64, " 401 ")):
        request = f"POST /{known}/acMetadata/v1/pod/hmac/verify HTTP/1.1\r\nContent-Length: {len(form)}\r\n\r\n{form}"
        assert status in host.http(request).partition("\n")[0]
    host.stop()
    pod.kill()
    pod.wait()
    host.rkt.run("gc", "--grace-period=0", check=0)
    host.start()
    assert host.get(f"/{token}/acMetadata/v1/pod/uuid").startswith("401 ")


def test_only_root_registers_pods(host: Host) -> None:
    """NT6: the socket is a path of mode 0600 whose peers must be root by the kernel's word, also where its mode says otherwise; there is no abstract socket, and TCP is on the loopback address alone."""
    assert host.run("stat", "-c", "%a %u", SOCKET).stdout == "600 0\n"
    try:
        host.run("chmod", "666", SOCKET)
        stranger = host.run(sys.executable, "-c", ASK, "65534")
    finally:
        host.run("chmod", "600", SOCKET)
    assert stranger.stdout == "b''\n", stranger.stderr
    assert "user 65534 (process" in host.service_log()
    assert '{"port":18112}' in host.run(sys.executable, "-c", ASK, "0").stdout
    listening = host.run("cat", "/proc/net/unix").stdout
    assert "@" not in listening
    tcp = [
        line.split()[1] for line in host.run("cat", "/proc/net/tcp").stdout.splitlines()[1:] if " 0A " in line
    ]
    assert tcp == ["0100007F:46C0"]
    assert "0A " not in host.run("cat", "/proc/net/tcp6").stdout


def test_a_pod_is_not_made_without_the_service(host: Host, images: Images) -> None:
    """Three tries, then the words of the specification, before there is a pod, and one that is prepared stays prepared; without a network there is nothing to ask."""
    rkt = host.rkt
    before = rkt.pods()
    host.stop()
    done = rkt.run(
        "run", INSECURE, "--net=host", "--mds-register", images.busybox(), "--exec=/bin/true", check=254
    )
    assert (
        "failed to register the pod: failed to register pod with metadata svc: could not reach the metadata service"
        in done.stderr
    )
    done = rkt.run("run", INSECURE, "--net=none", "--mds-register", images.busybox(), check=254)
    assert "--mds-register flag does not work with --net=none" in done.stderr
    assert rkt.pods() == before
    host.start()


def test_who_answers_pods_has_no_rights(host: Host) -> None:
    """The process that reads what pods send has a user of its own, no capabilities, no files, a filter and an empty network."""
    assert host.service is not None
    with open(f"/proc/{host.service.pid}/task/{host.service.pid}/children", encoding="ascii") as stream:
        waiting = stream.read().strip()
    with open(f"/proc/{waiting}/task/{waiting}/children", encoding="ascii") as stream:
        worker = stream.read().strip()
    with open(f"/proc/{worker}/status", encoding="ascii") as stream:
        status = dict(line.rstrip("\n").split(":\t") for line in stream if ":\t" in line)
    assert status["Name"] == "rkt-metadata"
    assert "0" not in status["Uid"].split("\t")
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0" * 16
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.listdir(f"/proc/{worker}/root") == []
    done = host.rkt.run("metadata-service", "--listen-port=18114", check=254)
    assert f"a metadata service listens on {SOCKET} already" in done.stderr
    assert os.readlink(f"/proc/{worker}/ns/net") != os.readlink(f"/proc/{host.service.pid}/ns/net")


def test_a_service_manager_may_listen(host: Host) -> None:
    """Sockets that are passed take the place of the service's own, and stay when it ends."""
    host.stop()
    words = [rkt_library.BINARY, *host.rkt.command("metadata-service")[1:]]
    with subprocess.Popen(
        [*host.enter, sys.executable, "-c", ACTIVATE, *words],
        env=host.rkt.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stderr is not None
        assert "listening on 127.0.0.1 port 18113; pods register at" in service.stderr.readline()
        assert '{"port":18113}' in host.run(sys.executable, "-c", ASK, "0").stdout
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    assert host.run("test", "-S", SOCKET).returncode == 0
    host.start()


def test_a_restarted_and_a_changed_pod_are_known(host: Host, images: Images) -> None:
    """An app that joins a registered sandbox can ask; a pod that is started again has another URL."""
    rkt = host.rkt
    rkt.run("fetch", INSECURE, images.busybox(), check=0)
    sandbox = rkt.popen("app", "sandbox", "--net=host", "--mds-register", f"--uuid-file-save={rkt.base}/uuid")
    uuid = rkt.wait_for_pod()
    ask = 'wget -q -O - "$AC_METADATA_URL/acMetadata/v1/apps/late/image/id"'
    rkt.run(
        "app",
        "add",
        INSECURE,
        uuid,
        "example.com/busybox",
        "--name=late",
        "--exec=/bin/sh",
        "--",
        "-c",
        ask,
        check=0,
    )
    rkt.run("app", "start", uuid, "--app=late", check=0)
    wait_for(lambda: "sha512-" in sandbox.stdout_text, "answer")
    rkt.run("stop", uuid, check=0)
    sandbox.wait(20)
    urls = []
    say = ("--exec=/bin/sh", "--", "-c", "echo $AC_METADATA_URL")
    done = rkt.run("run", INSECURE, "--net=host", "--mds-register", "example.com/busybox", *say, check=0)
    urls.append(done.stdout)
    (again,) = set(rkt.pods("run")) - {uuid}
    urls.append(rkt.run("start", again).stdout)
    assert urls[0].startswith("http://127.0.0.1:18112/")
    assert len(set(urls)) == 2
