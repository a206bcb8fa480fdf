# SPDX-License-Identifier: Apache-2.0
"""The last steps as the app's own process."""
