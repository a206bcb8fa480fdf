# SPDX-License-Identifier: Apache-2.0
"""Copies the libraries rkt imports from the virtual environment into an installation; needs no network.

Exactly the versions of a file in ``requirements/`` are copied, file by file as the distributions list them; an
environment that holds others is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil

from packaging.requirements import Requirement


def requirement_lines(path: str, *, with_comments: bool = False) -> list[str]:
    """The lines of a file in ``requirements/``, each without its digests."""
    with open(path, encoding="utf-8") as stream:
        text = stream.read().replace("\\\n", " ")
    lines = [line.partition(" --hash=")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and (with_comments or not line.startswith("#"))]


def required(path: str) -> list[Requirement]:
    """Requirements of the file that apply to this interpreter."""
    wanted = [Requirement(line) for line in requirement_lines(path)]
    return [requirement for requirement in wanted if not requirement.marker or requirement.marker.evaluate()]


#: What an installer writes into a distribution's metadata about itself and the environment.
_OF_THE_INSTALLER = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def copy(requirement: Requirement, target: str) -> None:
    """Copy the files of one distribution; scripts, byte code and the installer's notes stay behind."""
    distribution = importlib.metadata.distribution(requirement.name)
    if not requirement.specifier.contains(distribution.version):
        raise SystemExit(f"{requirement} is wanted, .venv has {distribution.version}: run make setup")
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts or file.name in _OF_THE_INSTALLER:
            continue
        destination = os.path.join(target, str(file))
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        shutil.copyfile(str(distribution.locate_file(file)), destination)


def main() -> None:
    """Copy them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirements", required=True)
    parser.add_argument("--target", required=True)
    options = parser.parse_args()
    for requirement in required(options.requirements):
        copy(requirement, options.target)


if __name__ == "__main__":
    main()
