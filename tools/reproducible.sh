#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds source archive, wheel and Debian package of the last commit three times and compares the bytes: twice from clones
# at other paths, with another umask, locale, time zone and home, then wheel and packages from the source archive of the first.
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
checkout=$PWD
work=$(mktemp -d /var/tmp/rkt-reproducible.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/rkt/__init__.py)

say() { printf 'reproducible: %s\n' "$*" >&2; }

# build SOURCES OUTPUT: with the libraries of this checkout, which requirements/ pins
build() {
    ln -s "$checkout/.venv" "$1/.venv"
    make -s -C "$1" man completion >/dev/null 2>&1
    (cd "$1" && .venv/bin/python -I tools/build_dist.py --output "$2" && .venv/bin/python -I tools/build_deb.py --output "$2") >/dev/null
}

commit=$(git -c safe.directory='*' rev-parse HEAD)

# clone PATH: that commit, with the tag of a release, so that all versions are a release's
clone() {
    git -c safe.directory='*' clone -q --no-hardlinks --no-checkout "$checkout" "$1"
    git -C "$1" checkout -q --detach "$commit"
    git -C "$1" tag --force "v$version" >/dev/null
    # A link is not what .gitignore means.
    echo /.venv >>"$1/.git/info/exclude"
}

# unpacked DIRECTORY: the Debian packages in it become directories, so that diff can name files
unpacked() {
    local package
    for package in "$1"/*.deb; do
        dpkg-deb --raw-extract "$package" "$package.files"
        rm "$package"
    done
}

say 'first'
(
    umask 022
    clone "$work/one"
    LC_ALL=C.UTF-8 TZ=UTC HOME=/root build "$work/one" "$work/first"
)
say 'second: another path, umask, locale, time zone and home'
(
    umask 077
    mkdir "$work/home"
    clone "$work/another, and much longer, path"
    LC_ALL=C LANG=tr_TR.UTF-8 TZ=Pacific/Kiritimati HOME=$work/home \
        build "$work/another, and much longer, path" "$work/second"
)
say 'third: from the source archive of the first'
(
    umask 027
    mkdir "$work/archive"
    tar -C "$work/archive" -xf "$work/first/rkt-$version.tar.gz"
    build "$work/archive/rkt-$version" "$work/third"
)
# The third has links and build results in its tree, of which its own archive would be made.
rm "$work/third/rkt-$version.tar.gz"
for other in second third; do
    # shellcheck disable=SC2046 # names without spaces
    diff -u <(cd "$work/first" && sha256sum -- $(ls "$work/$other")) <(cd "$work/$other" && sha256sum -- *) || {
        say "the $other build differs from the first:"
        unpacked "$work/first" && unpacked "$work/$other"
        diff -rq "$work/first" "$work/$other" >&2 && say 'the same files, in archives that differ'
        exit 1
    }
done
(cd "$work/first" && sha256sum -- *)
say 'three builds, the same bytes'
