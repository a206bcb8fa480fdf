# SPDX-License-Identifier: Apache-2.0
"""Random trees in random layers with whiteouts: what the kernel mounts, what is copied and a simple model are the same."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt.image.export import extract_image, verify_image
from rkt.linux.files import remove_tree
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.oci import FilledLayer, put_oci
from rkt.store.staging import Staging
from rkt.values import ImageKey
from tests.lib.isolated import run_isolated
from tests.lib.layer_model import (
    DIRECTORY,
    FILE,
    OPAQUE,
    PATHS,
    WHITEOUT,
    Entry,
    Tree,
    apply,
    read,
    settle,
    tar_of,
)
from tests.lib.layers import mounted, oci_image, sha256, unpack

if TYPE_CHECKING:
    from rkt.store.record import ImageRecord

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and set what overlayfs obeys"),
]

ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([FILE, DIRECTORY, DIRECTORY, WHITEOUT, OPAQUE]),
        st.sampled_from(PATHS),
        st.sampled_from([0o755, 0o711, 0o700]),
    ),
    max_size=7,
)


def commit(data: str, tars: list[bytes]) -> ImageRecord:
    """Put an image into a store, its layers unpacked in this process."""
    from pathlib import Path

    setup_data_dir(data)
    image, _ = oci_image(tars)
    with Staging(data) as staging:
        filled = {}
        for tar in tars:
            key = ImageKey.parse(f"sha256-{sha256(tar)}")
            if key not in filled:
                unpacked = unpack(Path(staging.path) / key, tar)
                assert unpacked.rebuild() == tar
                filled[key] = FilledLayer(
                    key=key, digest=sha256(tar), path=str(unpacked.tree), split_path=str(unpacked.split)
                )
        return put_oci(Store(data), staging, image, list(filled.values()))


@settings(max_examples=40)
@given(st.lists(ENTRIES, min_size=1, max_size=4))
def test_layers_over_each_other(drawn: list[list[Entry]]) -> None:
    """The kernel's overlay and the copy show what a model that deletes and writes has; the store finds nothing changed."""
    from pathlib import Path

    expected: Tree = {}
    tars = []
    for number, entries in enumerate(drawn):
        settled = settle(entries, expected)
        tars.append(tar_of(settled, str(number)))
        expected = apply(expected, settled, str(number))
    base = tempfile.mkdtemp(prefix="rkt-layers-")
    try:
        data = f"{base}/data"
        record = commit(data, tars)

        def look() -> Tree:
            with mounted(data, record, Path(base) / "mount") as root:
                return read(str(root))

        assert run_isolated(look) == expected
        store = Store(data)
        extract_image(store, record.key, f"{base}/copy", rootfs_only=True, overwrite=False)
        assert read(f"{base}/copy") == expected
        assert verify_image(store, record.key) == []
    finally:
        remove_tree(base)
