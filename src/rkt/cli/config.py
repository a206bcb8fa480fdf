# SPDX-License-Identifier: Apache-2.0
"""``rkt config``: the merged configuration (spec cli §2.27)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.config.auth import AwsCredentials, BasicCredentials, OAuthCredentials

_HIDDEN = "********"


def run(invocation: Invocation) -> int:
    """Print ``{"stage0":[…]}``: domains and registries by name, proxies, TLS, registries, then ``paths``, ids for pods and ``stage1``."""
    from rkt.cli.output import print_json
    from rkt.config.auth import load_auth
    from rkt.config.default_network import USUAL, load_default_networks
    from rkt.config.network import load_network
    from rkt.config.paths import load_paths
    from rkt.config.registries import load_registries, load_search
    from rkt.config.stage1 import load_stage1
    from rkt.config.users import load_users

    settings = invocation.settings
    auth = load_auth(settings)
    network = load_network(settings)
    paths = load_paths(settings)
    stage1 = load_stage1(settings)
    show = invocation.values["show-secrets"]
    stage0: list[dict[str, Any]] = []
    for domain in sorted(auth.domains):
        kind, credentials = _credentials(auth.domains[domain], show=show)
        stage0.append(_entry("auth", domains=[domain], type=kind, credentials=credentials))
    for registry in sorted(auth.registries):
        _, credentials = _credentials(auth.registries[registry], show=show)
        stage0.append(_entry("dockerAuth", registries=[registry], credentials=credentials))
    stage0 += [_entry("proxy", hosts=[host], url=url) for host, url in sorted(network.proxies.items())]
    for host, tls in sorted(network.tls.items()):
        paths_given = {name: getattr(tls, name) for name in ("roots", "certificate", "key")}
        stage0.append(_entry("tls", hosts=[host], **{n: path for n, path in paths_given.items() if path}))
    for name, config in sorted(load_registries(settings).items()):
        members: dict[str, Any] = {
            "mirrors": config.mirrors,
            "tokenHosts": config.token_hosts,
            "lookaside": config.lookaside,
        }
        members = {**({"http": True} if config.http else {}), **{n: m for n, m in members.items() if m}}
        stage0.append(_entry("registry", registries=[name], **members))
    if places := load_search(settings):
        stage0.append(_entry("registry", search=places))
    if (default := load_default_networks(settings)) != list(USUAL):
        stage0.append(_entry("network", default=default))
    stage0.append(_entry("paths", data=paths.data, **{"stage1-images": paths.stage1_images}))
    if ranges := load_users(settings).ranges:
        stage0.append(_entry("privateUsers", ranges=[f"{first}:{count}" for first, count in ranges]))
    stage0.append(_entry("stage1", name=stage1.name, version=stage1.version, location=stage1.location))
    print_json({"stage0": stage0}, pretty=invocation.values["pretty-print"])
    return 0


def _entry(kind: str, **members: Any) -> dict[str, Any]:
    return {"rktVersion": "v1", "rktKind": kind, **members}


def _credentials(
    credentials: BasicCredentials | OAuthCredentials | AwsCredentials, *, show: bool
) -> tuple[str, dict[str, str]]:
    from rkt.config.auth import BasicCredentials, OAuthCredentials

    def secret(text: str) -> str:
        return text if show else _HIDDEN

    if isinstance(credentials, BasicCredentials):
        return "basic", {"user": credentials.user, "password": secret(credentials.password)}
    if isinstance(credentials, OAuthCredentials):
        return "oauth", {"token": secret(credentials.token)}
    return "aws", {
        "accessKeyID": credentials.access_key_id,
        "secretAccessKey": secret(credentials.secret_access_key),
        "awsRegion": credentials.region,
    }


COMMAND = Command(
    name="config",
    summary="print the configuration, merged from all directories",
    description="""\
Prints one JSON object with an entry for each domain and each registry that has credentials, for each host that has a
proxy or certificates of its own, for each registry that has a particular way, one for the networks of pods without
--net if they are not the usual, one for paths and one for the default stage1 image. Secrets are replaced by
asterisks unless they are asked for.

Files are read from auth.d, fetch.d, network.d, paths.d, stage1.d and users.d of each configuration directory, if their
name ends by .json. Kind network of network.d has "default", a list of what --net would say for pods that are run
without it.
Each has rktKind and rktVersion ("v1"). Credentials (kind auth) are sent by https only, to exactly the host and port of
the URL that is asked for, never after a redirect elsewhere; such files must not be readable by everyone.

Proxy variables, SSL_CERT_FILE and .netrc are not read. Instead, fetch.d has three kinds. proxy: "hosts" is a list of
hosts, "*.example.com" for all below a domain, or "*" for all, of which the closest counts; "url" is the proxy's, as in
"http://proxy.example.com:3128", and "" means none. tls: "hosts" is a list of hosts, with their port unless it is 443;
"roots" is the absolute path of a PEM file, and only certificates by one of its roots are accepted from these hosts;
"certificate" and "key" are the paths of a client certificate to show them and of its key. registry: "registries" is a
list of registries; "mirrors" are URLs to ask before them, "tokenHosts" other hosts that may issue their tokens and get
their credentials, "http": true says that they are reached by plain http, without credentials, and "lookaside" is the URL
below which OpenPGP signatures of their images are, as podman and skopeo keep them. A file of kind
registry may have "search" instead, a list of registries, perhaps with a path, in which names without a host are looked
for; without it there are no short names.

For registries, credentials of kind dockerAuth come before those that podman and Docker keep for the user who runs the
command, in auth.json and config.json; what --authfile names comes before both.""",
    flags=(
        Flag(name="pretty-print", kind=BOOL, default=True, help="indent the output"),
        Flag(name="show-secrets", kind=BOOL, default=False, help="show passwords, tokens and keys in clear"),
    ),
    run=run,
    examples=(("rkt config", "see which files counted"),),
)
