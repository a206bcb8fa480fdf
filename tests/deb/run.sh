#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages in a clean Debian root and uses them there, in namespaces of their own; then takes them away.
# usage: tests/deb/run.sh PACKAGE      rkt_….deb, with rkt-keyless_….deb beside it
#
# The root is made by mmdebstrap from the package sources of this machine, for its suite (SUITE for another that they
# have), and kept as an archive in CACHE (~/.cache/rkt-test-deb); so are the packages. As root.
set -euo pipefail

package=$(readlink -f "${1:?usage: run.sh PACKAGE}")
keyless=$(dirname "$package")/rkt-keyless_${package##*/rkt_}
here=$(dirname "$(readlink -f "$0")")
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rkt-test-deb}
suite=${SUITE:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'test-deb: %s\n' "$*" >&2; }

if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
    say 'needs root, and mmdebstrap'
    exit 1
fi

# sources: what apt here has of Debian for the suite, as lines of a sources.list
sources() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suite="$suite" -v option="${keyring:+[signed-by=$keyring] }" \
            '$1 == "Debian" && ($3 == suite || index($3, suite "-") == 1) { print "deb " option $2, $3, $4 }' | sort -u
}

[ -e "$keyring" ] || keyring=
list=$(sources)
if [ -z "$list" ]; then
    say "apt has no lists of Debian's $suite: apt-get update"
    exit 1
fi
mkdir -p "$cache/archives/partial"
base=$cache/root-$(printf '%s' "$list" | sha256sum | cut -c1-16).tar
if [ ! -e "$base" ]; then
    say "making a root of Debian's $suite"
    printf '%s\n' "$list" | mmdebstrap --quiet --variant=minbase "$suite" "${base%.tar}.new.tar" -
    mv "${base%.tar}.new.tar" "$base"
fi

work=$(mktemp -d /var/tmp/rkt-test-deb.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir "$root"
tar -C "$root" --exclude='./dev/*' -xf "$base"
mkdir -p "$root/mnt/archives"
cp "$package" "$root/mnt/rkt.deb"
cp "$keyless" "$root/mnt/rkt-keyless.deb"
cp "$here/inside.sh" "$root/mnt/inside.sh"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/hosts "$root/etc/hosts"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# inside NAMESPACES… -- WORDS…: run the other script in the root; mounts and processes end with it
inside() {
    local namespaces=()
    while [ "$1" != -- ]; do
        namespaces+=("$1")
        shift
    done
    shift
    # shellcheck disable=SC2016 # for the shell below
    unshare --mount --propagation=private --pid --fork --kill-child "${namespaces[@]}" sh -ec '
        root=$1 archives=$2
        shift 2
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$archives" "$root/mnt/archives"
        cd "$root"
        pivot_root . srv
        exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive sh -c "umount -l /srv && exec bash \"\$@\"" sh "$@"
    ' sh "$root" "$cache/archives" /mnt/inside.sh "$@"
}

if command -v lintian >/dev/null; then
    say 'lintian'
    lintian --fail-on error,warning "$package" "$keyless"
fi
say "installing $(basename "$package") in a clean root"
inside -- install
say 'using it, in namespaces of its own'
inside --net --uts --ipc -- use
say 'installing it again, removing and purging it'
inside --net --uts --ipc -- remove
if grep -F "$work" /proc/self/mountinfo; then
    say 'mounts were left on the host'
    exit 1
fi
while read -r pod; do
    if find /sys/fs/cgroup -type d -name "*$pod*" | grep .; then
        say 'cgroups were left on the host'
        exit 1
    fi
done <"$root/mnt/pods"
say 'all of it holds'
