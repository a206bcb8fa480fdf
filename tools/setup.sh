#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sets up a checkout: packages of the host, a private virtual environment, bin/rkt and the stage1 image.
# usage: tools/setup.sh [GROUP…]      groups of tools/debian-packages.txt besides "run"
# A second run finds everything in place and ends within a second.
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
root=$PWD
groups=" run $* "

say() { printf 'setup: %s\n' "$*" >&2; }

# retry N COMMAND…: package servers are not always up
retry() {
    local left=$1 pause=2
    shift
    until "$@"; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then return 1; fi
        say "trying again in $pause s: $*"
        sleep "$pause"
        pause=$((pause * 2))
    done
}

# Prints the path of the first interpreter that is new enough. /usr/bin comes first: wrappers in a user's PATH cost
# more than the interpreter itself.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -z "$candidate" ] || ! command -v "$candidate" >/dev/null; then continue; fi
        "$candidate" -I -S -c 'import os, sys
sys.version_info >= (3, 11) or sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null && return 0
    done
    return 1
}

is_present() {
    local kind=${1%%:*} value=${1#*:} directory
    case $kind in
    command) PATH=$PATH:/usr/sbin:/sbin command -v "$value" >/dev/null ;;
    file) compgen -G "$value" >/dev/null ;;
    library)
        for directory in /lib /usr/lib /lib64 /usr/lib64 /usr/local/lib /lib/*-linux-gnu /usr/lib/*-linux-gnu; do
            [ -e "$directory/$value" ] && return 0
        done
        return 1
        ;;
    python)
        # An environment that is in place needs no tools to make one.
        [ -x .venv/bin/python ] && return 0
        local interpreter
        interpreter=$(find_python) && "$interpreter" -I -c "import $value, venv" 2>/dev/null
        ;;
    esac
}

missing_packages() {
    local group package probe purpose
    while read -r group package probe purpose; do
        case $group in '' | \#*) continue ;; esac
        [[ $groups == *" $group "* ]] || continue
        is_present "$probe" || printf '%-16s %s\n' "$package" "$purpose"
    done <tools/debian-packages.txt
}

install_packages() {
    local missing names
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say 'this is missing on the host (names of Debian packages):'
        printf '%s\n' "$missing" | sed 's/^/    /' >&2
        say 'install it, or run make as root on Debian, which installs it'
        exit 1
    fi
    names=$(printf '%s\n' "$missing" | awk '{ printf "%s ", $1 }')
    say "installing $names"
    export DEBIAN_FRONTEND=noninteractive
    # Tests start a registry of their own; nobody asked for one that serves the network from now on.
    case " $names" in
        *' docker-registry '*) [ ! -d /run/systemd/system ] || systemctl -q mask docker-registry.service ;;
    esac
    # The lists may be absent (an empty machine) or stale (a package that is gone): update only then.
    # shellcheck disable=SC2086 # a list of words
    if ! apt-get install -y -q --no-install-recommends $names >build/apt.log 2>&1; then
        retry 4 apt-get update -q >>build/apt.log 2>&1 || say 'apt-get update failed, see build/apt.log'
        # shellcheck disable=SC2086 # a list of words
        retry 4 apt-get install -y -q --no-install-recommends $names >>build/apt.log 2>&1 || {
            tail -n 20 build/apt.log >&2
            say "could not install $names"
            exit 1
        }
    fi
    missing=$(missing_packages)
    if [ -n "$missing" ]; then
        say 'still missing after installation:'
        printf '%s\n' "$missing" | sed 's/^/    /' >&2
        exit 1
    fi
}

install_environment() {
    local wanted
    wanted=$(cat requirements/*.txt | sha256sum | cut -d' ' -f1)
    if [ -x .venv/bin/python ] && [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ] &&
        .venv/bin/python -I -S -c ''; then
        return 0
    fi
    local interpreter
    interpreter=$(find_python) || {
        say 'Python 3.11 or newer is needed; set PYTHON to its path'
        exit 1
    }
    if ! { [ -x .venv/bin/python ] && .venv/bin/python -I -c 'import pip' 2>/dev/null; }; then
        say "making .venv with $interpreter"
        rm -rf .venv
        "$interpreter" -I -m venv .venv
    fi
    say 'installing Python libraries into .venv'
    : >build/pip.log
    local file
    for file in build dev; do
        # Without isolation a library that must be built is built by what build.txt has, not by what an index has today.
        retry 4 .venv/bin/python -I -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
            --no-build-isolation --requirement "requirements/$file.txt" >>build/pip.log 2>&1 || {
            tail -n 20 build/pip.log >&2
            say "could not install the Python libraries of requirements/$file.txt"
            exit 1
        }
    done
    printf '%s\n' "$wanted" >.venv/installed
}

build_launcher() {
    local library_path
    [ bin/rkt -nt tools/rkt.in ] && [ bin/rkt -nt tools/build_launcher.py ] && [ bin/rkt -nt .venv/installed ] &&
        grep -qF "'$root/src'" bin/rkt && return 0
    library_path=$(.venv/bin/python -I -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    .venv/bin/python -I tools/build_launcher.py --output "$root/bin/rkt" --package-path "$root/src" \
        --library-path "$library_path" --stage1-images-path "$root/build/stage1" --man-path "$root/build/man"
    say 'wrote bin/rkt'
}

mkdir -p build
install_packages
install_environment
build_launcher
.venv/bin/python -I -S tools/build_stage1.py --output build/stage1
