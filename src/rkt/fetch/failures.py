# SPDX-License-Identifier: Apache-2.0
"""Why a transfer failed, in words, and whether that may pass by itself."""

from __future__ import annotations

import ssl
import time

from urllib3.exceptions import ConnectTimeoutError, IncompleteRead, ProtocolError, ReadTimeoutError

from rkt.errors import FetchError
from rkt.fetch.answer import parse_retry_after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

#: What OpenSSL, by its version, says of a server that answers in plain text.
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
#: Statuses of a server that may do better in a moment.
PASSING = (429, 500, 502, 503, 504)


class PassingError(FetchError):
    """A transfer that may succeed when it is tried again."""

    def __init__(self, message: str, *, after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def bad_status(url: str, response: BaseHTTPResponse) -> FetchError:
    """The error for an answer with a status of no use: passing where the server may do better in a moment."""
    message = f'cannot fetch "{url}": bad HTTP status code: {response.status}'
    if response.status not in PASSING:
        return FetchError(message)
    after = parse_retry_after(response.headers.get("Retry-After", ""), time.time())
    if not after:
        return PassingError(message)
    return PassingError(f"{message}, to be asked again in {after:.0f} s", after_seconds=after)


def failure(url: str, error: Exception) -> FetchError:
    """The error for a request or a body that broke: passing, unless trying again could not help."""
    message = f'cannot fetch "{url}": {reason_of(error)}'
    passing = (TimeoutError, ReadTimeoutError, ConnectTimeoutError, IncompleteRead, ProtocolError)
    chain = causes(error)
    # First: the library wraps them in errors that look passing.
    if any(isinstance(cause, ssl.SSLCertVerificationError | ConnectionRefusedError) for cause in chain):
        return FetchError(message)
    for cause in chain:
        if isinstance(cause, (*passing, ConnectionResetError, BrokenPipeError)):
            return PassingError(message)
    return FetchError(message)


def reason_of(error: Exception) -> str:
    """The innermost words, without the library's object names."""
    chain = causes(error)
    for cause in reversed(chain):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and cause.reason in NOT_TLS:
            return "the server does not speak TLS"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or cause}"
        if isinstance(cause, ConnectTimeoutError):
            return "the server does not answer"
        if isinstance(cause, TimeoutError | ReadTimeoutError):
            return "the server went silent"
        if isinstance(cause, IncompleteRead):
            return f"the transfer ended early, {cause.expected} bytes are missing"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(chain[-1])


def causes(error: BaseException) -> list[BaseException]:
    """An error and what caused it, the cause last."""
    chain = [error]
    while (inner := _inner(chain[-1])) is not None and inner not in chain:
        chain.append(inner)
    return chain


def _inner(error: BaseException) -> BaseException | None:
    """What caused an error: the library puts it in one of three places."""
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            return inner
    return None
