# SPDX-License-Identifier: Apache-2.0
"""Shared by all flavours: pod manifest to plan."""
