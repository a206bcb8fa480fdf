# SPDX-License-Identifier: Apache-2.0
"""What a registry wants to be sent, and how it is got: tokens and basic credentials (invariants RG1, RG2).

A registry answers 401 and says by ``WWW-Authenticate`` whether it wants ``Basic`` credentials or a ``Bearer`` token, and
who issues tokens. Who that is, the answer of a server decides; so the issuer must be the registry itself, by https if
the registry is reached by https, or one that the operator's configuration names. A token is asked for one repository
and for nothing but what is going to be done there, is sent to that registry alone, and lasts as long as this object.
"""

from __future__ import annotations

import base64
import threading
from urllib.parse import quote, urlencode

from rkt.errors import FetchError, InvalidManifest, quoted
from rkt.fetch.urls import check_url, origin
from rkt.schema import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rkt.fetch.transport import Client

_BASIC = "basic"
_BEARER = "bearer"
_MAX_CHALLENGE_LENGTH = 8192
_MAX_TOKEN_ANSWER_BYTES = 256 << 10
_MAX_TOKEN_LENGTH = 64 << 10
_OK = 200
_CLIENT_ID = "rkt"
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_SPACE = " \t"


class Authorization:
    """The credential for one repository of one registry; threads share it.

    ``credentials`` is what root found for the registry: ``user`` and ``password``, or ``identity_token``, or ``token``, or
    nothing; ``source`` says where, for people.
    """

    def __init__(
        self,
        client: Client,
        base_url: str,
        scope: str,
        credentials: Mapping[str, str],
        token_hosts: list[str],
    ) -> None:
        """``scope`` is what a token is asked for: ``repository:NAME:pull``."""
        self._client = client
        self._origin = origin(base_url)
        self._scope = scope
        self._credentials = credentials
        self._issuers = [origin(f"https://{host}") for host in token_hosts]
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """To be sent now; none before the registry asked."""
        return self._headers

    def renew(self, sent: Mapping[str, str], challenges: str, url: str) -> None:
        """Get what an answer with status 401 asks for.

        Raises:
            FetchError: it cannot be had, or must not be sent.
        """
        if origin(url) != self._origin:
            raise FetchError(
                f'"{url}" asks for credentials, which are not sent to where a registry redirects'
            )
        with self._lock:
            if self._headers != sent:
                return  # another thread has got it meanwhile
            found = dict(reversed(parse_challenges(challenges)))
            if _BEARER in found:
                token = self._own_token(url) or self._fetch_token(found[_BEARER])
                self._headers = {"Authorization": f"Bearer {token}"}
            elif _BASIC in found:
                self._headers = self._basic("the registry", url)
            else:
                raise FetchError(
                    f'"{url}" wants an authentication that is not supported: {quoted(challenges)}'
                )
            if self._headers == sent:
                raise self._refused(url)

    def _own_token(self, url: str) -> str:
        """The one that the operator has; empty when there is none."""
        token = self._credentials.get("token", "")
        if token:
            self._require_https("the registry", url)
        return token

    def _require_https(self, who: str, url: str) -> None:
        if self._origin[0] != "https":
            raise FetchError(f'{who} wants credentials for "{url}", which are only sent by https')

    def _basic(self, who: str, url: str) -> dict[str, str]:
        if "user" not in self._credentials:
            raise FetchError(f'{who} wants credentials for "{url}", and there are none', hint=_LOGIN)
        self._require_https(who, url)
        pair = f"{self._credentials['user']}:{self._credentials['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}

    def _fetch_token(self, challenge: Mapping[str, str]) -> str:
        realm = check_url(challenge.get("realm", ""))
        self._check_issuer(realm)
        members = {"service": challenge["service"]} if challenge.get("service") else {}
        members |= {"scope": self._scope}
        own: dict[str, str] = {}
        is_https = realm.startswith("https:") and self._origin[0] == "https"
        if is_https and "identity_token" in self._credentials:
            members |= {
                "grant_type": "refresh_token",
                "client_id": _CLIENT_ID,
                "refresh_token": self._credentials["identity_token"],
            }
            answer = self._client.exchange(
                realm,
                method="POST",
                body=urlencode(members).encode("ascii"),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                limit_bytes=_MAX_TOKEN_ANSWER_BYTES,
                same_origin=True,
            )
        else:
            if is_https and "user" in self._credentials:
                own = self._basic("the issuer of tokens", realm)
                members |= {"account": self._credentials["user"]}
            separator = "&" if "?" in realm else "?"
            answer = self._client.exchange(
                f"{realm}{separator}{urlencode(members, quote_via=quote, safe=':,/')}",
                limit_bytes=_MAX_TOKEN_ANSWER_BYTES,
                own=own,
                same_origin=True,
            )
        if answer.status in {400, 401, 403}:
            raise self._refused(realm)
        if answer.status != _OK:
            raise FetchError(f'cannot get a token from "{realm}": bad HTTP status code: {answer.status}')
        return _read_token(answer.body, realm)

    def _check_issuer(self, realm: str) -> None:
        """Refuse an issuer that neither is the registry nor is named by the configuration (invariant RG1)."""
        issuer = origin(realm)
        if issuer in {self._origin, *self._issuers}:
            return
        registry = _host(self._origin)
        raise FetchError(
            f"registry {registry} wants a token from {quoted(realm)}, which is another host that no configuration allows",
            hint=f'if that is right, put {{"rktKind": "registry", "rktVersion": "v1", "registries": ["{registry}"], '
            f'"tokenHosts": ["{_host(issuer)}"]}} into /etc/rkt/fetch.d/registry.json',
        )

    def _refused(self, url: str) -> FetchError:
        if not self._credentials:
            return FetchError(f'"{url}" gives no access without credentials', hint=_LOGIN)
        user = self._credentials.get("user")
        who = f"of user {quoted(user)} " if user else ""
        source = self._credentials.get("source", "")
        return FetchError(f'"{url}" refuses the credentials {who}from {source}', hint=_LOGIN)


_LOGIN = "rkt help config says how credentials for a registry are given; podman login and docker login do too"


def _host(of: tuple[str, str, int]) -> str:
    scheme, host, port = of
    return host if port == {"https": 443, "http": 80}.get(scheme) else f"{host}:{port}"


def _read_token(data: bytes, realm: str) -> str:
    try:
        members: Any = jsontext.parse(data, what="answer", limit_bytes=_MAX_TOKEN_ANSWER_BYTES)
    except InvalidManifest as e:
        raise FetchError(f'"{realm}" answered with no token: {e.message}') from None
    token: Any = ""
    if isinstance(members, dict):
        token = members.get("token") or members.get("access_token") or ""
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= _MAX_TOKEN_LENGTH
        or not (token.isascii() and token.isprintable())
        or " " in token
    ):
        raise FetchError(f'"{realm}" answered with no token')
    return token


def parse_challenges(text: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes, in lower case, and their parameters, of one or more ``WWW-Authenticate`` headers joined by commas.

    What breaks the grammar ends the list (RFC 9110, 11.6.1).
    """
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    if len(text) > _MAX_CHALLENGE_LENGTH:
        return found
    while position < len(text):
        if text[position] in _SPACE or text[position] == ",":
            position += 1
            continue
        word, position = _token(text, position)
        if not word:
            break
        if position < len(text) and text[position] == "=" and found:
            value, position = _value(text, position + 1)
            if value is None:
                break
            # Of a parameter that is given twice the first counts, for everybody who reads this.
            found[-1][1].setdefault(word.lower(), value)
        else:
            found.append((word.lower(), {}))
    return found


def _token(text: str, start: int) -> tuple[str, int]:
    end = start
    while end < len(text) and text[end] in _TOKEN_CHARACTERS:
        end += 1
    return text[start:end], end


def _value(text: str, start: int) -> tuple[str | None, int]:
    """A token or a quoted string, and where it ends; None when it does not."""
    if not text.startswith('"', start):
        return _token(text, start)
    value: list[str] = []
    position = start + 1
    while position < len(text):
        if text[position] == '"':
            return "".join(value), position + 1
        if text[position] == "\\":
            position += 1
        value.append(text[position : position + 1])
        position += 1
    return None, position
