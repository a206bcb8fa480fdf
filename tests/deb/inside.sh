#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What tests/deb/run.sh runs in the clean root: install, use or remove the package. Every line that fails ends it.
set -euo pipefail
shopt -s inherit_errexit

fail() {
    printf 'test-deb: %s\n' "$*" >&2
    exit 1
}
# expect PATTERN COMMAND…: the command succeeds and prints it
expect() {
    local pattern=$1 said
    shift
    said=$("$@" 2>&1) || fail "$* failed: $said"
    grep -q -- "$pattern" <<<"$said" || fail "$* does not say \"$pattern\": ${said:0:2000}"
}
# refuse PATTERN COMMAND…: the command fails and says so
refuse() {
    local pattern=$1 said
    shift
    ! said=$("$@" 2>&1) || fail "$* succeeded: $said"
    grep -q -- "$pattern" <<<"$said" || fail "$* does not say \"$pattern\": ${said:0:2000}"
}
installing() { apt-get -qq -o Dir::Cache::archives=/mnt/archives -o APT::Sandbox::User=root "$@" >/mnt/apt.log 2>&1 || {
    cat /mnt/apt.log >&2
    exit 1
}; }

do_install() {
    installing update
    installing install -y /mnt/rkt.deb
    # What the tour in /usr/share/doc/rkt/examples needs besides.
    installing install -y gpg gpg-agent busybox-static
    [ -z "$(dpkg --verify rkt)" ] || fail "files differ from the package: $(dpkg --verify rkt)"
    [ "$(stat -c '%a %U %G' /var/lib/rkt)" = '2750 root rkt' ] || fail 'the data directory has another owner or mode'
    [ "$(stat -c '%a %U %G' /etc/rkt)" = '2775 root rkt-admin' ] || fail 'the configuration directory has another owner or mode'
    [ -z "$(find /etc/systemd -name '*rkt*')" ] || fail 'a unit was enabled'
    expect "^rkt Version: " rkt version
    expect 'run image' rkt help run
    expect 'compdef' rkt completion zsh
    for file in man/man1/rkt.1.gz man/man1/rkt-run.1.gz bash-completion/completions/rkt zsh/vendor-completions/_rkt \
        fish/vendor_completions.d/rkt.fish; do
        [ -s "/usr/share/$file" ] || fail "there is no $file"
    done
    command -v systemd-nspawn >/dev/null || fail 'what the flavor nspawn needs is not recommended'
    systemd-analyze verify --man=no /usr/lib/systemd/system/rkt-*.{service,socket,timer} >/mnt/units.txt 2>&1 || true
    ! grep rkt /mnt/units.txt || fail 'systemd finds fault with a unit'
    installing install -y /mnt/rkt-keyless.deb
    [ -z "$(dpkg --verify rkt-keyless)" ] || fail 'files differ from the package'
    python3 -ISc 'import sys; sys.path.insert(0, "/usr/lib/rkt/site"); import sigstore.verify'
    for package in rkt rkt-keyless; do bill "$package"; done
}

# bill PACKAGE: the bill of materials has the files that dpkg has, as they are
bill() {
    python3 - "$1" <<'END'
import hashlib, json, os, sys
package = sys.argv[1]
bill = f"/usr/share/doc/{package}/sbom.cdx.json"
document = json.load(open(bill))
def files(component):
    if component["type"] == "file":
        yield component["name"], component["hashes"][0]["content"]
    for part in component.get("components", ()):
        yield from files(part)
listed = {name: digest for part in document["components"] for name, digest in files(part)}
for name, digest in listed.items():
    assert hashlib.sha256(open(name, "rb").read()).hexdigest() == digest, name
installed = [line.rstrip("\n") for line in open(f"/var/lib/dpkg/info/{package}.list")]
missing = [path for path in installed if os.path.isfile(path) and path not in listed]
assert missing == [bill], missing
print(f"test-deb: the bill of materials of {package} is right about {len(listed)} files")
END
}

# signed NAME: an image with busybox, signed by a key of this root, as the README has it
signed() {
    local file=/tmp/$1.aci
    mkdir -p /tmp/tree/bin
    cp /bin/busybox /tmp/tree/bin/busybox
    ln -sf busybox /tmp/tree/bin/sh
    rkt image create --name="example.com/$1:1.0" --rootfs=/tmp/tree "$file" -- /bin/busybox sh -c "${2:-true}" >/dev/null
    rkt image sign --key=ada@example.com "$file" >/dev/null 2>&1
    printf '%s\n' "$file"
}

# key: makes a signing key and trusts it for names below example.com
key() {
    gpg --batch --quiet --passphrase '' --quick-generate-key 'Ada <ada@example.com>' ed25519 sign never 2>/dev/null
    gpg --batch --armor --export ada@example.com >/tmp/key.asc
    rkt trust --prefix=example.com --skip-fingerprint-review /tmp/key.asc >/dev/null 2>&1
}

nothing_left() {
    ! grep ' /var/lib/rkt' /proc/self/mountinfo || fail 'mounts were left'
    [ -z "$(find /var/lib/rkt/pods/{run,exited-garbage,garbage} -mindepth 1)" ] || fail 'pods were left'
    ! pgrep_rkt || fail 'processes were left'
}
pgrep_rkt() {
    local line
    for line in /proc/[0-9]*/cmdline; do
        # Supervisors and workers are Python programs of ours; nothing else in this pid namespace is.
        if tr '\0' ' ' <"$line" 2>/dev/null | grep -E 'stage1|rkt/package'; then return 0; fi
    done
    return 1
}

do_use() {
    ip link set lo up 2>/dev/null || true
    /usr/share/doc/rkt/examples/demo.sh >/tmp/demo.txt 2>&1 || {
        cat /tmp/demo.txt >&2
        fail 'the tour failed'
    }
    cat /tmp/demo.txt
    grep -q 'Hello from hello: user 0' /tmp/demo.txt || fail 'nobody said hello'
    grep -q 'Seccomp:.2' /tmp/demo.txt || fail 'no system call filter'

    # What an administrator asks first.
    expect '^  ns *ready' rkt check-host
    expect '^  nspawn *ready' rkt check-host
    expect '^  fly *ready' rkt check-host

    # The directories of the package, and namespaces of the pod's own.
    key
    expect 'example.com' rkt trust list
    image=$(signed own "cd /proc/self/ns; for name in *; do busybox readlink \$name; done; echo host \$(busybox hostname)")
    said=$(rkt run --net=none "$image" 2>/dev/null)
    printf '%s\n' "$said"
    for name in pid mnt net ipc uts; do
        outside=$(readlink /proc/self/ns/$name)
        grep -q "^$name:" <<<"$said" || fail "the app does not see its $name namespace"
        ! grep -qF "$outside" <<<"$said" || fail "the pod has the $name namespace of its caller"
    done
    # The other flavours, as far as a root without systemd as its first process can have them.
    said=$(rkt run --net=host --stage1-name=coreos.com/rkt/stage1-fly "$image" 2>&1) || fail "fly: $said"
    grep -q '^pid:' <<<"$said" || fail "fly: the app was not run: $said"
    said=$(rkt run --net=none --stage1-name=coreos.com/rkt/stage1-nspawn "$image" 2>&1) || fail "nspawn: $said"
    grep -q '^pid:' <<<"$said" || fail "nspawn: the app was not run: $said"
    # As the default of this host.
    mkdir -p /etc/rkt/stage1.d
    python3 -c 'import json
image = json.load(open("/usr/lib/rkt/stage1-images/stage1.json"))["images"]["fly"]
kind = {"rktKind": "stage1", "rktVersion": "v1"}
print(json.dumps({**kind, "name": image["name"], "version": image["version"]}))' >/etc/rkt/stage1.d/default.json
    expect "$(readlink /proc/self/ns/pid | tr -d '[]' | cut -d: -f2)" rkt run --net=host "$image"
    rm /etc/rkt/stage1.d/default.json
    # With a network of the default kind, by Debian's plugins.
    said=$(rkt run "$(signed net 'busybox ip -4 addr show eth0')" 2>&1) || fail "the default network does not work: $said"
    grep -q 'inet 172\.16\.28\.' <<<"$said" || fail "no address: $said"
    rkt list
    rkt list --full --no-legend | cut -f1 | grep . >/mnt/pods
    rkt gc --grace-period=0 >/dev/null
    nothing_left

    # stage1 images are those of the list beside them, and no others.
    expect 'stage1.json' rkt why coreos.com/rkt/stage1-ns
    rkt why coreos.com/rkt/stage1-ns
    cp /usr/lib/rkt/stage1-images/stage1-ns.aci /tmp/other.aci
    refuse 'sign' rkt run --net=none --stage1-path=/tmp/other.aci "$image"
    cp -p /usr/lib/rkt/stage1-images/stage1-ns.aci /tmp/kept.aci
    printf x | dd of=/usr/lib/rkt/stage1-images/stage1-ns.aci bs=1 seek=100000 conv=notrunc 2>/dev/null
    refuse 'stage1' rkt --dir=/tmp/data run --net=none "$image"
    cp -p /tmp/kept.aci /usr/lib/rkt/stage1-images/stage1-ns.aci
    [ -z "$(dpkg --verify rkt)" ] || fail 'the package was not put right again'
}

do_remove() {
    image=$(signed long 'echo up; while :; do busybox sleep 1; done')
    rkt run --net=none --name=long "$image" >/mnt/long.txt 2>&1 &
    for _ in $(seq 100); do
        ! grep -q up /mnt/long.txt || break
        sleep 0.1
    done
    expect running rkt list
    dpkg --install /mnt/rkt.deb >/dev/null
    expect running rkt list
    expect alive rkt enter long /bin/busybox echo alive
    # A pod outlives its engine.
    dpkg --remove rkt-keyless rkt >/dev/null 2>&1
    [ -d /var/lib/rkt/pods/run ] || fail 'removal took data'
    [ -e /etc/rkt/trustedkeys ] || fail 'removal took configuration'
    jobs %1 >/dev/null || fail 'removal ended a pod'
    dpkg --purge rkt-keyless rkt >/mnt/purge.txt 2>&1
    grep -q 'left alone' /mnt/purge.txt || fail 'purging says nothing of the pod that runs'
    [ -d /var/lib/rkt/pods/run ] || fail 'purging took the data of a pod that runs'
    dpkg --install /mnt/rkt.deb >/dev/null
    rkt stop long >/dev/null 2>&1
    wait || true
    rkt gc --grace-period=0 >/dev/null
    nothing_left
    dpkg --purge rkt >/mnt/purge.txt 2>&1
    [ ! -s /mnt/purge.txt ] || ! grep -i 'warning\|error' /mnt/purge.txt || fail 'purging complains'
    left=$(find / -xdev \( -path /mnt -o -path /var/log -o -path /var/lib/apt \) -prune -o -name '*rkt*' -print)
    [ -z "$left" ] || fail "purging left $left"
    for path in /var/lib/rkt /etc/rkt /usr/lib/rkt /usr/bin/rkt /usr/share/doc/rkt; do
        [ ! -e "$path" ] || fail "purging left $path: $(find "$path" | head)"
    done
}

"do_$1"
