#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Usage: build.sh OUTPUT.aci
set -eu
here=$(cd "$(dirname "$0")" && pwd)
image=$(mktemp -d)
trap 'rm -r "$image"' EXIT
mkdir -p "$image/rootfs/opt/stage2" "$image/rootfs/rkt/status"
case $(uname -m) in x86_64) arch=amd64 ;; i?86) arch=i386 ;; *) arch=$(uname -m) ;; esac
sed "s/@ARCH@/$arch/" "$here/manifest.json" > "$image/manifest"
install -m 755 "$here/stage1" "$image/rootfs/run"
for name in enter stop gc; do ln -s run "$image/rootfs/$name"; done
tar -C "$image" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$1" manifest rootfs
