# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket

import pytest

from rkt.linux import listening


def look(handle: socket.socket) -> str:
    """What is said of a socket, without its number."""
    return str(listening._look(handle.fileno(), "x")).partition("(x)")[2]


def test_sockets_are_known_for_what_they_are() -> None:
    """Listening TCP sockets and bound UDP sockets have address and port; whatever else there is has its word."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        assert look(tcp) == f" tcp 127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert look(connection) == ", a connection (of a unit with Accept=yes)"
        assert tcp.getsockname()[1] == port, "it is still open"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert look(udp) == f" udp 127.0.0.1:{udp.getsockname()[1]}"
    with socket.socket(socket.AF_UNIX) as unix:
        assert look(unix) == ", a Unix socket"
    with open(os.devnull, "rb") as file:
        assert str(listening._look(file.fileno(), "x")).endswith(", no socket")


def test_sockets_of_another_process_do_not_count() -> None:
    """Variables that a parent left behind are not believed."""
    assert listening.passed({}, 7) == []
    assert listening.passed({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, 7) == []
    assert listening.passed({"LISTEN_FDS": "1"}, 7) == []
    assert listening.passed({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, 7) == []


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"LISTEN_FDS": "x"}, "not a number"),
        ({"LISTEN_FDS": "-1"}, "not a number"),
        ({"LISTEN_FDS": "513"}, "up to 512"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "1 names for 2 sockets"),
        ({"LISTEN_FDS": "512"}, "is not there"),
    ],
)
def test_malformed_variables_are_refused(variables: dict[str, str], reason: str) -> None:
    """What cannot be true is an error, not no sockets."""
    with pytest.raises(ValueError, match=reason):
        listening.passed({"LISTEN_PID": "7", **variables}, 7)
