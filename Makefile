# The whole developer surface: `make help` lists it. All that is built stands under .venv/; `make clean` removes it.
# Another Python than the system's: make PYTHON=python3.13 test

PYTHON ?= python3
export PYTHON

# LiteRT has no 32-bit wheels; tflite-runtime has, for Python 3.11. Expanded late: a fresh machine has no Python yet.
LITERT = $(shell $(PYTHON) -c 'import sys; print("litert" if sys.maxsize > 2**32 else "")')

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

DEBS = $(foreach package,$(DEB) $(FEDERATED_DEB),$(if $(ALL),$(foreach release,12 13,$(foreach arch,amd64 arm64,$(package)$(release)_$(arch).deb)),$(package)$(RELEASE)_$(ARCH).deb))

.DELETE_ON_ERROR:
.PHONY: help demo test homeassistant check bench faults hosts arm64 deb lock clean always

help:  ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*  ## /  make \1\t/p' $(MAKEFILE_LIST)

demo: .venv/demo/.installed  ## run the whole loop on this machine: a sealed model in, sealed results out
	@.ci/apt mosquitto
	.venv/demo/bin/edged demo

test: .venv/test/.installed .venv/second/.installed .venv/interop/.installed .venv/federated/.installed .venv/train/.installed .venv/node/.installed homeassistant .venv/ansible/.installed .venv/hosts/$(DEBIAN)/.made $(HOST_DEBS)  ## run all tests, against the built wheel
	@.ci/apt mosquitto rabbitmq-server nats-server gdb faketime strace softhsm2 swtpm p11-kit p11-kit-modules nftables iproute2 e2fsprogs chromium chromium-driver python3-systemd nginx
	@if [ -x .venv/second/bin/pytest ]; then \
	    (set -x; cd tests && ../.venv/second/bin/pytest unit); \
	else \
	    echo "This machine has no second Python from 3.11 to 3.13: the unit tests run on one alone"; \
	fi
	cd tests && ../.venv/interop/bin/pytest interop
	cd tests && EDGED_TENSORFLOW="$(CURDIR)/.venv/train/bin/python" ../.venv/federated/bin/pytest federated
	cd tests && EDGED_HOSTS=2 EDGED_HOST_ROOT="$(CURDIR)/.venv/hosts/$(DEBIAN)/root" ../.venv/test/bin/pytest --ignore=interop --ignore=federated

homeassistant: .venv/homeassistant/.installed  ## a real Home Assistant for the tests, in an environment of its own

check: .venv/test/.installed  ## lint, formatting, types, layers
	.venv/test/bin/ruff check
	.venv/test/bin/ruff format --check
	.venv/test/bin/mypy edged
	.venv/test/bin/lint-imports --no-logo

bench: .venv/bench/.installed  ## measure against the script that one would write by hand
	@.ci/apt mosquitto
	.venv/bench/bin/python benchmarks/run.py

faults: .venv/test/.installed  ## kill, cut, flood, fuzz and soak, for as long as is claimed: two hours; figures are printed
	@.ci/apt mosquitto nftables iproute2 e2fsprogs
	cd tests && EDGED_FAULTS=1 EDGED_FUZZ=100000 ../.venv/test/bin/pytest -s faults

hosts: .venv/test/.installed .venv/ansible/.installed .venv/hosts/$(DEBIAN)/.made $(HOST_DEBS)  ## boards as they are: Debian hosts with systemd, the package, Ansible; needs root
	@.ci/apt mosquitto faketime
	cd tests && EDGED_HOSTS=3 EDGED_HOST_ROOT="$(CURDIR)/.venv/hosts/$(DEBIAN)/root" ../.venv/test/bin/pytest -s hosts

arm64: $(DEB)12_arm64.deb  ## the package for arm64, tried with a real model under qemu-user; needs root
	.ci/arm64 .venv/arm64/root $< "$${EDGED_MODELS:-../shared/models}"

deb: $(DEBS)  ## the Debian packages for this machine, in .venv/deb; make deb ALL=1: for Debian 12 and 13, amd64 and arm64

lock: $(WHEEL)  ## pin anew what the Debian packages hold; needs a Python 3.11 and a 3.13
	deploy/debian/lock .venv/wheel/*.whl

clean:  ## remove everything that was built
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Neither pytest nor what it starts may pick up the source tree by standing in it.
test faults hosts: export PYTHONSAFEPATH := 1

# --- what the targets stand on ---------------------------------------------------------------

$(WHEEL): $(SOURCES) .venv/build/.installed
	@rm -rf $(@D)
	.venv/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(@D) .
	@touch $@

.venv/build/.installed: .venv/python
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check 'hatchling~=1.27'
	@touch $@

.venv/demo/.installed: $(WHEEL)
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl "$(LITERT)"
	@touch $@

.venv/test/.installed: $(WHEEL)
	@.ci/apt gcc headers pkg-config libtss2-dev
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl "dev,tpm2,fuzz,bench,$(LITERT)"
	@touch $@

# Flower is exact about what else is there; TensorFlow is large, and makes models that the others run.
.venv/federated/.installed: $(WHEEL)
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl "dev,federated,$(LITERT)" 'dp-accounting~=0.6' 'matplotlib~=3.11'
	@touch $@

.venv/train/.installed: $(WHEEL)
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl "train,$(LITERT)"
	@touch $@

.venv/bench/.installed: $(WHEEL)
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl "bench,$(LITERT)"
	@touch $@

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

.venv/homeassistant/.installed: tests/hub/homeassistant-requirements.txt
	@rm -rf $(@D) && mkdir -p $(@D)
	@python=$$(.ci/another-python 3.13) && \
	if [ -n "$$python" ]; then \
	    echo "Installing Home Assistant; this takes a minute or two" && "$$python" -m venv $(@D) && \
	    $(@D)/bin/pip install --quiet --disable-pip-version-check -r $<; \
	else \
	    echo "This machine has no Python 3.13: the tests with Home Assistant are skipped"; \
	fi
	@touch $@

.venv/ansible/.installed: tests/hosts/ansible-requirements.txt .venv/python
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# What `make clean` could not remove again is not made.
.venv/hosts/%/.made: .ci/host-root
	@rm -rf $(@D) && mkdir -p $(@D)
	@if [ "$$(id -u)" = 0 ]; then \
	    .ci/apt debootstrap systemd-container openssh-client iproute2 && \
	    echo "Making a Debian $* for the tests with real hosts; this takes about a minute" && .ci/host-root $* $(@D)/root; \
	else \
	    echo "Not root: the tests with real hosts are skipped"; \
	fi
	@touch $@

.venv/second/.installed: $(WHEEL)
	@second=$$(.ci/another-python) && \
	if [ -n "$$second" ]; then .ci/venv $(@D) "$$second" .venv/wheel/*.whl "dev,$(LITERT)"; else rm -rf $(@D); mkdir $(@D); fi
	@touch $@

# An environment of its own: cwt wants cbor2 before 6, and everything else is tested on the cbor2 that users get.
.venv/interop/.installed: $(WHEEL)
	@.ci/venv $(@D) $(PYTHON) .venv/wheel/*.whl dev 'cwt~=3.3' 'pycose~=1.1'
	@touch $@

# Changes when the Python does, and takes every environment with it.
.venv/python: always
	@.ci/apt venv
	@mkdir -p $(@D)
	@$(PYTHON) -c 'import sys; print(sys.prefix, sys.version)' >$@.new
	@cmp --quiet $@.new $@ || cp $@.new $@
