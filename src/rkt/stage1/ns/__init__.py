# SPDX-License-Identifier: Apache-2.0
"""The default flavour: namespaces and cgroups."""
