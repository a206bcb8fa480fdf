# SPDX-License-Identifier: Apache-2.0
"""Images put into a store without fetching, for tests of everything that comes after."""

from __future__ import annotations

import hashlib
import os

from rkt.schema import jsontext
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.record import ImageRecord
from rkt.store.staging import Staging
from rkt.trust.verdict import KIND_BUILTIN, KIND_INSECURE, KIND_OPENPGP, Verdict
from rkt.values import ACIdentifier, ImageID

#: A time after which nothing of these tests happened, seconds since the epoch.
LONG_AGO = 1_700_000_000
INSECURE = Verdict(
    kind=KIND_INSECURE, name="example.com/app", rule="--insecure-options=image", checked_at=LONG_AGO
)
BUILTIN = Verdict(
    kind=KIND_BUILTIN,
    name="example.com/stage1",
    rule="/images/stage1.json",
    checked_at=LONG_AGO,
    image_id="listed",
)
SIGNED = Verdict(
    kind=KIND_OPENPGP,
    name="example.com/app",
    rule="prefix example.com/app",
    checked_at=LONG_AGO,
    fingerprint="ab" * 20,
    identities=["Alice <alice@example.com>"],
    signed_at=LONG_AGO - 60,
)


def image_id(seed: str) -> ImageID:
    """An image ID that depends on the seed; ``sha512-…`` itself is taken as it is."""
    if seed.startswith("sha512-"):
        return ImageID.parse(seed.ljust(len("sha512-") + 128, "0"))
    return ImageID.parse("sha512-" + hashlib.sha512(seed.encode()).hexdigest())


def put_image(
    data_dir: str,
    name: str = "example.com/app",
    *,
    seed: str = "one",
    version: str | None = "1.0",
    verdict: Verdict = SIGNED,
    latest: bool = False,
    import_time_ns: int = LONG_AGO * 10**9,
    labels: dict[str, str] | None = None,
) -> ImageRecord:
    """Commit a tiny image; two seeds are two images."""
    setup_data_dir(data_dir)
    all_labels = {"os": "linux", "arch": "amd64", **(labels or {})}
    if version is not None:
        all_labels["version"] = version
    manifest = jsontext.dump(
        {
            "acKind": "ImageManifest",
            "acVersion": "0.8.11",
            "name": name,
            "labels": [{"name": key, "value": value} for key, value in all_labels.items()],
        }
    ).encode()
    identity = image_id(seed)
    record = ImageRecord(
        key=identity.key,
        image_id=identity,
        name=ACIdentifier.parse(name),
        labels=all_labels,
        import_time_ns=import_time_ns,
        origin="/images/app.aci",
        size_bytes=10240,
        tree_size_bytes=5,
        verdict=verdict,
        layers=[identity.key],
        manifest_digest=f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        latest=latest,
    )
    with Staging(data_dir) as staging:
        os.makedirs(f"{staging.path}/layer/rootfs", 0o755)
        for path, data in (("manifest", manifest), ("split", b"split"), ("layer/manifest", manifest)):
            with open(f"{staging.path}/{path}", "wb") as file:
                file.write(data)
        with open(f"{staging.path}/layer/rootfs/hello", "wb") as file:
            file.write(b"hello")
        return Store(data_dir).put(staging.path, staging.fd, record)


def refer(data_dir: str, state: str, pod: str, key: str, app: str = "app") -> None:
    """Make a pod directory that refers to an image, as far as the store looks at it."""
    directory = f"{data_dir}/pods/{state}/{pod}/appsinfo/{app}"
    os.makedirs(directory)
    with open(f"{directory}/treeStoreID", "w", encoding="ascii") as file:
        file.write(key)


def listing(directory: str) -> set[str]:
    """Paths of everything below a directory, relative to it."""
    return {
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, directories, files in os.walk(directory)
        for name in directories + files
    }
