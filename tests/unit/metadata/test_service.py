# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from rkt.metadata import service as service_module
from rkt.metadata import worker
from rkt.metadata.http import Refused, parse_head
from rkt.metadata.service import Service
from tests.unit.metadata.test_registry import IMAGE, POD, UUID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "ab" * 32
OTHER = UUID.replace("6", "7")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One whose other half is a thread of the test, and that listens where nobody else does."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.Server(theirs, lambda _: None).run)
    thread.start()
    monkeypatch.setattr(service_module, "SOCKET_PATH", os.fspath(tmp_path / "run" / "socket"))
    monkeypatch.setattr(service_module, "_start_worker", lambda: (ours, os.getpid()))
    made = Service(os.fspath(tmp_path), 0, [], [], lambda _: None)
    try:
        yield made
    finally:
        made.close()
        made._server.close()
        os.close(made._worker_fd)
        for listener in made._open.values():
            listener.close()
        ours.close()
        thread.join(10)
        theirs.close()


def ask(service: Service, method: str, target: str, body: str = "") -> int:
    """Status of a request of root's."""
    head = parse_head(f"{method} {target} HTTP/1.1\r\n\r\n".encode(), max_body_bytes=0)
    try:
        return service._answer(head, body.encode()).status
    except Refused as e:
        return e.status


def test_a_pod_is_registered_with_its_apps(service: Service) -> None:
    """Pod first, then its apps; apps that it has not, pods that are not there and tokens of others are refused (spec runtime §5.6)."""
    assert ask(service, "PUT", f"/pods/{UUID}/web", IMAGE) == 404
    assert ask(service, "PUT", f"/pods/{UUID}", POD) == 400
    assert ask(service, "PUT", f"/pods/{UUID}?token=short", POD) == 400
    assert ask(service, "PUT", f"/pods/{UUID}?token={TOKEN}", POD) == 200
    assert ask(service, "PUT", f"/pods/{UUID}/web", IMAGE) == 200
    assert ask(service, "PUT", f"/pods/{UUID}/none", IMAGE) == 404
    assert ask(service, "PUT", f"/pods/{OTHER}?token={TOKEN}", POD) == 409
    assert ask(service, "POST", f"/pods/{UUID}") == 405
    assert ask(service, "GET", "/nothing") == 404
    assert ask(service, "DELETE", f"/pods/{UUID}") == 200
    assert ask(service, "DELETE", f"/pods/{UUID}") == 404


def test_the_apps_of_a_pod_may_change(service: Service) -> None:
    """The same token again keeps what is known of apps that stay; another token is another run of the pod."""
    ask(service, "PUT", f"/pods/{UUID}?token={TOKEN}", POD)
    ask(service, "PUT", f"/pods/{UUID}/web", IMAGE)
    ask(service, "PUT", f"/pods/{UUID}/late", IMAGE)
    fewer = json.loads(POD)
    del fewer["apps"][1]
    ask(service, "PUT", f"/pods/{UUID}?token={TOKEN}", json.dumps(fewer))
    assert list(service._registry.known[UUID].apps) == ["web"]
    ask(service, "PUT", f"/pods/{UUID}?token={'cd' * 32}", POD)
    assert service._registry.known[UUID].apps == {}


def test_it_listens_where_pods_need_it(service: Service) -> None:
    """From when the first pod asks for an address until the last has gone; never on all, nor where the host has no address."""
    for uuid, token in ((UUID, TOKEN), (OTHER, "cd" * 32)):
        ask(service, "PUT", f"/pods/{uuid}?token={token}", POD)
        assert ask(service, "PUT", f"/listen/{uuid}/127.0.0.2") == 200
    for address in ("0.0.0.0", "::", "localhost", "1.2.3"):
        assert ask(service, "PUT", f"/listen/{UUID}/{address}") == 400
    assert ask(service, "PUT", f"/listen/{UUID}/192.0.2.77") == 409
    assert set(service._open) == {"127.0.0.1", "127.0.0.2"}
    ask(service, "DELETE", f"/pods/{UUID}")
    assert set(service._open) == {"127.0.0.1", "127.0.0.2"}
    ask(service, "DELETE", f"/pods/{OTHER}")
    assert set(service._open) == {"127.0.0.1"}
