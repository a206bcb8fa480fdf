# SPDX-License-Identifier: Apache-2.0
"""Which network configurations count, and what is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.errors import NetworkError
from rkt.net import config

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, name: str, members: Any) -> str:
    """A configuration file, as text or as an object."""
    directory.mkdir(exist_ok=True, mode=0o755)
    path = directory / name
    path.write_text(members if isinstance(members, str) else json.dumps(members))
    path.chmod(0o644)
    return os.fspath(path)


def conf(name: str, kind: str = "bridge", **more: Any) -> dict[str, Any]:
    """A single configuration."""
    return {"cniVersion": "0.4.0", "name": name, "type": kind, **more}


def test_the_first_directory_wins_and_the_first_file_in_it(tmp_path: Path) -> None:
    """A network that several files define is that of the first directory, and there of the first file; the others are named."""
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "20-b.conf", conf("b", mtu=1))
    write(one, "10-a.conf", conf("b", mtu=2))
    write(two, "05-b.conf", conf("b", mtu=3))
    write(two, "99-c.json", conf("c"))
    write(two, "README", "not a network")
    found = config.load([os.fspath(one), os.fspath(tmp_path / "absent"), os.fspath(two)])
    assert found.networks["b"].plugins[0]["mtu"] == 2
    assert set(found.networks) == {"b", "c"}
    assert found.notices == [
        f'"b" network already defined, ignoring {one}/20-b.conf',
        f'overriding "b" network with one from {one}/10-a.conf',
    ]


def test_networks_are_set_up_in_the_order_of_their_files(tmp_path: Path) -> None:
    """The base names of the files decide over all directories, not the order of the flags; ``all`` is every network."""
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "50-x.conf", conf("x"))
    write(two, "10-y.conf", conf("y"))
    write(two, "99-z.conf", conf("z"))
    found = config.load([os.fspath(one), os.fspath(two)])
    chosen = config.select(found, config.parse_requests(["x:A=1", "y"]))
    assert [(network.name, args) for network, args in chosen] == [("y", ""), ("x", "A=1")]
    everything = config.select(found, config.parse_requests(["all", "z:B=2"]))
    assert [(network.name, args) for network, args in everything] == [("y", ""), ("x", ""), ("z", "B=2")]
    with pytest.raises(NetworkError, match=r"^networks not found: p, q$"):
        config.select(found, config.parse_requests(["p", "x", "q"]))
    with pytest.raises(NetworkError, match='found duplicate netname "x"'):
        config.select(found, config.parse_requests(["x", "x"]))


def test_a_list_of_plugins_is_a_network(tmp_path: Path) -> None:
    """A ``.conflist`` of CNI 1.1 has its plugins in order, the newest version that both sides know, and its switches."""
    path = write(
        tmp_path,
        "10-chain.conflist",
        {
            "cniVersion": "0.4.0",
            "cniVersions": ["0.3.1", "1.0.0", "9.9.9"],
            "name": "chain",
            "disableCheck": True,
            "plugins": [
                {"type": "ptp", "ipMasq": True, "ipam": {"type": "host-local"}},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
    )
    network = config.load_network(path)
    assert [plugin["type"] for plugin in network.plugins] == ["ptp", "portmap"]
    assert (network.is_list, network.check, network.version) == (True, False, "1.0.0")
    assert network.masquerades
    assert network.has_capability("portMappings")
    assert not network.has_capability("bandwidth")


@pytest.mark.parametrize("version", config.VERSIONS)
def test_every_released_version_is_spoken(version: str) -> None:
    """CNI 0.1.0 to 1.1.0; a file that names none is of the oldest."""
    assert config.parse(json.dumps(conf("n", cniVersion=version)).encode(), "n.conf").version == version
    assert config.parse(json.dumps({"name": "n", "type": "t"}).encode(), "n.conf").version == "0.1.0"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (conf("n", "../../bin/x"), "is not the name of a plugin"),
        (conf("n", "Bridge"), "is not the name of a plugin"),
        (conf("n", ".."), "is not the name of a plugin"),
        (conf("n", ""), "is not the name of a plugin"),
        (conf("n", ipam={"type": "../dhcp"}), "is not the name of a plugin"),
        (conf("n", ipam=[]), "ipam is not a JSON object"),
        (conf("n", capabilities=[]), "capabilities is not a JSON object"),
        (conf("../n"), "is not that of a network"),
        (conf("-n"), "is not that of a network"),
        (conf("n" * 256), "is not that of a network"),
        (conf("host"), 'no network can be called "host"'),
        (conf("n", cniVersion="3.0.0"), 'cniVersion "3.0.0" is not supported'),
        ({"name": "n", "plugins": []}, "is a list of plugins"),
        ({"name": "n", "type": "t", "plugins": []}, "is a list of plugins"),
        ({"type": "t"}, "is not that of a network"),
        ([], "is not a JSON object"),
        ("{", "is not JSON"),
        ('{"name": "n", "name": "m", "type": "t"}', 'member "name" appears twice'),
    ],
)
def test_what_is_no_configuration_is_refused(members: Any, words: str) -> None:
    """A plugin's name is one component of a path (security NT5), and everything else what it has to be."""
    raw = members if isinstance(members, str) else json.dumps(members)
    with pytest.raises(NetworkError, match=words):
        config.parse(raw.encode(), "/etc/rkt/net.d/n.conf")


@pytest.mark.parametrize("plugins", [[], {}, ["x"], [{"type": "/bin/sh"}]])
def test_a_list_needs_plugins(plugins: Any) -> None:
    """A list of plugins has at least one, and each is checked like a single one."""
    with pytest.raises(NetworkError):
        config.parse(json.dumps({"name": "n", "plugins": plugins}).encode(), "n.conflist")


def test_what_others_may_write_is_refused(tmp_path: Path) -> None:
    """Files and directories that others than root may change are not believed (security NT5), nor is what is no file."""
    path = write(tmp_path / "a", "n.conf", conf("n"))
    os.chmod(path, 0o664)
    with pytest.raises(NetworkError, match="may be written by others than root"):
        config.load([os.fspath(tmp_path / "a")])
    os.chmod(path, 0o644)
    os.chmod(tmp_path / "a", 0o777)
    with pytest.raises(NetworkError, match="may be written by others than root"):
        config.load([os.fspath(tmp_path / "a")])
    os.chmod(tmp_path / "a", 0o755)
    os.mkfifo(tmp_path / "a" / "pipe.conf")
    with pytest.raises(NetworkError, match="is not a regular file"):
        config.load([os.fspath(tmp_path / "a")])
