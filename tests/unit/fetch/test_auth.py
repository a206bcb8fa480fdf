# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.auth import AwsCredentials
from rkt.config.settings import Installation, Settings
from rkt.fetch.access import Access
from rkt.fetch.auth import authorization, https_origin, sign_aws

if TYPE_CHECKING:
    from pathlib import Path

INSTALLATION = Installation(package_path="", library_paths=[], stage1_images_path="")


def settings_with(base: Path, **entry: Any) -> Settings:
    """Settings whose local directory has one auth entry."""
    directory = base / "auth.d"
    directory.mkdir(exist_ok=True)
    path = directory / "x.json"
    path.write_text(json.dumps({"rktKind": "auth", "rktVersion": "v1", **entry}))
    os.chmod(path, 0o600)
    return Settings(
        installation=INSTALLATION, local_config_dir=str(base), system_config_dir=str(base / "none")
    )


def access(*allowed: dict[str, Any], proxies: dict[str, str] | None = None) -> Access:
    """The worker's view."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return Access({"authorizations": list(allowed), "proxies": proxies or {}}, context)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com/x", ("example.com", 443)),
        ("https://example.com:443/x", ("example.com", 443)),
        ("https://example.com:8443", ("example.com", 8443)),
        ("https://[::1]:1/x", ("::1", 1)),
        ("http://example.com/", None),
        ("https:///x", None),
        ("https://example.com:x/", None),
        ("example.com", None),
    ],
)
def test_origins(url: str, origin: tuple[str, int] | None) -> None:
    """Only https URLs have one; the port is always said."""
    assert https_origin(url) == origin


@pytest.mark.parametrize(
    ("domain", "url", "given"),
    [
        ("example.com", "https://example.com/x.aci", True),
        ("example.com", "https://EXAMPLE.com:443/x.aci", True),
        ("example.com:443", "https://example.com/x.aci", True),
        ("example.com:8443", "https://example.com:8443/x.aci", True),
        ("example.com:8443", "https://example.com/x.aci", False),
        ("example.com", "https://example.com:8443/x.aci", False),
        ("example.com", "https://sub.example.com/x.aci", False),
        ("sub.example.com", "https://example.com/x.aci", False),
        ("example.com", "http://example.com/x.aci", False),
        ("example.com", "https://example.com.evil.org/x.aci", False),
        ("example.com", "https://example.com@evil.org/x.aci", False),
    ],
)
def test_credentials_are_for_one_origin(tmp_path: Path, domain: str, url: str, given: bool) -> None:
    """Host and port match exactly, and only by https."""
    settings = settings_with(
        tmp_path, domains=[domain], type="basic", credentials={"user": "bar", "password": "baz"}
    )
    found = authorization(settings, url)
    assert (found is not None) is given
    if found is not None:
        assert found["headers"] == {"Authorization": "Basic YmFyOmJheg=="}
        assert "url" not in found


def test_aws_is_for_one_url_and_not_for_discovery(tmp_path: Path) -> None:
    """A signature is good for the URL it was made for; pages of discovery get none."""
    settings = settings_with(
        tmp_path,
        domains=["b.s3.eu-central-1.amazonaws.com"],
        type="aws",
        credentials={"accessKeyID": "A", "secretAccessKey": "S"},
    )
    url = "https://b.s3.eu-central-1.amazonaws.com/x.aci"
    found = authorization(settings, url)
    assert found is not None
    assert found["url"] == url
    assert "/eu-central-1/s3/aws4_request" in found["headers"]["Authorization"]
    assert authorization(settings, url, discovery=True) is None
    worker = access(found)
    assert worker.headers(url, url) == found["headers"]
    assert worker.headers(f"{url}.asc", url) == {}


def test_a_signature_of_aws() -> None:
    """Every part of the signed request is in the signature: same input, same header; other path, query or time, another."""
    credentials = AwsCredentials(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
    )
    url = "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J"
    headers = sign_aws(url, credentials, 1369353600)
    assert headers["X-Amz-Date"] == "20130524T000000Z"
    # AWS, "Signature Calculations for the Authorization Header", example "Get Bucket (List Objects)".
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )
    for other, now in ((f"{url}x", 1369353600), (url, 1369353601), (url.replace("/?", "/x?"), 1369353600)):
        assert sign_aws(other, credentials, now)["Authorization"] != headers["Authorization"]


def test_redirects_elsewhere_get_nothing() -> None:
    """Another host, another port and http get no header, not even when the first URL had one."""
    first = "https://a.example:443/x"
    worker = access({"host": "a.example", "port": 443, "headers": {"Authorization": "B"}})
    assert worker.headers(first, first) == {"Authorization": "B"}
    assert worker.headers("https://a.example/y", first) == {"Authorization": "B"}
    for url in ("https://b.example/x", "https://a.example:444/x", "http://a.example/x"):
        assert worker.headers(url, first) == {}
        assert worker.headers(first, url) == {}


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://a.b.example.com/", "http://b"),
        ("https://b.example.com/", "http://example"),
        ("https://example.com/", "http://all"),
        ("https://EXACT.example.com:8443/", ""),
        ("http://other.org/", "http://all"),
    ],
)
def test_the_closest_proxy_counts(url: str, proxy: str) -> None:
    """The host's own, else of the nearest domain above, else the one for all; an empty one means none."""
    proxies = {
        "*": "http://all",
        "*.example.com": "http://example",
        "*.b.example.com": "http://b",
        "exact.example.com": "",
    }
    assert access(proxies=proxies).proxy(url) == proxy
