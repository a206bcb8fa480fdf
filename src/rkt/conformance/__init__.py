# SPDX-License-Identifier: Apache-2.0
"""The conformance kit of the stage1 contract: ``rkt stage1 check``."""
