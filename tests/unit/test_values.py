# SPDX-License-Identifier: Apache-2.0
import pytest

from rkt.errors import InvalidManifest, RktError, UsageError
from rkt.values import (
    ACIdentifier,
    ACName,
    AppcReference,
    Digest,
    ImageID,
    ImageKey,
    PodUUID,
    TreeID,
    is_image_hash,
    is_number,
    key_prefix,
)

DIGITS = "0123456789abcdef" * 8
UUID = "6733c3d3-5e0d-4a3e-9d1c-1f2e3d4c5b6a"


@pytest.mark.parametrize(
    "text", ["a", "0", "example.com/x", "a--b", "a~b_c.d-e/f", "coreos.com/rkt/stage1-ns", "a..b", "a/.b"]
)
def test_identifiers_that_are_good(text: str) -> None:
    """An AC Identifier is kept as it is."""
    assert ACIdentifier.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "-a",
        "a-",
        "a/",
        "/a",
        ".a",
        "a b",
        "a\n",
        "a\0b",
        "a//b",
        "a/../b",
        "a/./b",
        "a/../../etc/passwd/b",
        "é",
        "٣",
        "x" * 256,
        7,
        None,
        ["a"],
    ],
)
def test_identifiers_that_are_bad(text: object) -> None:
    """What is no AC Identifier, or would climb as a path, is refused."""
    with pytest.raises(InvalidManifest, match="invalid AC identifier"):
        ACIdentifier.parse(text)


@pytest.mark.parametrize("text", ["a", "etcd-v2-0-0", "0a", "a--b", "x" * 255])
def test_names_that_are_good(text: str) -> None:
    """An AC Name is kept as it is."""
    assert ACName.parse(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", "a.b", "a/b", "a_b", "A", "..", "a\n", "x" * 256, 1, None])
def test_names_that_are_bad(text: object) -> None:
    """What is no AC Name is refused, with the kind of name in the message."""
    with pytest.raises(InvalidManifest, match="invalid volume name"):
        ACName.parse(text, what="volume name")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("etcd", "etcd"),
        ("etcd:v2.0.0", "etcd-v2-0-0"),
        ("Fedora_26", "fedora-26"),
        ("--a--", "a"),
    ],
)
def test_sanitize_name(text: str, name: str) -> None:
    """Text becomes an AC Name by lower case, dashes, and trimmed edges (spec cli §10.11)."""
    assert ACName.sanitize(text) == name


@pytest.mark.parametrize("text", ["", "---", "é", "../.."])
def test_sanitize_to_nothing(text: str) -> None:
    """Text of which nothing is left is an error."""
    with pytest.raises(InvalidManifest):
        ACName.sanitize(text)


def test_sanitize_identifier() -> None:
    """Text becomes an AC Identifier by lower case, underscores, and trimmed edges."""
    assert ACIdentifier.sanitize("/Registry/My App!x.") == "registry/my_app_x"


@pytest.mark.parametrize("length", [64, 128])
def test_image_key(length: int) -> None:
    """A key and a full image ID give the same key, with its two short forms."""
    key = ImageKey.parse(f"sha512-{DIGITS[:length]}")
    assert key == f"sha512-{DIGITS[:64]}"
    assert key.short == "sha512-0123456789ab"
    assert key.medium == f"sha512-{DIGITS[:32]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha512",
        "sha512-",
        "sha512-ab",
        f"sha512:{DIGITS[:64]}",
        f"sha256-{DIGITS}",
        f"sha256:{DIGITS[:63]}",
        f"sha1-{DIGITS[:64]}",
        f"sha512-{DIGITS[:63]}",
        f"sha512-{DIGITS[:63]}g",
        f"sha512-{DIGITS[:64].upper()}",
        f"sha512-{DIGITS[:62]}/.",
        f"sha512-{DIGITS[:64]}\n",
    ],
)
def test_image_key_that_is_bad(text: str) -> None:
    """Only sha512 or sha256 with the right number of lower-case digits names an image."""
    with pytest.raises(InvalidManifest):
        ImageKey.parse(text)
    with pytest.raises(InvalidManifest):
        ImageID.parse(text)


def test_image_id() -> None:
    """A full image ID knows its key; a key is no image ID."""
    assert ImageID.parse(f"sha512-{DIGITS}").key == ImageKey.parse(f"sha512-{DIGITS}")
    with pytest.raises(InvalidManifest):
        ImageID.parse(f"sha512-{DIGITS[:64]}")


@pytest.mark.parametrize("mark", ["-", ":"])
def test_oci_digest(mark: str) -> None:
    """A manifest's digest, written with a dash or as OCI writes it, is one key and one image ID."""
    key = ImageKey.parse(f"sha256{mark}{DIGITS[:64]}")
    assert key == ImageID.parse(f"sha256{mark}{DIGITS[:64]}").key == f"sha256-{DIGITS[:64]}"
    assert key.digest == f"sha256:{DIGITS[:64]}"
    assert key.short == "sha256-0123456789ab"
    assert key.is_oci
    assert not ImageKey.parse(f"sha512-{DIGITS[:64]}").is_oci


def test_trees_are_not_named_by_digests_of_manifests() -> None:
    """The ID of a rendered tree is a sha512."""
    assert TreeID.parse(f"deps-sha512-{DIGITS[:64]}")
    with pytest.raises(InvalidManifest):
        TreeID.parse(f"deps-sha256-{DIGITS[:64]}")


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("sha512-ab", "sha512-ab"),
        (f"sha512-{DIGITS}", f"sha512-{DIGITS[:64]}"),
        ("sha256:ab", "sha256-ab"),
        ("sha256-ab", "sha256-ab"),
    ],
)
def test_key_prefix(text: str, prefix: str) -> None:
    """A hash, or the beginning of one, is turned into what keys begin with."""
    assert key_prefix(text) == prefix


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha512-a", True),
        ("sha512-zz", True),
        (f"sha512-{DIGITS}", True),
        ("sha512-", False),
        ("sha512", False),
        ("sha512-a-b", False),
        ("sha256-ab", True),
        ("sha256:ab", True),
        ("sha256:1.36", False),
        ("sha256:", False),
        ("sha256", False),
        ("sha512:ab", False),
        ("sha1-ab", False),
        ("example.com/sha512-a", False),
    ],
)
def test_hash_syntax(text: str, expected: bool) -> None:
    """Hash syntax is one dash, sha512, and something after it (spec cli §5.1, §2.24)."""
    assert is_image_hash(text) is expected


def test_digest() -> None:
    """A digest knows its digits and the key of what it is of."""
    digest = Digest.parse(f"sha256:{DIGITS[:64]}")
    assert digest.hex == DIGITS[:64]
    assert digest.key == ImageKey.parse(digest)
    assert digest.key.digest == digest


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "sha256:",
        f"sha256-{DIGITS[:64]}",
        f"sha256:{DIGITS[:63]}",
        f"sha256:{DIGITS[:65]}",
        f"sha256:{'A' * 64}",
        f"sha512:{DIGITS}",
        f"SHA256:{DIGITS[:64]}",
        f"sha256:{DIGITS[:61]}/..",
        f"sha256:{DIGITS[:64]}\n",
        "sha256:../../../../etc/passwd",
    ],
)
def test_digest_that_is_bad(value: object) -> None:
    """A digest is sha256 and 64 lower-case hex digits and nothing else (invariant UN15)."""
    with pytest.raises(InvalidManifest, match="invalid digest"):
        Digest.parse(value)


@pytest.mark.parametrize("text", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_pod_uuid(text: str) -> None:
    """A UUID is read with and without dashes in any case, and written in one way."""
    uuid = PodUUID.parse(text)
    assert uuid == UUID
    assert uuid.short == "6733c3d3"


@pytest.mark.parametrize(
    "text", ["", "6733c3d3", UUID + "0", UUID[:-1] + "g", "0" * 32, UUID.replace("-", "/"), f"../{UUID[3:]}"]
)
def test_pod_uuid_that_is_bad(text: str) -> None:
    """A prefix, a path, or the nil UUID is no pod."""
    with pytest.raises(UsageError):
        PodUUID.parse(text)


def test_random_uuid() -> None:
    """A new UUID is well formed, of version 4, and new."""
    uuids = {PodUUID.random() for _ in range(100)}
    assert len(uuids) == 100
    assert all(PodUUID.is_uuid(uuid) and uuid[14] == "4" and uuid[19] in "89ab" for uuid in uuids)


@pytest.mark.parametrize(
    ("text", "name", "labels"),
    [
        ("example.com/x", "example.com/x", {}),
        ("example.com/x:1.0", "example.com/x", {"version": "1.0"}),
        (
            "example.com/x:1.0,channel=alpha,os=linux",
            "example.com/x",
            {"version": "1.0", "channel": "alpha", "os": "linux"},
        ),
        ("example.com/x,version=1.0", "example.com/x", {"version": "1.0"}),
        ("a,b=%2F+", "a", {"b": "%2F+"}),
        ("a,b=c=d", "a", {"b": "c=d"}),
    ],
)
def test_appc_string(text: str, name: str, labels: dict[str, str]) -> None:
    """The good rows of spec cli §5.2."""
    reference = AppcReference.parse(text)
    assert (reference.name, reference.labels) == (name, labels)
    assert AppcReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "example.com/x,channel=alpha:1.0",
            "malformed app string - colon may appear only right after the app name",
        ),
        ("a:1:2", "malformed app string - colon may appear at most once"),
        ("a:1,version=2", 'label "version" with multiple values'),
        ("a,b=1,b=2", 'label "b" with multiple values'),
        ("a,channel", 'label "channel" has no value'),
        ("a,channel=", 'label "channel" has no value'),
        ("a:", "the version is empty"),
        ("a,", 'label "" has no value'),
        ("a,name=b", "a label cannot be called name"),
        ("a,B=c", "invalid label name"),
        ("A", "invalid image name"),
        ("", "invalid image name"),
        ("a/../b", "invalid image name"),
    ],
)
def test_appc_string_that_is_bad(text: str, message: str) -> None:
    """The bad rows of spec cli §5.2, in rkt's words."""
    with pytest.raises(RktError) as caught:
        AppcReference.parse(text)
    assert message in str(caught.value)


def test_appc_string_order() -> None:
    """Labels print as version, os, arch, then by name, whatever their order was."""
    reference = AppcReference.parse("a,z=1,arch=amd64,b=2,os=linux,version=3")
    assert str(reference) == "a:3,os=linux,arch=amd64,b=2,z=1"
    assert hash(reference) == hash(AppcReference.parse("a:3,b=2,z=1,os=linux,arch=amd64"))


@pytest.mark.parametrize("text", ["0", "0017", "9" * 4300])
def test_numbers(text: str) -> None:
    """A number is digits of ASCII, no more than ``int`` takes, or than are wanted."""
    assert is_number(text)
    int(text)
    assert not is_number(text, most_digits=len(text) - 1)


@pytest.mark.parametrize("text", ["", "²", "٣", "१२", "-1", "+1", " 1", "1_000", "9" * 4301])
def test_what_is_no_number(text: str) -> None:
    """Neither digits of other scripts, of which ``int`` takes some and refuses others, nor anything around them."""
    assert not is_number(text)
