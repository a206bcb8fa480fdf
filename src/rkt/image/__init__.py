# SPDX-License-Identifier: Apache-2.0
"""Image archives: reading, unpacking, rebuilding, creating."""
