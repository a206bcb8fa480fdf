# SPDX-License-Identifier: Apache-2.0
"""``python -m rkt`` and the script that a wheel installs; ``make install`` writes a faster, isolated launcher."""

from __future__ import annotations

import os
import sys

from rkt.cli.main import main as cli_main
from rkt.config.settings import Installation


def installation() -> Installation:
    """Parts beside the package: a checkout's ``build``, else below the prefix."""
    package_path = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Workers start without ``site`` and are told where libraries are.
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    build = os.path.join(os.path.dirname(package_path), "build")
    if os.path.isdir(build):
        return Installation(
            package_path=package_path,
            library_paths=libraries,
            stage1_images_path=os.path.join(build, "stage1"),
            man_path=os.path.join(build, "man"),
        )
    return Installation(
        package_path=package_path,
        library_paths=libraries,
        stage1_images_path=os.path.join(sys.prefix, "lib/rkt/stage1-images"),
        man_path=os.path.join(sys.prefix, "share/man"),
    )


def main() -> int:
    """Run the command line of this process."""
    return cli_main(sys.argv, installation())


if __name__ == "__main__":
    sys.exit(main())
