# SPDX-License-Identifier: Apache-2.0
"""The metadata service: what pods may ask about themselves, and who answers them."""
