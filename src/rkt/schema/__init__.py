# SPDX-License-Identifier: Apache-2.0
"""Documents of the standards: bytes <-> records, no I/O."""
