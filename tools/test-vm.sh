#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs tests on another host, such as a virtual machine with systemd and cgroup v2. docs/devel/testing.md says how.
# usage: tools/test-vm.sh [WORD…]     words for pytest
#        tools/test-vm.sh build       let TESTBED make its machine, with the packages that the tests need
#
#   TESTBED=PROGRAM      has `start`, `stop`, `exec -i COMMAND` and `build`, and does one machine with them
#   TEST_HOST=COMMAND    or: runs the shell command that is its last argument as root elsewhere, e.g. 'ssh root@host'
#   RKT_TEST_SLOWNESS=N  how many times slower than usual that host is: longer waits, fewer repetitions
#   RKT_TEST_FLAVORS=…   flavours of stage1 that tests of pods run with, see tests/lib/flavors.py
#   TEST_JOBS=N          processes of pytest over there
#
# The tree goes there with its .venv, so a host of the same distribution needs no network. Report and log come back
# into build/test-vm. The exit status is that of pytest, 125 when the host could not be made to run it.
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
there=/srv/rkt-test
results=build/test-vm
: "${RKT_TEST_SLOWNESS:=15}" "${TEST_JOBS:=2}"

say() { printf 'test-vm: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 125
}

# Runs one shell command on the other host; standard input goes along.
remote() {
    if [ -n "${TESTBED:-}" ]; then
        "$TESTBED" exec -i "$1"
    else
        # shellcheck disable=SC2086 # a command and its arguments
        $TEST_HOST "$1"
    fi
}

# What is tracked or could be, as it is in the working tree, and the libraries (compiled, as that takes a slow host
# minutes) without those of linters.
send_tree() {
    { git ls-files -z --cached --others --exclude-standard && printf '%s\0' .venv; } |
        tar --create --exclude=.venv/bin/ruff --exclude='*__mypyc.*' --exclude='site-packages/mypy' \
            --exclude='site-packages/mypyc' --ignore-failed-read --null --files-from=- |
        remote "rm -rf $there && mkdir -p $there && tar --extract --no-same-owner --directory $there"
}

packages() { awk '$1 == "run" || $1 == "test" { print $2 }' tools/debian-packages.txt | tr '\n' ' '; }

if [ -z "${TESTBED:-}${TEST_HOST:-}" ]; then
    die 'which host? TESTBED=/path/to/testbed.sh or TEST_HOST="ssh root@host", see docs/devel/testing.md'
fi
if [ "${1:-}" = build ]; then
    [ -n "${TESTBED:-}" ] || die 'build needs TESTBED'
    TESTBED_PACKAGES="${TESTBED_PACKAGES:-} $(packages)" exec "$TESTBED" build
fi

mkdir -p "$results"
rm -f "$results"/{junit.xml,log}
# A machine that is running already is used, and left running.
if [ -n "${TESTBED:-}" ] && ! "$TESTBED" exec true </dev/null 2>/dev/null; then
    "$TESTBED" start || die "$TESTBED start failed"
    trap '"$TESTBED" stop' EXIT
fi
say 'sending the tree'
send_tree || die 'could not send the tree'
say 'setting it up'
remote "cd $there && tools/setup.sh test" </dev/null || die 'could not set the tree up'
say "running $*"
quoted=$(printf ' %q' "$@")
status=0
remote "cd $there && RKT_TEST_SLOWNESS=$RKT_TEST_SLOWNESS RKT_TEST_FLAVORS=${RKT_TEST_FLAVORS:-} .venv/bin/python -m pytest -p no:cacheprovider \
 -n $TEST_JOBS --dist=worksteal -v --durations=25 --junitxml=$results/junit.xml$quoted" </dev/null 2>&1 |
    tee "$results/log" || status=${PIPESTATUS[0]}
remote "cat $there/$results/junit.xml" </dev/null >"$results/junit.xml" || die 'no report came back'
say "log and report are in $results"
exit "$status"
