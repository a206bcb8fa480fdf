# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Each does its own set-up; nothing else has to be installed by hand.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
DATA_DIR ?= /var/lib/rkt
SYSCONF_DIR ?= /etc
#: optional libraries to install too: keyless (docs/trust.md)
EXTRAS ?=
#: words for pytest, such as TESTS='tests/unit -x'
TESTS ?= tests
#: processes of pytest for the whole suite; much of it waits, and each process starts many others
JOBS ?= 2
SHELL_FILES := tools/setup.sh tools/demo.sh tools/install.sh tools/setup-data-dir.sh tools/test-vm.sh .ci/run \
	tools/reproducible.sh tests/deb/run.sh tests/deb/inside.sh dist/debian/postinst dist/debian/prerm dist/debian/postrm
#: what `make test-vm` leaves out unless TESTS is given: how images come and are judged is the same on every host
NOT_IN_VM := $(addprefix functional/test_,auth build crash_fetch crash_matrix demo dependencies discovery disks fetch formats \
	image_sign_oci install keyless lock oci_create oci_export oci_layouts oci_store parallel_fetch power_cut progress push \
	registry registry_fetch resume several_images short_names simple_signing store store_maintenance trust \
	trust_discovery trust_policy trust_rules unpack_ahead why) \
	$(addprefix security/test_,evidence fetch hostile_archives index keyless layouts registry signatures \
	trust_invariants)
VM_TESTS := tests/functional tests/security tests/unit/linux $(NOT_IN_VM:%=--ignore=tests/%.py)
#: what `make soak` runs unless TESTS is given
SOAK_TESTS := $(addprefix tests/functional/test_,crash_matrix.py power_cut.py crash_networks.py crash_pods.py \
	crash_fetch.py crash_live.py mixed_workers.py scale.py)
PYTHON_FILES := src tests tools
VENV := .venv/bin

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## packages (as root on Debian), .venv, bin/rkt, stage1 image
	@tools/setup.sh

.PHONY: setup-test
setup-test:
	@tools/setup.sh test

.PHONY: setup-check
setup-check:
	@tools/setup.sh test check

.PHONY: demo
demo: setup-test ## build, sign, trust, fetch and run a small image
	@tools/demo.sh

.PHONY: test
test: setup-test ## the whole test suite
	@$(VENV)/python -m pytest $(if $(filter file,$(origin TESTS)),-n $(JOBS) --dist=loadfile) $(TESTS)

.PHONY: test-flavors
test-flavors: FLAVORS = all
test-flavors: setup-test ## tests of pods with every flavour of stage1: FLAVORS=nspawn,fly
	@RKT_TEST_FLAVORS=$(FLAVORS) $(VENV)/python -m pytest -m pods -n $(JOBS) --dist=loadfile \
	    $(if $(filter file,$(origin TESTS)),tests/functional tests/security,$(TESTS))

.PHONY: test-vm
test-vm: setup-test ## tests on another host: TESTBED=/path/to/testbed.sh or TEST_HOST='ssh root@host'
	@tools/test-vm.sh $(if $(filter file,$(origin TESTS)),$(VM_TESTS),$(TESTS))

.PHONY: soak
soak: MINUTES = 10
soak: setup-test ## the long parts, hours: crash matrix, power cuts, thousands of pods, MINUTES=10 of mixed work; SEED=N
	@RKT_TEST_SOAK_SECONDS=$$(($(MINUTES) * 60)) RKT_TEST_SOAK_SEED=$(or $(SEED),0) $(if $(SEED),RKT_TEST_FAULTS_SEED=$(SEED)) \
	    RKT_TEST_FAULTS=-1 RKT_TEST_MORE=10 RKT_TEST_POWER_CUTS=300 RKT_TEST_NETWORK_KILLS=118 RKT_TEST_SCALE=10000,1000,200 \
	    $(VENV)/python -m pytest -s $(if $(filter file,$(origin TESTS)),$(SOAK_TESTS),$(TESTS))

.PHONY: fuzz
fuzz: SECONDS = 60
fuzz: setup-test ## readers of hostile bytes under atheris: TARGET=name, SECONDS=N for each, SEED=N for the same choices again
	@PYTHONPATH=src:. $(VENV)/python -m tests.fuzz.engine $(TARGET) --seconds=$(SECONDS) --seed=$(or $(SEED),0) \
	    --corpus=build/fuzz/corpus

.PHONY: check
check: setup-check man ## linters, types, shell scripts, import budget, man pages
	$(VENV)/ruff check $(PYTHON_FILES)
	$(VENV)/ruff format --check $(PYTHON_FILES)
	$(VENV)/mypy
	shellcheck $(SHELL_FILES)
	$(VENV)/python -m pytest -q tests/style

.PHONY: man
man: setup ## man pages, into build/man
	@$(VENV)/python -I tools/build_man.py --output build/man

.PHONY: completion
completion: setup ## completion scripts, into build/completion
	@$(VENV)/python -I tools/build_completion.py --output build/completion

.PHONY: bench
bench: setup-test man completion ## start latency, memory and fetching beside the peers installed; BENCH=--write updates docs/performance.md
	@tools/install.sh install "$(CURDIR)/build/installed" / /var/lib/rkt /etc >/dev/null
	@PYTHONPATH=src:. $(VENV)/python -m tests.bench.bench $(BENCH)

.PHONY: install
install: setup man completion ## install below PREFIX (and DESTDIR), EXTRAS=keyless with identities; as root also groups and the data directory
	@tools/install.sh install "$(PREFIX)" "$(DESTDIR)" "$(DATA_DIR)" "$(SYSCONF_DIR)" "$(EXTRAS)"

.PHONY: uninstall
uninstall: ## remove what install put below PREFIX; images, pods and configuration stay
	@tools/install.sh uninstall "$(PREFIX)" "$(DESTDIR)" "$(DATA_DIR)" "$(SYSCONF_DIR)"

.PHONY: deb
deb: setup man completion ## Debian packages, into build/release
	@$(VENV)/python -I tools/build_deb.py --output build/release

.PHONY: test-deb
test-deb: deb ## install them in a clean Debian root, use it there, purge it: root and mmdebstrap
	@tests/deb/run.sh "$$(ls -t build/release/rkt_*.deb | head -n 1)"

.PHONY: dist
dist: setup ## source archive and wheel of the last commit, into build/release
	@$(VENV)/python -I tools/build_dist.py --output build/release

.PHONY: reproducible
reproducible: setup ## build source archive, wheel and package three times and compare the bytes
	@tools/reproducible.sh

.PHONY: release
release: setup man completion ## everything, signed: KEY=ID of your GnuPG; SNAPSHOT=1 to try without a tag
	@$(VENV)/python -I tools/release.py --key "$(or $(KEY),$(error KEY is missing: KEY=ID of a secret key of your GnuPG))" \
	    $(if $(SNAPSHOT),--snapshot)

.PHONY: clean
clean: ## remove what was built, but not .venv
	rm -rf build bin/rkt .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +
