# SPDX-License-Identifier: Apache-2.0
"""Getting image bytes; never judges them."""
