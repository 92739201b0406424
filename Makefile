# `make` alone lists what can be made.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Debian and Ubuntu packages, by what needs them. Only those missing are installed.
RUN_PACKAGES := qemu-system-x86 openssh-client zstd
BUILD_PACKAGES := gcc libc6-dev
TEST_PACKAGES := xvfb xdotool tigervnc-standalone-server tigervnc-tools tightvncserver xfonts-base x11vnc xclip cpio binutils mount \
	libpam-wrapper libsasl2-modules libsasl2-modules-gssapi-mit netcat-openbsd openssh-server sasl2-bin \
	krb5-kdc krb5-admin-server krb5-user sway swaybg wayvnc \
	qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-dev pkg-config util-linux iproute2 zsh fish \
	tmux vim htop curl git rsync
BENCH_PACKAGES := libvncserver-dev xterm ovmf libvirt-clients

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check bench clean

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(VENV)/.run  ## install what running needs: system packages, a venv, the build

demo: setup  ## boot a real Linux guest, show its console, run commands in it, leave nothing behind
	@$(BIN)/vmconnect demo --once

test: lint check  ## install what the tests need, then lint, type-check and test

lint: $(VENV)/.dev  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(VENV)/.dev  ## run the tests alone
	$(BIN)/python -m pytest -n auto --dist loadfile

bench: $(VENV)/.bench  ## measure beside ssh and scp, and beside other VNC clients
	@$(BIN)/python bench/guest.py
	@$(BIN)/python bench/latency.py

clean:  ## remove the venv and what was built
	rm -rf $(VENV) build dist *.egg-info vmconnect/vnc/_kernel.c vmconnect/vnc/_kernel.*.so

$(VENV)/.run: pyproject.toml setup.py constraints.txt $(wildcard vmconnect/vnc/*.pyx vmconnect/vnc/_kernel/*.pxi vmconnect/vnc/_kernel/*/*.h) vmconnect/broker/client.c Makefile
	@scripts/system-packages --python $(PYTHON) $(RUN_PACKAGES) $(BUILD_PACKAGES)
	@scripts/venv $(PYTHON) $(VENV) '.[window]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@scripts/system-packages $(TEST_PACKAGES)
	@scripts/venv $(PYTHON) $(VENV) '.[window,video,libvirt,keyring,lint,test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@scripts/system-packages $(BENCH_PACKAGES)
	@scripts/venv $(PYTHON) $(VENV) '.[window,video,libvirt,keyring,lint,test,bench]'
	@touch $@
