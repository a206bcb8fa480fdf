# SPDX-License-Identifier: Apache-2.0
"""What the rkt program does before stage1 takes over."""
