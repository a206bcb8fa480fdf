# SPDX-License-Identifier: Apache-2.0
"""Whose credentials a registry is sent: of rkt's configuration, of Docker's and podman's files, of their helpers.

A file that was named by ``--authfile`` comes first, then ``dockerAuth`` of the configuration, then the files of the user
who runs the command (``config.authfile``). A helper, ``docker-credential-NAME get``, runs as the user who owns the file
that names it, with an environment made of that user's entry in passwd, and gets the registry's name on its standard
input; it has half a minute. No secret is ever in an argument, an environment or a message.
"""

from __future__ import annotations

import os
import signal
import stat

from rkt.config.auth import load_auth, registry_key
from rkt.config.authfile import Secret, auth_files
from rkt.errors import ConfigError, InvalidManifest
from rkt.values import DOCKER_HUB_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rkt.config.authfile import AuthFile
    from rkt.config.settings import Settings

#: Where helpers are looked for, whatever ``PATH`` says (invariant HH5).
HELPER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HELPER_SECONDS = 30.0
_MAX_ANSWER_BYTES = 64 << 10
_WRITABLE_BY_OTHERS = 0o022
#: What helpers say instead of an answer, by their common library.
_NOT_FOUND = b"credentials not found"
#: A user of that name means that the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - a name, which Docker chose
_HUB_NAME = "https://index.docker.io/v1/"


def find_credentials(
    settings: Settings,
    registry: str,
    repository: str,
    warn: Callable[[str], object] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> Secret | None:
    """What may be sent to a registry about a repository; None when there is nothing.

    Args:
        settings: of the running command.
        registry: host, with its port unless that is 443.
        repository: without the registry.
        warn: is told of files that are somebody else's.
        environment: of the command.
    Raises:
        ConfigError: a file or a helper that should know is not to be used.
    """
    files = auth_files(settings, os.environ if environment is None else environment, warn)
    if settings.authfile:
        found = _find(next(files), registry, repository)
        if found is not None:
            return found
    configured = load_auth(settings).registries.get(registry_key(registry))
    if configured is not None:
        return Secret(source="the configuration", user=configured.user, password=configured.password)
    for file in files:
        found = _find(file, registry, repository)
        if found is not None:
            return found
    return None


def describe(secret: Secret | None) -> dict[str, str]:
    """For a worker: the members that ``challenge.Authorization`` knows."""
    if secret is None:
        return {}
    described = {"source": secret.source}
    if secret.token:
        described["token"] = secret.token
    elif secret.identity_token:
        described["identity_token"] = secret.identity_token
    else:
        described |= {"user": secret.user, "password": secret.password}
    return described


def _find(file: AuthFile, registry: str, repository: str) -> Secret | None:
    entry = file.entry(registry, repository)
    helper = file.helper(registry)
    # What only some repositories are sent is more than what a helper knows of the whole registry.
    if helper and not (entry is not None and file.entry(registry, "") is not entry):
        found = run_helper(helper, registry, file)
        if found is not None:
            return found
    return entry


def run_helper(name: str, registry: str, file: AuthFile, path: str = HELPER_PATH) -> Secret | None:
    """Ask a helper; None when it knows nothing of the registry.

    Args:
        name: what follows ``docker-credential-``.
        registry: as in references.
        file: names the helper.
        path: directories, separated by colons.
    Raises:
        ConfigError: it is missing, may be replaced by others, fails, or answers nonsense.
    """
    import pwd
    import subprocess

    program = _program(f"docker-credential-{name}", file, path)
    try:
        user = pwd.getpwuid(file.uid)
    except KeyError:
        raise ConfigError(f'the owner of "{file.path}" is no user of this host') from None
    asked = _HUB_NAME if registry_key(registry) == DOCKER_HUB_REGISTRY else registry
    environment = {
        "PATH": HELPER_PATH,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "LC_ALL": "C.UTF-8",
    }
    if os.path.isdir(runtime := f"/run/user/{file.uid}"):
        # Key rings are reached by the session's bus, whose socket is there.
        environment["XDG_RUNTIME_DIR"] = runtime
    identity: dict[str, Any] = {}
    if os.geteuid() == 0 and file.uid != 0:
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        identity = {"user": file.uid, "group": user.pw_gid, "extra_groups": groups}
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
            **identity,
        )
    except OSError as e:
        raise ConfigError(f"cannot run credential helper {program}: {e.strerror}") from e
    try:
        answer = _converse(process, asked.encode())
    except TimeoutError:
        raise ConfigError(
            f"credential helper {program} did not answer within {_HELPER_SECONDS:.0f} seconds"
        ) from None
    finally:
        # With all that it may have started.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        process.wait()
    if process.returncode:
        if _NOT_FOUND in answer:
            return None
        raise ConfigError(
            f"credential helper {program} failed (status {process.returncode})",
            hint=f"echo {asked} | {program} get",
        )
    return _read_answer(answer, program)


def _converse(process: Any, request: bytes) -> bytes:
    """Send the request, take the answer to its end, or to the end of its time."""
    import select
    import time

    deadline = time.monotonic() + _HELPER_SECONDS
    try:
        process.stdin.write(request)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it answers without having read
    answer = bytearray()
    output = process.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLIN)
    with process.stdout:
        while len(answer) <= _MAX_ANSWER_BYTES:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError
            data = os.read(output, 1 << 14)
            if not data:
                break
            answer += data
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except Exception as e:
        raise TimeoutError from e
    return bytes(answer)


def _program(name: str, file: AuthFile, path: str) -> str:
    for directory in path.split(":"):
        program = f"{directory}/{name}"
        try:
            status = os.stat(program)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            continue
        if status.st_uid not in {0, file.uid} or status.st_mode & _WRITABLE_BY_OTHERS:
            raise ConfigError(f"credential helper {program} may be changed by others than its user")
        return program
    raise ConfigError(f'"{file.path}" names the credential helper {name}, which is not in {path}')


def _read_answer(data: bytes, program: str) -> Secret:
    from rkt.schema import jsontext

    try:
        members = jsontext.parse(data, what="answer", limit_bytes=_MAX_ANSWER_BYTES)
    except InvalidManifest:
        # The reason might quote the secret.
        raise ConfigError(f"the answer of credential helper {program} is not JSON") from None
    user = members.get("Username") if isinstance(members, dict) else None
    secret = members.get("Secret") if isinstance(members, dict) else None
    if not (isinstance(user, str) and isinstance(secret, str) and secret and user.isprintable()):
        raise ConfigError(f"the answer of credential helper {program} has no credentials")
    if user == _TOKEN_USER:
        return Secret(source=program, identity_token=secret)
    return Secret(source=program, user=user, password=secret)
