# SPDX-License-Identifier: Apache-2.0
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from rkt.errors import InvalidManifest
from rkt.schema import jsontext


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b" \r\n\t[1, 2.5, -3e2, true, null] \n", [1, 2.5, -300.0, True, None]),
        ('"é\\u00e9\\ud83d\\ude00"', "éé😀"),
        (b'"\xf0\x9f\x98\x80"', "😀"),
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b'["\\"[[[",' + b"{}," * 100 + b"1]", ['"[[[', *[{}] * 100, 1]),
    ],
)
def test_documents_that_are_good(data: bytes | str, value: Any) -> None:
    """A document within the limits gives its value."""
    assert jsontext.parse(data, what="document") == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a value is expected at character 0"),
        (b"  ", "a value is expected"),
        (b"{", "is not JSON"),
        (b'{"a":', "a value is expected"),
        (b'{"a"}', "is not JSON"),
        (b"[1,]", "is not JSON"),
        (b"{1:2}", "is not JSON"),
        (b"'a'", "a value is expected"),
        (b'"abc', "is not JSON"),
        (b'"a\nb"', "is not JSON"),
        (b'"\\x"', "is not JSON"),
        (b"01", "extra data at character 1"),
        (b"{} {}", "extra data at character 3"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'"\xff"', "is not JSON"),
        (b'{"a":1,"a":2}', 'member "a" appears twice'),
        (b'[{"b":{"a":1,"\\u0061":2}}]', 'member "a" appears twice'),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "out of range"),
        (b"1" * 5000, "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b'{"\\udc80":1}', "is not JSON"),
        ('"\udcff"', "is not JSON"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
        (b'{"a":' * 100_000, "nested deeper than 64 levels"),
    ],
)
def test_documents_that_are_bad(data: bytes | str, message: str) -> None:
    """What is not one well-formed document within the limits is refused, and says which document it is."""
    with pytest.raises(InvalidManifest) as caught:
        jsontext.parse(data, what="the pod manifest")
    assert str(caught.value).startswith("the pod manifest")
    assert message in str(caught.value)


def test_size_limit() -> None:
    """A document of the limit's size is read, one byte more is not."""
    assert jsontext.parse(b'"' + b"x" * 98 + b'"', what="document", limit_bytes=100) == "x" * 98
    with pytest.raises(InvalidManifest, match="too large: 101 bytes, at most 100"):
        jsontext.parse(b'"' + b"x" * 99 + b'"', what="document", limit_bytes=100)
    with pytest.raises(InvalidManifest, match="too large"):
        jsontext.parse(b" " * (jsontext.MAX_DOCUMENT_BYTES + 1), what="document")


@pytest.mark.parametrize("value", [{}, [], {"b": 1, "a": [True, None, 2.5, 'é"\n\x7f']}, "x", 10**40])
def test_dump(value: Any) -> None:
    """Compact text keeps the order of members and reads back the same."""
    text = jsontext.dump(value)
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert jsontext.parse(text, what="document") == value


def test_dump_pretty() -> None:
    """Pretty text is indented by tabs."""
    assert jsontext.dump_pretty({"a": ["é"]}) == '{\n\t"a": [\n\t\t"é"\n\t]\n}'


@pytest.mark.parametrize("value", [math.inf, math.nan, object(), {1, 2}, b"x", {(): 1}])
def test_values_without_json_form(value: Any) -> None:
    """What JSON cannot say is an error, never a guess."""
    with pytest.raises((ValueError, TypeError)):
        jsontext.dump([value])


def test_first_error_of_a_fresh_interpreter() -> None:
    """A malformed document is refused as such although the json package was never loaded."""
    program = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from rkt.schema import jsontext; from rkt.errors import InvalidManifest\n"
        "assert jsontext.parse(b'{}', what='d') == {} and jsontext.dump({}) == '{}'\n"
        "assert 'json' not in sys.modules and 're' not in sys.modules\n"
        "try: jsontext.parse(b'{\"a\"}', what='d')\n"
        "except InvalidManifest as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("d is not JSON: Expecting ':' delimiter")
