# SPDX-License-Identifier: Apache-2.0
"""Flavours of isolation; stage0 never imports them."""
