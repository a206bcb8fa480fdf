# SPDX-License-Identifier: Apache-2.0
"""A container engine without a daemon."""

__version__ = "0.1.0"
