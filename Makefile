# Every target does its own set-up; on Debian and Ubuntu that includes missing packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build demo demo-cluster test test-runtimes lint bench install clean

PREFIX ?= /usr/local
DESTDIR ?=

# The names under which netd-cni takes reference plugins' places: in a folder of their own, so that they hide a
# distribution's plugins only where a runtime is told to look there first.
STAND_INS := bandwidth bridge dnsname firewall host-local loopback portmap tuning

# Tests and demo make namespaces; Cargo itself never runs as root for that.
ifneq ($(shell id -u),0)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
endif

build:
	scripts/setup.sh build
	cargo build --release --locked --bin netd --bin netd-cni

demo:
	scripts/setup.sh demo
	cargo build --locked --package netd --bin netd
	timeout 600 cargo run --quiet --locked --package netd-tests --bin demo

demo-cluster:
	scripts/setup.sh demo-cluster
	cargo build --locked --package netd --bin netd
	timeout 600 cargo run --quiet --locked --package netd-tests --bin demo_cluster

# Compiling has no share in the bound on the tests themselves.
test:
	scripts/setup.sh test
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --no-run
	timeout --kill-after=10 1800 cargo test --locked --workspace --no-fail-fast -- --test-threads=2

# The part of it that drives the distribution's own podman, containerd and Docker.
test-runtimes:
	scripts/setup.sh test-runtimes
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --test runtimes --no-run
	timeout --kill-after=10 900 cargo test --locked --workspace --test runtimes -- --test-threads=2

lint:
	scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/deny.sh

bench:
	scripts/setup.sh bench
	cargo build --release --locked --package netd --package netd-cni --package netd-bench
	cargo run --release --quiet --locked --package netd-bench -- $(BENCH)

install: build
	install -D -m 755 target/release/netd $(DESTDIR)$(PREFIX)/bin/netd
	install -D -m 755 target/release/netd-cni $(DESTDIR)/opt/cni/bin/netd-cni
	install -d $(DESTDIR)$(PREFIX)/lib/netd/cni $(DESTDIR)$(PREFIX)/lib/netd/netavark
	for name in netd-cni $(STAND_INS); do ln -sfn /opt/cni/bin/netd-cni $(DESTDIR)$(PREFIX)/lib/netd/cni/$$name; done
	ln -sfn /opt/cni/bin/netd-cni $(DESTDIR)$(PREFIX)/lib/netd/netavark/netd
	install -d $(DESTDIR)/etc/netd $(DESTDIR)$(PREFIX)/lib/systemd/system
	[ -e $(DESTDIR)/etc/netd/netd.toml ] || install -m 644 packaging/netd.toml $(DESTDIR)/etc/netd/netd.toml
	for unit in packaging/systemd/*.service; do \
		sed 's|/usr/local/bin/netd|$(PREFIX)/bin/netd|' "$$unit" \
			| install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename "$$unit"); \
	done

clean:
	cargo clean
