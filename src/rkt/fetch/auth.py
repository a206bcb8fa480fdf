# SPDX-License-Identifier: Apache-2.0
"""Credentials of the operator's configuration, as the headers of one request (spec cli §4.2).

The header is made by root and handed to the worker together with the one origin it may be sent to: https, host and
port (invariant RG1). The worker never sees the configuration, nor the secret key behind an AWS signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from rkt.config.auth import AwsCredentials, BasicCredentials, aws_region, load_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.auth import OAuthCredentials
    from rkt.config.settings import Settings

_HTTPS_PORT = 443
_EMPTY_SHA256 = hashlib.sha256().hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


def authorization(settings: Settings, url: str, *, discovery: bool = False) -> dict[str, Any] | None:
    """What a worker may send along with a request for ``url``; None when there is nothing.

    Args:
        settings: whose configuration counts.
        url: that will be asked for; redirects to another origin get nothing.
        discovery: for a page of discovery, which AWS does not serve.
    Returns:
        ``host``, ``port`` and ``headers``; and ``url`` when the headers are good for that URL only.
    """
    origin = https_origin(url)
    if origin is None:
        return None
    for domain, credentials in load_auth(settings).domains.items():
        if https_origin(f"https://{domain}") != origin:
            continue
        host, port = origin
        if isinstance(credentials, AwsCredentials):
            if discovery:
                return None
            return {
                "host": host,
                "port": port,
                "headers": sign_aws(url, credentials, time.time()),
                "url": url,
            }
        return {"host": host, "port": port, "headers": {"Authorization": _header(credentials)}}
    return None


def https_origin(url: str) -> tuple[str, int] | None:
    """Host in lower case and port of an https URL; None for other URLs and for what is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme.lower() != "https" or not parts.hostname:
        return None
    return parts.hostname.lower(), _HTTPS_PORT if port is None else port


def _header(credentials: BasicCredentials | OAuthCredentials) -> str:
    if isinstance(credentials, BasicCredentials):
        pair = f"{credentials.user}:{credentials.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"
    return f"Bearer {credentials.token}"


def sign_aws(url: str, credentials: AwsCredentials, now: float) -> dict[str, str]:
    """Headers of a GET signed by AWS signature version 4 for service ``s3``.

    Args:
        url: with the path as it will be sent.
        credentials: an empty region is told from the host.
        now: seconds since the epoch.
    """
    parts = urlsplit(url)
    host = parts.netloc.lower().removesuffix(f":{_HTTPS_PORT}")
    region = credentials.region or aws_region(host)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signed = {"host": host, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": stamp}
    names = ";".join(signed)
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    canonical = "\n".join(
        [
            "GET",
            quote(unquote(parts.path) or "/", safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{value}" for name, value in signed.items()),
            "",
            names,
            _EMPTY_SHA256,
        ]
    )
    to_sign = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return {
        "X-Amz-Content-Sha256": _EMPTY_SHA256,
        "X-Amz-Date": stamp,
        "Authorization": (
            f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        ),
    }
