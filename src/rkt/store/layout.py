# SPDX-License-Identifier: Apache-2.0
"""The data directory: where things are, who owns them, with which modes.

::

    $DATA (2750 root:rkt)
    ├── locks/prepareLock     flock: shared while images are being referenced or committed, exclusive in image gc
    ├── cas/
    │   ├── tmp/              one staging directory per operation (store.staging)
    │   ├── record/KEY        the image record; its existence makes the image visible
    │   ├── manifest/KEY      the manifest's own bytes
    │   ├── name/NAME/KEY     empty files: which keys carry a name; can be rebuilt from the records
    │   ├── used/KEY          empty; mtime is the last use
    │   ├── layer/KEY/        0700: manifest and rootfs/ as unpacked; of an OCI layer marks and rootfs/ (store.oci)
    │   ├── tree/ID/          0700: a root file system rendered of several images (store.trees)
    │   ├── split/KEY         what the tar held besides the files' contents
    │   ├── partial/          0700, made on demand: downloads that did not become an image yet (fetch.partial)
    │   ├── imagelocks/KEY    flock: exclusive while an image is committed or removed
    │   ├── remote/SHA256     what was downloaded from the URL with that sha256
    │   ├── oci/KEY/          the documents of an OCI or Docker image: manifest, config, index-SHA256
    │   ├── blob/SHA256       link: the layer that the blob with that sha256 unpacks to; can be lost
    │   └── incoming/         3770: a small store for each member of the group rkt (store.pending)
    ├── trust/                made on demand: what the policy said (trust.compiled), newest signed images (trust.newest)
    └── pods/                 (pod.lifecycle)

The group ``rkt`` may look, not write: a member who could replace a directory here could hand root a forged verdict
(invariant HH2). Only in ``incoming`` members make directories of their own, and what is in those root treats as any
stranger's files. Layers are for root alone, since they hold images' setuid files (invariant HH1, CVE-2021-41103).
"""

from __future__ import annotations

import os

from rkt.errors import HostError, StoreError

#: Name of the directory below ``cas`` in which members keep what they fetch.
INCOMING = "incoming"
#: (path below $DATA, mode, belongs to group rkt)
_DIRECTORIES = (
    ("", 0o2750),
    ("locks", 0o2750),
    ("cas", 0o2750),
    ("cas/tmp", 0o700),
    ("cas/record", 0o2750),
    ("cas/manifest", 0o2750),
    ("cas/name", 0o2750),
    ("cas/used", 0o2750),
    ("cas/layer", 0o700),
    ("cas/tree", 0o700),
    ("cas/split", 0o700),
    ("cas/imagelocks", 0o2750),
    ("cas/remote", 0o2750),
    (f"cas/{INCOMING}", 0o3770),
    ("cas/blob", 0o700),
    ("cas/oci", 0o2750),
)
#: What the small store of a member has, below that.
_MEMBER_DIRECTORIES = (
    ("locks", 0o700),
    ("cas", 0o2750),
    ("cas/tmp", 0o700),
    ("cas/blob", 0o700),
    ("cas/record", 0o2750),
    ("cas/manifest", 0o2750),
    ("cas/name", 0o2750),
    ("cas/used", 0o2750),
    ("cas/imagelocks", 0o700),
    ("cas/removal", 0o2750),
    ("cas/remote", 0o2750),
)
PREPARE_LOCK = "locks/prepareLock"


def rkt_group_id() -> int:
    """Id of the group ``rkt``; -1 when there is none."""
    import grp

    try:
        return grp.getgrnam("rkt").gr_gid
    except KeyError:
        return -1


def setup_data_dir(data_dir: str) -> None:
    """Make the data directory and the store's directories where they are missing; cheap when they exist.

    Existing directories keep the modes that an administrator gave them, but a data directory that others than its
    owner may write to is refused (invariant HH1).

    Raises:
        StoreError: the directory is writable for strangers, or cannot be made.
    """
    try:
        # Made last: where it exists the others do. A member's own store has not all of root's.
        os.stat(f"{data_dir}/cas/{'remote' if os.geteuid() else 'oci'}")
    except FileNotFoundError:
        pass
    except OSError as e:
        raise StoreError(f"cannot use data directory {data_dir}: {e.strerror}") from e
    else:
        return
    gid = rkt_group_id() if os.geteuid() == 0 else -1
    try:
        os.makedirs(os.path.dirname(data_dir), mode=0o755, exist_ok=True)
        for name, mode in _DIRECTORIES:
            _make_directory(f"{data_dir}/{name}" if name else data_dir, mode, gid)
    except PermissionError as e:
        raise HostError(
            f"cannot create {e.filename}: {e.strerror}", hint="run the command as root, or give another --dir"
        ) from e
    except OSError as e:
        from rkt.linux.disk import remedy

        raise StoreError(f"cannot create {e.filename}: {e.strerror}", hint=remedy(e.errno)) from e


def setup_member_dir(path: str) -> None:
    """Make the directories of a member's own store where they are missing; it exists itself, empty perhaps.

    Raises:
        StoreError: they cannot be made.
    """
    try:
        for name, mode in _MEMBER_DIRECTORIES:
            _make_directory(f"{path}/{name}", mode, -1)
    except OSError as e:
        raise StoreError(f"cannot create {e.filename}: {e.strerror}") from e


def _make_directory(path: str, mode: int, gid: int) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.stat(path)
        if status.st_mode & 0o170000 != 0o040000:
            raise StoreError(f"{path} is not a directory") from None
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o002:
            raise StoreError(
                f"{path} is owned by user {status.st_uid} with mode {status.st_mode & 0o7777:o}: "
                "others could plant images in it",
                hint=f"chown root {path} && chmod o-w {path}",
            ) from None
        return
    # The caller's umask and the parent's set-gid bit have no say (invariant HH8).
    if gid != -1:
        os.chown(path, -1, gid)
    os.chmod(path, mode)
