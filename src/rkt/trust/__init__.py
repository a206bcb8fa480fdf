# SPDX-License-Identifier: Apache-2.0
"""Keys and signatures in, verdicts out; opens no socket."""
