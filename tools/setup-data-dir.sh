#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes the groups rkt and rkt-admin, the data directory and the configuration directory, with their owners and modes.
# usage: setup-data-dir.sh TMPFILES-CONF       the list of directories, dist/tmpfiles.d/rkt.conf as installed
# Safe to run again; directories that exist get the owner and mode of the list, what is in them is left alone.
set -euo pipefail

list=${1:?usage: setup-data-dir.sh TMPFILES-CONF}

for group in rkt rkt-admin; do
    getent group "$group" >/dev/null || groupadd --system "$group"
done
while read -r kind path mode owner group _; do
    [ "$kind" = d ] || continue
    if [ -L "$path" ] || { [ -e "$path" ] && [ ! -d "$path" ]; }; then
        printf 'setup-data-dir: %s is not a directory\n' "$path" >&2
        exit 1
    fi
    mkdir -p -- "$path"
    chown -- "$owner:$group" "$path"
    # Five digits: with four, chmod would keep an inherited set-group-id bit.
    chmod -- "0$mode" "$path"
done <"$list"
