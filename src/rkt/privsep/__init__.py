# SPDX-License-Identifier: Apache-2.0
"""Confined workers that read foreign bytes."""
