#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A tour in two screens: make an image, sign it, trust the key, fetch, run, look, clean up.
# With the engine of a checkout everything lives in its build/demo, with that of a package in a temporary directory; so
# does the signing key. Nothing of the host's is touched. Needs gpg, gpg-agent and a static busybox.
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
start=$PWD
if [ -x "$start/bin/rkt" ]; then
    program=$start/bin/rkt
    demo=$start/build/demo
    whose='bin/rkt with a data directory and a configuration of its own, below build/demo'
else
    program=$(command -v rkt) || {
        echo 'demo: there is no rkt: make setup, or install the package' >&2
        exit 1
    }
    demo=$(mktemp -d /tmp/rkt-demo-data.XXXXXX)
    whose="$program with a data directory and a configuration of its own, below $demo"
fi
image=example.com/hello
key='Demo key <demo@example.com>'

if [ "$(id -u)" != 0 ]; then
    echo 'demo: pods are started with namespaces, mounts and cgroups, which needs root: sudo make demo' >&2
    exit 1
fi

if [ -t 1 ]; then
    bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
    bold='' dim='' plain=''
fi

say() { printf '\n%s# %s%s\n' "$dim" "$*" "$plain"; }

# show WORDS…: print the command as a reader would type it, then run it
show() {
    printf '%s$ %s%s\n' "$bold" "$(quoted "$@")" "$plain"
    "$@"
}

quoted() {
    local word line=
    for word; do
        case $word in
        *[!A-Za-z0-9_./:=,@%+-]* | '') word="'$word'" ;;
        esac
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}

rkt() {
    "$program" --dir="$demo/data" --local-config="$demo/config" --system-config="$demo/vendor" "$@"
}

finish() {
    local status=$?
    trap - EXIT
    if [ -d "$demo/data/pods" ]; then
        rkt gc --grace-period=0 --expire-prepared=0 >/dev/null 2>&1 || status=1
    fi
    GNUPGHOME=$gnupg gpgconf --kill all 2>/dev/null || true
    cd "$start"
    rm -rf --one-file-system "$demo" "$gnupg" || status=1
    exit "$status"
}

rm -rf --one-file-system "$demo"
mkdir -p "$demo"
# Not below build/: the path of the key agent's socket is limited to 107 bytes.
gnupg=$(mktemp -d /tmp/rkt-demo.XXXXXX)
trap finish EXIT
trap 'exit 130' INT TERM
cd "$demo"

say "rkt stands for $whose."

say 'A root file system: one static program under the names it answers to.'
show mkdir -p hello/bin
show cp "$(command -v busybox)" hello/bin/busybox
for name in sh id hostname grep uname; do
    ln -s busybox "hello/bin/$name"
done
cat >hello/hello <<'END'
#!/bin/sh
echo "Hello from $AC_APP_NAME: user $(id -u), process $$ of host $(hostname), Linux $(uname -r)."
grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
END
chmod 755 hello/hello

say 'An image of it. The same input gives the same bytes, so anybody can check your image.'
show rkt image create --name="$image:1.0" --rootfs=hello hello.aci -- /hello

say 'Nobody has signed it, so it does not run.'
show rkt fetch ./hello.aci || true

say 'A signing key, made for this demo. You would use your own.'
export GNUPGHOME=$gnupg
show gpg --batch --quiet --passphrase '' --quick-generate-key "$key" ed25519 sign never
show rkt image sign --key=demo@example.com hello.aci
gpg --batch --armor --export demo@example.com >key.asc

say 'Trust the key, for names below example.com/hello and no others.'
show rkt trust --prefix="$image" --skip-fingerprint-review key.asc

say 'Now it is verified, and kept.'
show rkt fetch ./hello.aci
show rkt image list

say 'And it runs: a pod with namespaces, a system call filter and 11 capabilities at most.'
show rkt run --net=none --name=greeter "$image"

say 'What was run, what it said, and how it ended.'
show rkt list
show rkt logs greeter
show rkt gc --grace-period=0

say 'All of it is gone again. Next: README.md, and rkt help.'
