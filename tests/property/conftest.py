# SPDX-License-Identifier: Apache-2.0
"""The same examples in every run, none kept; no deadlines, the machine has other work."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
