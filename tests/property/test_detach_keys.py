# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rkt.stage1.common.attach import Keys

#: Few letters, so that beginnings of the keys are everywhere.
LETTERS = st.lists(st.sampled_from(b"ab"), max_size=40).map(bytes)


@given(keys=LETTERS.filter(lambda keys: 0 < len(keys) < 6), typed=LETTERS, cuts=st.lists(st.integers(0, 40)))
def test_keys_are_found_where_they_first_are(keys: bytes, typed: bytes, cuts: list[int]) -> None:
    """However what is typed is cut, all before the first detach keys is passed on, and nothing of them or after."""
    looking = Keys(keys)
    passed, has_left = b"", False
    bounds = [0, *sorted(cut for cut in cuts if cut < len(typed)), len(typed)]
    for start, end in itertools.pairwise(bounds):
        more, has_left = looking.look_for(typed[start:end])
        passed += more
        if has_left:
            break
    before, found, _ = typed.partition(keys)
    assert has_left == bool(found)
    if found:
        assert passed == before
    else:
        assert typed.startswith(passed)
        assert keys.startswith(typed[len(passed) :])
