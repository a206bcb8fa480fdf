# SPDX-License-Identifier: Apache-2.0
"""Networks of pods: configurations, plugins, what they answer, setting up and taking back."""
