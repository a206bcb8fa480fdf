# SPDX-License-Identifier: Apache-2.0
"""What ``fly`` looks at before anything is made."""

from __future__ import annotations

from rkt.stage1.fly.plan import decode_environment, encode_environment


def test_environment_survives_its_file() -> None:
    """Values come back as they were: with line feeds, with an equals sign, empty."""
    environment = {b"A": b"one\ntwo", b"B": b"x=y", b"C": b"", b"D": b"\xff"}
    assert decode_environment(encode_environment(environment)) == environment
    assert decode_environment(b"") == {}
