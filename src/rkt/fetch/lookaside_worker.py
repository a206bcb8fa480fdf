# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: signed OpenPGP messages of a server, of open files, or of an archive, taken apart.

::

    lookaside        URL/signature-1, -2 and so on, until there is none
    signed-messages  files that the command has opened

Each message becomes an event ``{"kind": "message", "source", "payload", "signature", "problem"}``, the two in the middle in
base64, and empty where there is a problem.
"""

from __future__ import annotations

import os
from base64 import b64encode

from rkt.errors import FetchError
from rkt.fetch.worker import make_client
from rkt.privsep import confine
from rkt.trust.message import MAX_MESSAGE_BYTES, open_message
from rkt.trust.packets import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.privsep.worker import Emit, Work

#: So many signatures of one digest are read; what is beyond them vouches for nothing.
MAX_SIGNATURES = 16
MORE = f"only the first {MAX_SIGNATURES} signatures are read"
_OK, _NOT_FOUND, _GONE = 200, 404, 410
#: Nothing is written to files.
_FILE_SIZE_BYTES = 1 << 20


def prepare(request: dict[str, Any]) -> Work:
    """Take one of the requests above."""
    return Lookaside(request) if request["op"] == "lookaside" else Messages(request)


def describe(data: bytes, source: str) -> dict[str, Any]:
    """The event for a message."""
    try:
        message = open_message(data)
    except Malformed as e:
        return describe_problem(f"it is no signed OpenPGP message: {e}", source)
    return {
        "kind": "message",
        "source": source,
        "payload": b64encode(message.payload).decode(),
        "signature": b64encode(message.signature).decode(),
        "problem": "",
    }


def describe_problem(problem: str, source: str) -> dict[str, Any]:
    """The event for a message that cannot be had or read."""
    return {"kind": "message", "source": source, "payload": "", "signature": "", "problem": problem}


class Lookaside:
    """``urls``: what ``/signature-N`` is put behind; ``user_agent``, ``tls_insecure``, ``access``, ``uid``."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._urls: list[str] = request["urls"]
        self._client = make_client(request)

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the network, and the host's files for reading."""
        confine.begin(b"rkt-fetch", network=True)
        confine.confine_fetch(network=True, file_size_bytes=_FILE_SIZE_BYTES, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Ask."""
        for base in self._urls:
            for number in range(1, MAX_SIGNATURES + 1):
                url = f"{base}/signature-{number}"
                try:
                    answer = self._client.exchange(url, limit_bytes=MAX_MESSAGE_BYTES)
                except FetchError as e:
                    emit(describe_problem(e.message, url))
                    break
                if answer.status in {_NOT_FOUND, _GONE}:
                    break
                if answer.status != _OK:
                    emit(describe_problem(f"the server answers with status {answer.status}", url))
                    break
                emit(describe(answer.body, url))
            else:
                emit(describe_problem(MORE, f"{base}/signature-{MAX_SIGNATURES + 1}"))
        self._client.close()
        return {}


class Messages:
    """``sources``: what the descriptors ``message0``, ``message1``… are called; ``uid``."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._sources: list[str] = request["sources"]

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        confine.confine_fetch(network=False, file_size_bytes=_FILE_SIZE_BYTES, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Read."""
        for number, source in enumerate(self._sources):
            emit(describe(os.pread(fds[f"message{number}"], MAX_MESSAGE_BYTES + 1, 0), source))
        return {}
