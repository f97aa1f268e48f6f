# The whole developer surface: `make help` lists it. All that is built stands under .venv/; `make clean` removes it.
# Another Python than the system's: make PYTHON=python3.13 test

PYTHON ?= python3
export PYTHON

# LiteRT has no 32-bit wheels; tflite-runtime has, for Python 3.11. Expanded late: a fresh machine has no Python yet.
LITERT = $(shell $(PYTHON) -c 'import sys; print("litert," if sys.maxsize > 2**32 else "")')

WHEEL := .venv/wheel/.built
SOURCES := $(shell find edged -not -path '*/__pycache__*') pyproject.toml README.md LICENSE

# make deb RELEASE=13 ARCH=arm64 REVISION=2
RELEASE ?= $(shell . /etc/os-release && echo "$$VERSION_ID")
ARCH ?= $(shell dpkg --print-architecture)
REVISION ?= 1
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' edged/__init__.py)
DEB = .venv/deb/edged_$(VERSION)-$(REVISION)~deb
FEDERATED_DEB = .venv/deb/edged-federated_$(VERSION)-$(REVISION)~deb
# make hosts DEBIAN=13: the Debian of the hosts that tests boot
DEBIAN ?= 12
HOST_DEBS = $(foreach package,$(DEB) $(FEDERATED_DEB),$(package)$(DEBIAN)_$(ARCH).deb)
HOST_ROOT = .venv/hosts/$(DEBIAN)/root

DEBS = $(foreach package,$(DEB) $(FEDERATED_DEB),$(if $(ALL),$(foreach release,12 13,$(foreach arch,amd64 arm64,$(package)$(release)_$(arch).deb)),$(package)$(RELEASE)_$(ARCH).deb))

# The suites that `make test-all` runs behind `make test`, the longest first, and how many of them side by side.
SUITES := hosts federated hub integration faults keystores oracles second interop
JOBS ?= 2
# What `make test` has shown is not shown twice.
REST = $(if $(ALL_SUITES),not promise or real_models)

.DELETE_ON_ERROR:
.PHONY: help demo test test-all rest $(SUITES:%=test-%) check bench faults hosts arm64 deb lock clean always say-demo say-test

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /  make \1\t/p' $(MAKEFILE_LIST)

demo: say-demo .venv/demo/.installed  ## the whole loop on this machine: a sealed model in, sealed results out
	@.ci/apt mosquitto
	.venv/demo/bin/edged demo

test: say-test .venv/test/.installed  ## show that what edged promises is true on this machine
	@.ci/apt mosquitto faketime
	@EDGED_MODELS="$(CURDIR)/tests/models" .ci/suite test test '(unit or promise) and not real_models' unit integration faults hub

# --- everything -----------------------------------------------------------------------------

test-all:  ## `make test` and all other suites, with a table at the end
	@$(MAKE) --no-print-directory test || true
	@$(MAKE) --no-print-directory rest

# Shows what `make test` has not shown; its table has both.
rest:
	@.ci/suites "$(MAKE)" $(JOBS) $(SUITES)

test-integration: .venv/dev/.installed  ## the daemon, its commands and its brokers, as users run them
	@.ci/apt mosquitto rabbitmq-server nats-server gdb faketime strace python3-systemd
	@.ci/suite integration dev '$(REST)' integration

test-faults: .venv/dev/.installed  ## a short form of each of `make faults`
	@.ci/apt mosquitto nftables iproute2 e2fsprogs
	@.ci/suite faults dev '$(REST)' faults

test-keystores: .venv/dev/.installed  ## keys on tokens and in TPMs
	@.ci/apt mosquitto softhsm2 swtpm tpm2-openssl p11-kit p11-kit-modules
	@.ci/suite keystores dev '' keystores

test-oracles: .venv/dev/.installed  ## features against pandas and scipy; real models with known answers
	@.ci/suite oracles dev 'not unit or real_models' oracles unit

test-second: .venv/second/.installed  ## units and oracles on another Python
	@.ci/apt softhsm2
	@.ci/suite second second '' unit oracles keystores/test_pkcs11.py

test-interop: .venv/interop/.installed  ## COSE of other libraries
	@.ci/suite interop interop '' interop

test-federated: .venv/federated/.installed .venv/train/.installed  ## boards that learn together, with Flower and TensorFlow
	@.ci/apt mosquitto nginx
	@EDGED_TENSORFLOW="$(CURDIR)/.venv/train/bin/python" .ci/suite federated federated '' federated --dist loadgroup

test-hub: .venv/dev/.installed .venv/node/.installed .venv/homeassistant/.installed  ## the hub, with Home Assistant, Node-RED, NATS, Chromium
	@.ci/apt mosquitto nats-server chromium chromium-driver nginx
	@.ci/suite hub dev '$(REST)' hub

test-hosts: .venv/dev/.installed .venv/ansible/.installed .venv/hosts/$(DEBIAN)/.made $(HOST_DEBS)  ## Debian hosts with systemd: package, units, Ansible; needs root
	@.ci/apt mosquitto faketime
	@EDGED_HOSTS=$${EDGED_HOSTS:-2} EDGED_HOST_ROOT="$(CURDIR)/$(HOST_ROOT)" .ci/suite hosts dev '' hosts --dist loadfile

hosts:  ## as test-hosts, with three hosts and every playbook
	@EDGED_HOSTS=3 $(MAKE) --no-print-directory test-hosts

faults: .venv/dev/.installed  ## kill, cut, flood, fuzz, soak and break it, for as long as is claimed: two hours; figures are printed
	@.ci/apt mosquitto nftables iproute2 e2fsprogs
	@EDGED_JOBS=0 EDGED_FAULTS=1 EDGED_FUZZ=100000 EDGED_CASES=1000000 .ci/suite faults dev '' faults -s

check: .venv/check/.installed  ## lint, formatting, types, layers
	.venv/check/bin/ruff check
	.venv/check/bin/ruff format --check
	.venv/check/bin/mypy edged
	.venv/check/bin/lint-imports --no-logo

bench: .venv/bench/.installed  ## measure against the script that one would write by hand
	@.ci/apt mosquitto
	.venv/bench/bin/python benchmarks/run.py

arm64: $(DEB)12_arm64.deb  ## the package for arm64, tried with a real model under qemu-user; needs root
	.ci/arm64 .venv/arm64/root $< "$${EDGED_MODELS:-../shared/models}"

deb: $(DEBS)  ## the Debian packages for this machine, in .venv/deb; make deb ALL=1: for Debian 12 and 13, amd64 and arm64

lock: $(WHEEL)  ## pin anew what the Debian packages hold; needs a Python 3.11 and a 3.13
	deploy/debian/lock .venv/wheel/*.whl

clean:  ## remove everything that was built
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# --- what the targets stand on ---------------------------------------------------------------

say-demo:
	@[ -e .venv/demo/.installed ] || echo "Setting up: a minute, mostly downloads of 60 MB. The demo itself takes half a minute."

say-test:
	@[ -e .venv/test/.installed ] || echo "Setting up: a minute or two, mostly downloads of 80 MB."
	@echo "The tests take about five minutes on two cores."

$(WHEEL): $(SOURCES) .venv/build/.installed
	@rm -rf $(@D)
	@.venv/build/bin/python -m hatchling build -t wheel -d $(@D) >/dev/null
	@touch $@

.venv/build/.installed: .venv/python
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check 'hatchling~=1.27' 'uv~=0.13'
	@touch $@

# An environment a line: what of edged is installed, and which groups of pyproject.toml beside it.
define environment
@.ci/venv $(@D) "$(PYTHON)" "$(1)" $(2)
@touch $@
endef
comma := ,

ENVIRONMENTS := demo test check dev federated train bench second interop
$(ENVIRONMENTS:%=.venv/%/.installed): Makefile .ci/venv

.venv/demo/.installed: $(WHEEL)
	$(call environment,$(LITERT))

.venv/test/.installed: $(WHEEL)
	$(call environment,$(LITERT)image,test)

.venv/check/.installed: $(WHEEL)
	$(call environment,image$(comma)pkcs11,test check)

.venv/dev/.installed: $(WHEEL)
	@.ci/apt gcc headers pkg-config libtss2-dev
	$(call environment,$(LITERT)image$(comma)pkcs11$(comma)tpm2,test oracles bench fuzz)

# Flower is exact about what else is there; TensorFlow is large, and makes models that the others run.
.venv/federated/.installed: $(WHEEL)
	$(call environment,$(LITERT)image$(comma)pkcs11$(comma)federated,test oracles curves)

.venv/train/.installed: $(WHEEL)
	$(call environment,$(LITERT)train)

.venv/bench/.installed: $(WHEEL)
	$(call environment,$(LITERT)image,bench)

.venv/second/.installed: $(WHEEL)
	@.ci/venv $(@D) "$$(.ci/another-python)" "$(LITERT)image,pkcs11" test oracles
	@touch $@

# An environment of its own: everything else is tested on the cbor2 that users get.
.venv/interop/.installed: $(WHEEL)
	$(call environment,$(LITERT)image,test interop)

# The stem says for what: 12_amd64. One rule each: of a rule with two patterns make expects both files at once.
DEB_SOURCES := $(WHEEL) $(shell find -L deploy/debian deploy/aggregator systemd docs -type f) README.md CHANGELOG.md
define build-deb
@.ci/apt readelf
@deploy/debian/build $(subst _, ,$*) .venv/wheel/*.whl $@
endef

$(DEB)%.deb: $(DEB_SOURCES)
	$(build-deb)

$(FEDERATED_DEB)%.deb: $(DEB_SOURCES)
	$(build-deb)

# examples/javascript, and a Node-RED, for tests/hub; without npm those tests skip, saying so.
.venv/node/.installed: tests/hub/node/package.json tests/hub/node/.npmrc
	@rm -rf $(@D) && mkdir -p $(@D)
	@if command -v npm >/dev/null; then \
	    cp $^ $(@D) && npm install --silent --prefix $(@D); \
	else \
	    echo "This machine has no npm: the tests of examples/javascript and examples/node-red are skipped"; \
	fi
	@touch $@

# Home Assistant runs on Python 3.13 alone.
.venv/homeassistant/.installed: tests/hub/homeassistant-requirements.txt .venv/build/.installed
	@.ci/venv $(@D) "$$(.ci/another-python 3.13)" - -r $<
	@touch $@

.venv/ansible/.installed: tests/hosts/ansible-requirements.txt .venv/build/.installed
	@.ci/venv $(@D) "$(PYTHON)" - -r $<
	@touch $@

# What `make clean` could not remove again is not made.
.venv/hosts/%/.made: .ci/host-root
	@if [ "$$(id -u)" = 0 ]; then \
	    .ci/apt debootstrap systemd-container openssh-client iproute2 && .ci/host-root $* $(@D)/root; \
	else \
	    mkdir -p $(@D) && echo "Not root: the tests with real hosts are skipped"; \
	fi
	@touch $@

# Changes when the Python does, and takes every environment with it.
.venv/python: always
	@.ci/apt venv
	@mkdir -p $(@D)
	@$(PYTHON) -c 'import sys; print(sys.prefix, sys.version)' >$@.new
	@cmp --quiet $@.new $@ || cp $@.new $@
