# SPDX-License-Identifier: Apache-2.0
"""Files of keys and roots that the trust policy names, read by the command that asks for a verification.

Like the policy itself they decide who is trusted, so nobody but root, or the caller where that is not root, may have
written them (invariants SG6, SG14).
"""

from __future__ import annotations

import os
import stat

from rkt.errors import ConfigError
from rkt.linux.files import read_fd_bounded

MAX_FILE_BYTES = 1 << 20
_WRITABLE_BY_OTHERS = 0o022


def read_key_file(path: str) -> bytes:
    """The content of a file that the policy names.

    Raises:
        ConfigError: it cannot be read, is empty or too large, is no regular file, or others could have written it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _error(path, "is not a regular file")
            data = read_fd_bounded(fd, MAX_FILE_BYTES, path)
        finally:
            os.close(fd)
    except OSError as e:
        raise _error(path, f"cannot be read: {e.strerror}") from e
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITABLE_BY_OTHERS:
        raise ConfigError(
            f"the key file {path} of the trust policy can be changed by others than root",
            hint=f"chown root {path} && chmod go-w {path}",
        )
    if not data.strip():
        raise _error(path, "is empty")
    return data


def _error(path: str, text: str) -> ConfigError:
    return ConfigError(f"the key file {path} of the trust policy {text}", hint=f"ls -l {path}")
