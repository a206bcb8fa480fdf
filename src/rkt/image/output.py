# SPDX-License-Identifier: Apache-2.0
"""Files and directories that appear under their names whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex

from rkt.errors import ImageError, UsageError
from rkt.linux.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

#: <linux/fs.h>
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


class NewFile:
    """Written beside its final name, renamed by ``commit``; without it, the end of ``with`` removes what there is.

    Attributes:
        fd: open for reading and writing.
    """

    __slots__ = ("_directory_fd", "_name", "_overwrite", "_path", "_temporary", "fd")

    def __init__(
        self, path: str, *, overwrite: bool, exists: str = "output ACI file exists (try --overwrite)"
    ) -> None:
        """Create the temporary file.

        Raises:
            UsageError: the file exists and may not be replaced.
            ImageError: the file system refused.
        """
        directory, self._name = os.path.split(path)
        self._path = path
        self._overwrite = overwrite
        if not self._name or os.path.isdir(path):
            raise UsageError(f"output {path!r} is a directory")
        if not overwrite and os.path.lexists(path):
            raise UsageError(exists)
        self._temporary = _beside(self._name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._directory_fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.fd = os.open(self._temporary, flags, 0o600, dir_fd=self._directory_fd)
            except BaseException:
                os.close(self._directory_fd)
                raise
        except OSError as e:
            raise ImageError(f"cannot create {path}: {e.strerror}") from e

    def commit(self, mode: int = 0o644) -> None:
        """Give the file its name.

        Raises:
            UsageError: somebody made a file of that name meanwhile.
            ImageError: the file system refused.
        """
        from rkt.linux.libc import renameat2

        flags = 0 if self._overwrite else _RENAME_NOREPLACE
        try:
            os.fchmod(self.fd, mode)
            os.fsync(self.fd)
            dirfd, old, new = self._directory_fd, os.fsencode(self._temporary), os.fsencode(self._name)
            try:
                renameat2(dirfd, old, dirfd, new, flags)
            except OSError as e:
                # Some network file systems know no flags; a race for the name is then lost by the earlier file.
                if e.errno != errno.EINVAL:
                    raise
                os.rename(old, new, src_dir_fd=dirfd, dst_dir_fd=dirfd)
        except FileExistsError:
            raise UsageError("output file exists (try --overwrite)") from None
        except OSError as e:
            raise ImageError(f"cannot write {self._path}: {e.strerror}") from e
        self._temporary = ""
        with contextlib.suppress(OSError):
            # The file has its name; that it keeps it after a power cut too, some file systems do not promise.
            os.fsync(self._directory_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory_fd)
        os.close(self._directory_fd)


class NewDirectory:
    """Made beside its final name; what it replaces stays until the new one is in its place.

    Attributes:
        path: where it is until ``commit``.
    """

    __slots__ = ("_output_path", "path")

    def __init__(self, path: str, mode: int) -> None:
        """Make it, empty.

        Raises:
            ImageError: the file system refused.
        """
        if os.path.basename(path) in {".", ".."}:
            path = os.path.realpath(path)
        self._output_path = path.rstrip("/") or "/"
        directory, name = os.path.split(self._output_path)
        self.path = os.path.join(directory, _beside(name))
        try:
            os.mkdir(self.path, mode)
        except OSError as e:
            raise ImageError(f"cannot create {path}: {e.strerror}") from e

    def commit(self, *, replaces: bool, exists: str) -> None:
        """Give the directory its name.

        Args:
            replaces: whether it takes the place of what has the name, which is removed then.
            exists: what to say when somebody made something of that name, and it replaces nothing.
        Raises:
            UsageError: that is so.
            ImageError: the file system refused; or it has its name, and what it replaces cannot be removed.
        """
        try:
            old_path = self._put(_RENAME_EXCHANGE if replaces else _RENAME_NOREPLACE)
        except FileExistsError:
            raise UsageError(exists) from None
        except OSError as e:
            raise ImageError(f"cannot write {self._output_path}: {e.strerror}") from e
        self.path = ""
        if not replaces:
            return
        try:
            remove_tree(old_path)
        except OSError as e:
            raise ImageError(
                f"{self._output_path} is written, but {old_path}, which it replaces, cannot be removed: {e.strerror}",
                hint=f"rm -r {shlex.quote(old_path)}",
            ) from e

    def _put(self, flags: int) -> str:
        """Rename; where what it replaced is then."""
        from rkt.linux.libc import AT_FDCWD, renameat2

        old, new = self.path, self._output_path
        try:
            renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
        except OSError as e:
            # Some network file systems know no flags.
            if e.errno != errno.EINVAL:
                raise
            if flags != _RENAME_EXCHANGE:
                os.rename(old, new)
                return ""
            aside = os.path.join(os.path.dirname(new), _beside(os.path.basename(new)))
            os.rename(new, aside)
            try:
                os.rename(old, new)
            except OSError:
                os.rename(aside, new)
                raise
            return aside
        return old

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.path:
            remove_tree(self.path)


def _beside(name: str) -> str:
    """A name that nothing has yet, and that says whose it is."""
    return f".{name[:200]}.{os.getpid():x}.{os.urandom(4).hex()}"
