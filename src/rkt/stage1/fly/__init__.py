# SPDX-License-Identifier: Apache-2.0
"""The flavour that isolates nothing but the root directory: for agents of the host, whose images are verified all the same."""
