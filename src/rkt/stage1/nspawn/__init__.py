# SPDX-License-Identifier: Apache-2.0
"""The flavour whose pods are run by systemd: systemd-nspawn around them, systemd inside, a unit for each app."""
