# SPDX-License-Identifier: Apache-2.0
"""Pod directories and what is in them."""
