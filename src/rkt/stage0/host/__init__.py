# SPDX-License-Identifier: Apache-2.0
"""What the host can do for pods: tried (``facts``), and judged (``judge``)."""
