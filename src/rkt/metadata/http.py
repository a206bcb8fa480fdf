# SPDX-License-Identifier: Apache-2.0
"""As much of HTTP/1.1 as the metadata service speaks: one request for each connection, whole, with limits.

Bytes in, values out; no sockets. What is not understood is refused, never guessed at: folded headers, chunked bodies, two
lengths, HTTP/0.9.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from rkt.schema.record import Record
from rkt.values import is_number

#: Largest request line with its headers, in bytes.
MAX_HEAD_BYTES = 16 << 10
JSON = "application/json"
TEXT = "text/plain; charset=us-ascii"
_TEXT_UTF8 = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}
_METHODS = (b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT")
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Refused(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Head(Record):
    """Everything of a request but its body.

    Attributes:
        method: as sent.
        path: decoded, without the query, beginning with a slash.
        query: as sent.
        headers: by lower-case name.
        length: of the body, in bytes.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"


class Answer(Record):
    """What is sent back."""

    status: int
    body: bytes = b""
    kind: str = TEXT


def text_answer(text: str, status: int = 200) -> Answer:
    """A text, of which the type says how it is written."""
    return Answer(status=status, body=text.encode(), kind=TEXT if text.isascii() else _TEXT_UTF8)


def end_of_head(data: bytes | bytearray) -> int:
    """Where the body begins; 0 if that has not come yet.

    Raises:
        Refused: the head is too large.
    """
    end = data.find(b"\r\n\r\n")
    if end > MAX_HEAD_BYTES or (end < 0 and len(data) > MAX_HEAD_BYTES):
        raise Refused(431, f"a request line with its headers may have {MAX_HEAD_BYTES} bytes")
    return end + 4 if end >= 0 else 0


def parse_head(data: bytes, *, max_body_bytes: int) -> Head:
    """Parse a request line and its headers.

    Args:
        data: up to where the body begins.
        max_body_bytes: the largest body that is accepted.
    Raises:
        Refused: it is malformed, or asks for what is not there.
    """
    lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[0] or not _TOKEN.issuperset(words[0]):
        raise Refused(400, "malformed request line")
    method, target, version = words
    if method not in _METHODS:
        # Nor is one written down that might be anything.
        raise Refused(501, "unknown method")
    if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise Refused(505 if version.startswith(b"HTTP/") else 400, "HTTP/1.1 is spoken here")
    if not target.startswith(b"/") or not all(0x21 <= byte < 0x7F for byte in target):
        raise Refused(400, "malformed path")
    path, _, query = target.partition(b"?")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise Refused(400, "malformed header")
        key = name.decode("ascii").lower()
        text = value.decode("latin-1").strip(" \t")
        if any(c in text for c in "\0\r\n"):
            raise Refused(400, "malformed header")
        if key in headers and key in {"content-length", "host", "transfer-encoding"}:
            raise Refused(400, f"two headers {key}")
        headers[key] = text
    if "transfer-encoding" in headers:
        raise Refused(501, "a body needs its length")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "malformed path") from None
    return Head(
        method=method.decode("ascii"),
        path=decoded,
        query=query.decode("ascii"),
        headers=headers,
        length=_length(headers.get("content-length", "0"), max_body_bytes),
    )


def _length(text: str, max_body_bytes: int) -> int:
    if not is_number(text):
        raise Refused(400, "malformed content-length")
    if len(text) > 12 or int(text) > max_body_bytes:
        raise Refused(413, f"a body may have {max_body_bytes} bytes")
    return int(text)


def render(answer: Answer) -> bytes:
    """The bytes of an answer; the connection ends with it."""
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}\r\n"
        f"Content-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Metadata-Flavor: AppContainer\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + answer.body
