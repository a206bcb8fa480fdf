# SPDX-License-Identifier: Apache-2.0
"""The kernel's interfaces; standard library only, imports nothing of ours."""
