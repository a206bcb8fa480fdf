# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from rkt.errors import InvalidManifest
from rkt.schema.quantity import quantity_text, to_thousandths, to_units


@pytest.mark.parametrize(
    ("text", "units", "thousandths"),
    [
        ("0", 0, 0),
        ("1", 1, 1000),
        ("+1", 1, 1000),
        ("-0", 0, 0),
        ("500m", 1, 500),
        ("16m", 1, 16),
        ("0.0001", 1, 1),
        ("1.5", 2, 1500),
        (".5", 1, 500),
        ("2.", 2, 2000),
        ("4096", 4096, 4096000),
        ("1k", 1000, 1000000),
        ("1K", 1000, 1000000),
        ("50M", 50_000_000, 50_000_000_000),
        ("16G", 16 * 10**9, 16 * 10**12),
        ("1T", 10**12, 10**15),
        ("1P", 10**15, 10**18),
        ("1E", 10**18, None),
        ("1Ki", 1024, 1024000),
        ("25Mi", 26214400, 26214400000),
        ("42Mi", 44040192, 44040192000),
        ("1.5Gi", 1610612736, 1610612736000),
        ("1Ti", 2**40, 2**40 * 1000),
        ("1Pi", 2**50, 2**50 * 1000),
        ("7Ei", 7 * 2**60, None),
        ("12e3", 12000, 12000000),
        ("12E+3", 12000, 12000000),
        ("1e-3", 1, 1),
        ("5E0", 5, 5000),
        ("9223372036854775807", 2**63 - 1, None),
    ],
)
def test_amounts(text: str, units: int, thousandths: int | None) -> None:
    """Every suffix and exponent gives the exact amount, fractions rounded up."""
    assert to_units(text, "limit") == units
    if thousandths is not None:
        assert to_thousandths(text, "limit") == thousandths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "-",
        ".",
        "m",
        "Mi",
        "x",
        "1 M",
        " 1",
        "1\n",
        "1mi",
        "1ki",
        "1KI",
        "1B",
        "1MB",
        "1n",
        "1u",
        "1e",
        "1e+",
        "1e5M",
        "1e1.5",
        "1e19",
        "1e99999999999",
        "0x10",
        "1_000",
        "٣",
        "1.2.3",
        "1" * 65,
        "-1",
        "-0.001",
        "8Ei",
        "9223372036854775808",
    ],
)
def test_amounts_that_are_bad(text: str) -> None:
    """What is outside the grammar, negative, or beyond 63 bits is refused."""
    with pytest.raises(InvalidManifest, match="invalid limit"):
        to_units(text, "limit")


@pytest.mark.parametrize(
    ("value", "text"), [("16M", "16M"), (4194304, "4194304"), (0.1, "0.1"), (1e16, "1e+16")]
)
def test_json_values(value: object, text: str) -> None:
    """JSON strings and numbers are quantities alike."""
    assert quantity_text(value, "limit") == text


@pytest.mark.parametrize("value", [True, None, [], {}, "", "1x", math.inf, math.nan, -1, 10**70])
def test_json_values_that_are_bad(value: object) -> None:
    """Other JSON values are no quantities."""
    with pytest.raises(InvalidManifest, match="invalid limit"):
        quantity_text(value, "limit")
