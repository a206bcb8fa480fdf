# SPDX-License-Identifier: Apache-2.0
"""Host name, resolver, hosts file and IPC namespace of a pod (spec runtime §3.8, §6.6, spec cli §1.7, §10.8 R18-R21, R23)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lib import flavors
from tests.lib.aci import Entry
from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, by_app, inspect_image, shell_app, stored

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
LOOK = """\
for f in /etc/resolv.conf /etc/hosts /etc/hostname; do
    echo "== $f"
    [ -e $f ] && { stat -c %A $f; cat $f; }
done
echo == uname; uname -n; echo == ipc; readlink /proc/self/ns/ipc
"""
HEAD = "# This is the default rkt /etc/hosts"
LOCALHOST = ["127.0.0.1", "localhost", "localhost.domain", "localhost4", "localhost4.localdomain4"]
OWN_IPC = os.readlink("/proc/self/ns/ipc")


class Seen:
    """What an app finds: lines of each file without its mode, modes by file, host name, IPC namespace."""

    def __init__(self, text: str, uuid: str) -> None:
        parts = {part.split("\n", 1)[0]: part.split("\n")[1:-1] for part in text.split("== ")[1:]}
        self.uuid = uuid
        self.files = {path: parts[path][1:] if parts[path] else None for path in FILES}
        self.modes = {path: parts[path][0] for path in FILES if parts[path]}
        (self.uname,) = parts["uname"]
        (self.ipc,) = parts["ipc"]

    @property
    def resolver(self) -> list[str] | None:
        """Lines of the resolver file that say something; ``None`` for no file."""
        lines = self.files["/etc/resolv.conf"]
        return None if lines is None else [line for line in lines if line and not line.startswith("#")]

    @property
    def hosts(self) -> list[list[str]]:
        """Words of the lines of the hosts file that say something."""
        return [line.split() for line in self.files["/etc/hosts"] or () if line and not line.startswith("#")]


def look(rkt: Rkt, image: str, *flags: str, way: str = "run") -> Seen:
    """Run a pod that looks; flags that only ``prepare`` knows go there."""
    early = [flag for flag in flags if flag.startswith(("--volume", "--mount"))]
    words = (*early, image, "--exec=/bin/sh", "--", "-c", LOOK)
    late = [flag for flag in flags if flag not in early]
    before = set(rkt.pods())
    if way == "run":
        text = rkt.run("run", INSECURE, *late, *words, check=0).stdout
        (uuid,) = set(rkt.pods()) - before
    else:
        uuid = rkt.run("prepare", INSECURE, *words, check=0).stdout.strip()
        text = rkt.run("run-prepared", *late, uuid, check=0).stdout
    return Seen(text, uuid)


@pytest.fixture
def image(module_rkt: Rkt, images: Images) -> str:
    """An image without hosts or resolver file."""
    return stored(module_rkt, inspect_image(images))


WAYS = pytest.mark.parametrize("way", ["run", "prepare"])


@WAYS
@pods("namespaces")
def test_what_a_pod_has_that_asks_for_nothing(module_rkt: Rkt, image: str, way: str) -> None:
    """No resolver file, the default hosts file, the name rkt-UUID in all places, an IPC namespace of its own (runtime D1, D8, D11, D12, R28, cli R18-R20, R23)."""
    seen = look(module_rkt, image, way=way)
    name = f"rkt-{seen.uuid}"
    assert seen.resolver is None
    assert (seen.files["/etc/hosts"] or [""])[0] == HEAD
    assert seen.hosts == [
        [*LOCALHOST, name],
        ["::1", "ip6-localhost", "ip6-loopback", "localhost6", "localhost6.localdomain6"],
        ["fe00::0", "ip6-localnet"],
        ["ff00::0", "ip6-mcastprefix"],
        ["ff02::1", "ip6-allnodes"],
        ["ff02::2", "ip6-allrouters"],
        ["ff02::3", "ip6-allhosts"],
    ]
    assert seen.uname == name
    assert seen.files["/etc/hostname"] == [name]
    assert seen.modes == {"/etc/hosts": "-rw-r--r--", "/etc/hostname": "-rw-r--r--"}
    assert seen.ipc != OWN_IPC


#: Row -> flags, lines of the resolver file.
RESOLVERS = {
    "D2": (("--dns=8.8.4.4",), ["nameserver 8.8.4.4"]),
    "D2-two": (("--dns=8.8.8.8", "--dns=8.8.4.4"), ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]),
    "D2-one-word": (("--dns=8.8.8.8,2001:db8::1",), ["nameserver 8.8.8.8", "nameserver 2001:db8::1"]),
    "D3": (("--dns-search=foo.com", "--dns-search=bar.com"), ["search foo.com bar.com"]),
    "D4": (
        ("--dns-opt=debug", "--dns-opt=use-vc", "--dns-opt=rotate"),
        ["options debug use-vc rotate"],
    ),
    "D5": (
        ("--dns=8.8.4.4", "--dns-search=a.b", "--dns-opt=ndots:2", "--dns-domain=example.net"),
        ["search a.b", "nameserver 8.8.4.4", "options ndots:2", "domain example.net"],
    ),
}


@pytest.mark.parametrize("row", RESOLVERS)
def test_a_resolver_file_has_what_was_asked_for(module_rkt: Rkt, image: str, row: str) -> None:
    """Servers, domains to search, options, domain, in rkt's order and readable by all (runtime D2-D5, cli R19)."""
    flags, lines = RESOLVERS[row]
    seen = look(module_rkt, image, *flags, way="prepare" if row == "D5" else "run")
    assert seen.resolver == lines
    assert seen.modes["/etc/resolv.conf"] == "-rw-r--r--"
    assert (seen.files["/etc/resolv.conf"] or [""])[0] == "# Generated by rkt run"


@pytest.mark.skipif(not os.path.exists("/etc/resolv.conf"), reason="the host has no /etc/resolv.conf")
@pytest.mark.parametrize("entries", [1, 2])
def test_the_hosts_own_files(module_rkt: Rkt, image: str, entries: int) -> None:
    """--dns=host and --hosts-entry=host, once or twice, show the host's files as they are, and --ipc=parent its IPC namespace (runtime D6, D9, D13)."""
    seen = look(
        module_rkt,
        image,
        "--dns=host",
        *["--hosts-entry=host"] * entries,
        "--ipc=parent",
        way=("run", "prepare")[entries - 1],
    )
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        with open(path, encoding="utf-8") as stream:
            assert "\n".join([*(seen.files[path] or []), ""]) == stream.read()
    assert seen.ipc == OWN_IPC


@WAYS
@pods("namespaces")
def test_entries_of_the_hosts_file(module_rkt: Rkt, images: Images, way: str) -> None:
    """They follow the default lines, names of one address together, even where the image has a file; the name is the pod's (runtime D10, D11, R28, cli R18, R20)."""
    own = stored(
        module_rkt, inspect_image(images, "own-hosts", files={"etc/hosts": b"192.0.2.1 of-the-image\n"})
    )
    flags = ("--hosts-entry=128.66.0.99=host1,2001:db8::9=six", "--hosts-entry=128.66.0.99=host2")
    seen = look(module_rkt, own, *flags, "--hostname=test-hostname", "--ipc=private", way=way)
    assert seen.hosts[0] == [*LOCALHOST, "test-hostname"]
    assert seen.hosts[-2:] == [["128.66.0.99", "host1", "host2"], ["2001:db8::9", "six"]]
    assert "of-the-image" not in str(seen.hosts)
    assert "# Added by rkt run --hosts-entry" in (seen.files["/etc/hosts"] or [])
    assert seen.uname == "test-hostname"
    assert seen.files["/etc/hostname"] == ["test-hostname"]
    assert seen.ipc != OWN_IPC
    plain = look(module_rkt, own, "--ipc=auto", way=way)
    assert plain.hosts == [["192.0.2.1", "of-the-image"]]
    assert plain.ipc != OWN_IPC


def test_files_of_the_image_and_of_volumes_come_first(module_rkt: Rkt, images: Images) -> None:
    """A volume on /etc/hosts wins over everything, --dns=none leaves the image's resolver file alone (runtime D7, cli R20)."""
    path = f"{module_rkt.base}/my-hosts"
    with open(path, "w", encoding="ascii") as stream:
        stream.write("192.0.2.2 mine\n")
    own = stored(
        module_rkt,
        inspect_image(images, "own-resolver", files={"etc/resolv.conf": b"nameserver 192.0.2.3\n"}),
    )
    volume = (f"--volume=hosts,kind=host,source={path}", "--mount=volume=hosts,target=/etc/hosts")
    for flags in ((), ("--hosts-entry=192.0.2.9=other", "--dns=none")):
        seen = look(module_rkt, own, *volume, *flags)
        assert seen.hosts == [["192.0.2.2", "mine"]]
        assert seen.resolver == ["nameserver 192.0.2.3"]
    assert look(module_rkt, own, "--dns=192.0.2.4").resolver == ["nameserver 192.0.2.4"]
    with open(path, encoding="ascii") as stream:
        assert stream.read() == "192.0.2.2 mine\n"


@pods("event handlers", "restart policies")
def test_an_app_has_them_each_time(module_rkt: Rkt, images: Images) -> None:
    """A handler before the app, a restart and a later start of the pod see the same hosts file as the first process."""
    count = ["/bin/sh", "-c", "wc -l </etc/hosts"]
    app = {"eventHandlers": [{"name": "pre-start", "exec": count}]}
    image = stored(module_rkt, inspect_image(images, "each-time", app=app))
    again = f"{' '.join(count[2:])}; [ -e /again ] || {{ touch /again; exit 1; }}"
    words = ("--restart=on-failure:1", "--exec=/bin/sh", "--", "-c", again)
    before = set(module_rkt.pods())
    assert module_rkt.run("run", INSECURE, image, *words, check=0).lines == ["8"] * 4
    (uuid,) = set(module_rkt.pods()) - before
    assert module_rkt.run("start", uuid, check=0).lines == ["8"] * 2


@pods("several apps")
def test_an_app_cannot_change_these_files_for_others(module_rkt: Rkt, image: str) -> None:
    """They are read-only binds: what one app writes is refused, and nothing of it is in the image or the other app."""
    tamper = "for f in /etc/hosts /etc/hostname /etc/resolv.conf; do echo evil 2>/dev/null >> $f && echo wrote $f; done; true"
    words = [
        *shell_app(image, "one", tamper),
        *shell_app(image, "two", "sleep 0.2; cat /etc/hosts /etc/hostname /etc/resolv.conf"),
    ]
    said = by_app(module_rkt.run("run", INSECURE, "--dns=192.0.2.4", *words, check=0).stdout)
    assert "one" not in said
    assert "evil" not in said["two"]
    assert "nameserver 192.0.2.4\n" in said["two"]


def test_an_image_cannot_lead_these_files_away(module_rkt: Rkt, images: Images) -> None:
    """Where the image has a link, a pipe or a directory in their place the pod runs, and what the link leads to is as it was (RN6)."""
    victim = f"{module_rkt.base}/victim"
    with open(victim, "w", encoding="ascii") as stream:
        stream.write("untouched")
    entries = [
        Entry("rootfs/etc/hostname", b"2", link=victim, mode=0o777),
        Entry("rootfs/etc/hosts", b"6"),
        Entry("rootfs/etc/resolv.conf", b"2", link=f"../../../../../..{victim}", mode=0o777),
    ]
    trap = stored(module_rkt, inspect_image(images, f"trap-{module_rkt.flavor}", entries=entries))
    seen = look(module_rkt, trap, "--dns=192.0.2.4", "--hosts-entry=192.0.2.9=other")
    assert seen.resolver == ["nameserver 192.0.2.4"]
    assert seen.hosts[-1] == ["192.0.2.9", "other"]
    if flavors.has_promised(module_rkt.flavor, "namespaces"):
        assert seen.files["/etc/hostname"] == [f"rkt-{seen.uuid}"]
    with open(victim, encoding="ascii") as stream:
        assert stream.read() == "untouched"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ipc=nonsense"], 'invalid value "nonsense" for --ipc'),
        pytest.param(["--net=notavalidnetwork"], "stage1: failed to setup network", marks=pods("networks")),
        (["--net=host,none"], "none"),
        (["--net="], "netname must not be empty"),
        (["--net=host,"], "netname must not be empty"),
        (["--net=a", "--net=a"], 'found duplicate netname "a"'),
        (["--net=host:IP=1"], 'arguments are not supported by special netname "host"'),
        (["--net=all:IP=1"], 'arguments are not supported by special netname "all"'),
        (["--net=a:b:c"], 'network "a" provided with invalid arguments'),
        (["--dns=1.2.3"], "Invalid IP passed to --dns: 1.2.3"),
        (["--dns=host,8.8.8.8"], "no other --dns options allowed when --dns=host is passed"),
        (["--dns=8.8.8.8", "--dns=none"], "no other --dns options allowed when --dns=none is passed"),
        (
            ["--dns=none", "--dns-domain=x"],
            "Cannot call --dns-opt, --dns-search, or --dns-domain with --dns=none",
        ),
        (["--dns-search=two words"], 'invalid value "two words" for --dns-search'),
        (["--dns-domain=a\nb"], "for --dns-domain"),
        (["--hosts-entry=1.2.3.4"], "Did not understand --hosts-entry 1.2.3.4"),
        (["--hosts-entry=1.2.3=x"], "Invalid IP passed to --hosts-entry: 1.2.3"),
        (["--hosts-entry=1.2.3.4=a b"], "Did not understand --hosts-entry"),
        (["--hosts-entry=1.2.3.4=x,host"], "cannot pass --hosts-entry=host with multiple hosts-entries"),
        ([f"--hostname={'x' * 65}"], "invalid host name"),
        (["--hostname=a/b"], "invalid host name"),
        (["--hostname=a..b"], "invalid host name"),
        (["--hostname=a.."], "invalid host name"),
        (["--hostname=-a"], "invalid host name"),
        (["--hostname=é"], "invalid host name"),
        (["--mds-register"], "--mds-register flag does not work with --net=none"),
    ],
)
def test_names_that_make_no_sense_are_noticed_at_once(
    module_rkt: Rkt, image: str, flags: list[str], message: str
) -> None:
    """Without --debug, by run and by run-prepared, before a pod exists and without touching a prepared one (runtime D14, R30, cli R21, R23)."""
    uuid = next((uuid for uuid, state in module_rkt.pods().items() if state == "prepared"), "")
    uuid = uuid or module_rkt.run("prepare", INSECURE, image, check=0).stdout.strip()
    before = module_rkt.pods()
    for words in (("run", INSECURE, *flags, image), ("run-prepared", *flags, uuid)):
        assert message in module_rkt.run(*words, check=254).stderr
    assert module_rkt.pods() == before
