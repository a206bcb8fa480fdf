# SPDX-License-Identifier: Apache-2.0
"""Kind ``network`` of ``network.d``: what pods get that are run without ``--net``."""

from __future__ import annotations

from rkt.config.files import read_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings

#: Where nothing is configured.
USUAL = ("default",)


def load_default_networks(settings: Settings) -> list[str]:
    """Values of ``--net`` for commands without it, of the last directory that has any.

    Raises:
        ConfigError: a file is not what it must be.
    """
    values = list(USUAL)
    for directory in settings.config_dirs:
        for file in read_directory(f"{directory}/network.d", ("network",)):
            own = file.texts("default")
            if not own:
                raise file.error('"default" names no network')
            values = own
    return values
