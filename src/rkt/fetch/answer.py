# SPDX-License-Identifier: Apache-2.0
"""What a server answered: the result of a transfer, and what the headers of an answer say."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from rkt.schema.record import Record
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

    from rkt.fetch.resume import ResumableFile

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


class Downloaded(Record):
    """What came.

    Attributes:
        size_bytes: size of the whole file.
        deferred: the server answered 202: ask again later; nothing was written.
        not_modified: the server still has the version that was asked about; nothing was written.
        etag, cache_control, last_modified: headers of the final answer, empty when absent.
        url: what was answered at last, after all redirects.
        kept_bytes: how many bytes were there before and did not have to come again.
    """

    size_bytes: int
    deferred: bool = False
    not_modified: bool = False
    etag: str = ""
    cache_control: str = ""
    last_modified: str = ""
    url: str = ""
    kept_bytes: int = 0

    @property
    def max_age(self) -> int:
        """Seconds for which the server wants not to be asked again."""
        return parse_max_age(self.cache_control)


class Answer(Record):
    """The whole of a small answer, whatever its status.

    Attributes:
        headers: compared without case.
        body: bounded.
        url: what was answered at last, after all redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


def downloaded(
    response: BaseHTTPResponse, url: str, size_bytes: int, *, not_modified: bool = False, kept_bytes: int = 0
) -> Downloaded:
    """What came, with the headers of its answer that somebody may want to know later."""
    return Downloaded(
        size_bytes=size_bytes,
        not_modified=not_modified,
        etag=response.headers.get("ETag", ""),
        cache_control=response.headers.get("Cache-Control", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        url=url,
        kept_bytes=kept_bytes,
    )


def continues(response: BaseHTTPResponse, file: ResumableFile, offset: int) -> bool:
    """Whether an answer with status 206 is what was asked for: the rest of the same version, to the last byte."""
    known = file.validators
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if known is None or match is None:
        return False
    first, last = int(match[1]), int(match[2])
    total = last + 1 if match[3] == "*" else int(match[3])
    length = content_length(response)
    return (
        first == offset
        and last + 1 == total
        and known.size_bytes in {-1, total}
        and length in {None, total - offset}
        and (not known.etag or response.headers.get("ETag", known.etag) == known.etag)
    )


def conditions(file: ResumableFile, known_etag: str) -> dict[str, str]:
    """Headers that ask for what is not there yet."""
    headers = {"If-None-Match": known_etag} if known_etag else {}
    if offset := file.offset():
        assert file.validators is not None
        headers["Range"] = f"bytes={offset}-"
        if file.validators.if_range:
            headers["If-Range"] = file.validators.if_range
    return headers


def content_length(response: BaseHTTPResponse) -> int | None:
    """Bytes that are to come, None when the server does not say."""
    text = response.headers.get("Content-Length", "")
    return int(text) if is_number(text, most_digits=18) else None


def parse_max_age(cache_control: str) -> int:
    """``max-age`` in seconds, 0 when the answer is not to be kept (spec cli §5.5)."""
    seconds = 0
    for part in cache_control.split(","):
        word = part.strip().lower()
        if word in {"no-store", "no-cache"}:
            seconds = 0
        elif word.startswith("max-age="):
            digits = word[len("max-age=") :]
            if is_number(digits, most_digits=11) and (digits == "0" or digits[0] != "0"):
                seconds = int(digits)
    return seconds


def parse_retry_after(text: str, now: float) -> float:
    """Seconds from ``now`` that a server wants to be left alone; 0 when it does not say."""
    if len(text) > 64 or not text.isascii():
        return 0.0
    if is_number(text, most_digits=64):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
