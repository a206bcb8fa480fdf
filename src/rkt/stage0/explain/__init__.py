# SPDX-License-Identifier: Apache-2.0
"""What a pod may reach, and who gives it that: of a command line before there is a pod, or of a pod on disk."""
