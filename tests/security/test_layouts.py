# SPDX-License-Identifier: Apache-2.0
"""Image layouts and archives that lie, or that lead out of themselves (invariants UN2, UN11, UN14 to UN16, HH3)."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import RktError
from rkt.fetch import opener
from tests.lib import aci, layouts
from tests.lib.sources import bring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root
IMAGE = layouts.make_image(layouts.layer({"etc/a": b"a" * 3000}))


def name_of(image: layouts.Image, what: str) -> str:
    """File of a blob in a layout."""
    if what == "manifest":
        text = image.digest
    else:
        entry = image.document["config"] if what == "config" else image.document["layers"][0]
        text = str(entry["digest"])
    return f"blobs/sha256/{text.removeprefix('sha256:')}"


def files(index: bytes | None = None) -> dict[str, bytes]:
    """A layout that is in order."""
    return layouts.layout_files(index or layouts.make_index(IMAGE.descriptor()), IMAGE.blobs)


def flip(data: bytes) -> bytes:
    """Other bytes of the same number."""
    return data[:-1] + bytes([data[-1] ^ 1])


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "other": flip,
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"\n",
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_a_blob_that_is_not_what_it_is_called(tmp_path: Path, kind: str, what: str, how: str) -> None:
    """UN15: manifest, configuration and layer are refused when their bytes or their size are not what named them says."""
    content = files()
    name = name_of(IMAGE, what)
    content[name] = CHANGES[how](content[name])
    path = f"{tmp_path}/image"
    if kind == "oci":
        layouts.write_files(path, content)
    else:
        layouts.write_tar(path, content)
    with pytest.raises(RktError, match="has other content" if how == "other" else "must have .* bytes, but"):
        bring(tmp_path, f"{kind}:{path}")


@pytest.mark.parametrize("what", ["index.json", "oci-layout", "manifest", "config", "layer", "directory"])
def test_a_link_out_of_the_layout(tmp_path: Path, what: str) -> None:
    """UN2: no file of a layout, and no directory in it, may be a link that leads out of it."""
    path = f"{tmp_path}/layout"
    content = files()
    layouts.write_files(path, content)
    layouts.write_files(f"{tmp_path}/outside", content)
    name = "blobs/sha256" if what == "directory" else what if what in content else name_of(IMAGE, what)
    os.rename(f"{path}/{name}", f"{tmp_path}/away")
    os.symlink(f"{tmp_path}/outside/{name}", f"{path}/{name}")
    with pytest.raises(RktError, match=r"no readable .*: Invalid cross-device link"):
        bring(tmp_path, f"oci:{path}")


@pytest.mark.parametrize("name", ["", "../index.json", "/etc/passwd", "blobs/sha256/x", "A" * 64, "a" * 63])
def test_only_files_of_layouts_are_opened(tmp_path: Path, name: str) -> None:
    """HH3: whatever a worker asks for, the command opens nothing but the two documents and blobs."""
    path = layouts.write_layout(f"{tmp_path}/layout", IMAGE)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(RktError, match="not a file of an image layout"):
            opener.open_file(fd, name)
    finally:
        os.close(fd)


def test_a_pipe_instead_of_a_file(tmp_path: Path) -> None:
    """UN18: a named pipe in the place of a document neither blocks nor is read."""
    path = layouts.write_layout(f"{tmp_path}/layout", IMAGE)
    os.unlink(f"{path}/index.json")
    os.mkfifo(f"{path}/index.json")
    with pytest.raises(RktError, match=r"no readable index\.json: not a regular file"):
        bring(tmp_path, f"oci:{path}")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "loop", "missing"])
def test_a_docker_archive_that_leads_out(tmp_path: Path, target: str) -> None:
    """UN1, UN2: paths and links of a Docker archive mean its own members and nothing of the host."""
    entries = [aci.symlink("loop", "loop"), aci.symlink("link", target)]
    for config in (target, "link"):
        index: list[object] = [{"Config": config, "RepoTags": None, "Layers": []}]
        path = layouts.write_tar(f"{tmp_path}/d.tar", {"manifest.json": json.dumps(index).encode()}, entries)
        with pytest.raises(RktError, match="the archive has no file"):
            bring(tmp_path, f"docker-archive:{path}")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    """UN12: a member that an archive has twice is not used, since readers differ in which one counts."""
    index = layouts.json_bytes(layouts.make_index().decode())
    entry = aci.Entry("./index.json", content=index)
    path = layouts.write_tar(f"{tmp_path}/o.tar", files(), [entry])
    with pytest.raises(RktError, match=r"has 'index\.json' more than once"):
        bring(tmp_path, f"oci-archive:{path}")


@pytest.mark.parametrize("is_there", [True, False])
def test_another_image_with_the_name_of_a_digest(tmp_path: Path, *, is_there: bool) -> None:
    """SG3: a digest means the image that has it, whatever a layout calls by that name."""
    other = layouts.make_image(layouts.layer({"etc/b": b"b"}))
    entries = [layouts.named(other, IMAGE.digest), *([IMAGE.descriptor()] if is_there else [])]
    path = layouts.write_layout(f"{tmp_path}/layout", IMAGE, other, index=layouts.make_index(*entries))
    if is_there:
        assert bring(tmp_path, f"oci:{path}:{IMAGE.digest}").resolved.digest == IMAGE.digest
    else:
        with pytest.raises(RktError, match="there is no image"):
            bring(tmp_path, f"oci:{path}:{IMAGE.digest}")


def test_a_layer_that_two_documents_size_differently(tmp_path: Path) -> None:
    """UN15: a Docker archive with other layers than its configuration lists is refused."""
    content = layouts.docker_files(IMAGE)
    index = json.loads(content["manifest.json"])
    index[0]["Layers"] *= 2
    content["manifest.json"] = json.dumps(index).encode()
    path = layouts.write_tar(f"{tmp_path}/d.tar", content)
    with pytest.raises(RktError, match="lists 2 layers, but the configuration has 1 diff IDs"):
        bring(tmp_path, f"docker-archive:{path}")


def test_a_layer_of_a_docker_archive_with_other_bytes(tmp_path: Path) -> None:
    """UN15: a layer of a Docker archive must have the diff ID that the configuration lists."""
    content = layouts.docker_files(IMAGE)
    name = f"{hashlib.sha256(IMAGE.tars[0]).hexdigest()}/layer.tar"
    content[name] = flip(content[name])
    path = layouts.write_tar(f"{tmp_path}/d.tar", content)
    with pytest.raises(RktError, match="has other content"):
        bring(tmp_path, f"docker-archive:{path}")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (b'{"schemaVersion":2,"manifests":[],"manifests":[]}', "twice"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}', "both an index and a manifest"),
        (b'{"schemaVersion":2', "is not JSON: Expecting ',' delimiter"),
        (b" " * (5 << 20), "too large"),
        (b"[" * 1000, "nested|JSON"),
        (layouts.make_index(), "has no image"),
        (layouts.make_index(IMAGE.descriptor(urls=["https://example.com/x"])), "foreign URLs"),
        (layouts.make_index({**IMAGE.descriptor(), "digest": "sha256:../../etc/passwd"}), "invalid digest"),
        (layouts.make_index({**IMAGE.descriptor(), "digest": "sha512:" + "a" * 128}), "invalid digest"),
        (layouts.make_index({**IMAGE.descriptor(), "size": -1}), "size"),
        (
            layouts.make_index({**IMAGE.descriptor(), "mediaType": f"{layouts.OCI}.index.v1+json"}),
            "announced|index",
        ),
    ],
    ids=[
        "twice",
        "both",
        "broken",
        "large",
        "deep",
        "empty",
        "urls",
        "path",
        "sha512",
        "negative",
        "confused",
    ],
)
def test_hostile_documents(tmp_path: Path, index: bytes, expected: str) -> None:
    """UN14 to UN16: an index that is too large or too deep, says things twice, or is not what it is called, is refused."""
    path = f"{tmp_path}/layout"
    layouts.write_files(path, files(index))
    with pytest.raises(RktError, match=expected):
        bring(tmp_path, f"oci:{path}")


def test_an_archive_that_explodes(tmp_path: Path) -> None:
    """UN10: a compressed archive that becomes far larger than it is is refused while it is unpacked."""
    content = {"big": bytes(80 << 20), **files()}
    path = layouts.write_tar(f"{tmp_path}/o.tar", content, compression="bzip2")
    with pytest.raises(RktError, match="expands more than 250 times"):
        bring(tmp_path, f"oci-archive:{path}")


def test_a_truncated_archive(tmp_path: Path) -> None:
    """UN17: an archive that ends early is refused, also inside the content of a member."""
    path = layouts.write_tar(f"{tmp_path}/o.tar", {**files(), "last": bytes(100_000)})
    os.truncate(path, os.path.getsize(path) - 60_000)
    with pytest.raises(RktError, match="the tar is truncated"):
        bring(tmp_path, f"oci-archive:{path}")
