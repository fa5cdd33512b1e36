# What one does with mica. `make` alone prints this list; everything else is in contrib/.
#
#   make run        try it: build, load a small real image into ./var, mount it at ./mnt
#   make test-fast  the tests that need no root and take no time, for the inner loop
#   make test       every test there is, privileged ones included; installs what they need
#   make bench      the figures, beside kernel overlayfs, fuse-overlayfs, podman and containerd (QUICK=1: fewer runs)
#   make lint       formatting and clippy, warnings are errors
#   make install    PREFIX=/usr/local DESTDIR=
#   make deb        a Debian package
#   make snapshotter  the program for containerd, which install and deb take along
#   make uninstall
#   make clean

PREFIX  ?= /usr/local
DESTDIR ?=
# mount(8) looks for its helpers there and nowhere else.
SBINDIR ?= /usr/sbin
UNITDIR ?= /usr/local/lib/systemd
CARGO   ?= cargo
SHELL   := /bin/bash

bin := $(DESTDIR)$(PREFIX)/bin
doc := $(DESTDIR)$(PREFIX)/share/doc/mica
man := $(DESTDIR)$(PREFIX)/share/man
# Where each shell looks for completions.
bash_dir := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zsh_dir  := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fish_dir := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

# What the tests run besides mica. The compiler builds the C parts of the compression libraries.
test_packages  := fuse3 busybox-static mmdebstrap buildah podman runc skopeo uidmap attr libcap2-bin python3-minimal python3 \
                  strace bash-completion zsh fish bubblewrap gcc libc6-dev zstd xz-utils bzip2 docker-registry docker.io containerd stargz-snapshotter iproute2 apache2-utils python3-docker docker-compose openssl curl xfsprogs e2fsprogs
bench_packages := $(test_packages) fuse-overlayfs fio g++ pkgconf libfuse3-dev rsync

.PHONY: help toolchain snapshotter run test test-fast bench lint install deb uninstall clean build release deps deps-run deps-bench images peers

help:
	@sed -n '/^#   make/s/^#   //p' Makefile

run: toolchain deps-run release
	@contrib/run target/release/mica

test: toolchain deps
	@contrib/test

# Without the tiers (see tests/main.rs), and without those that kill or fail a verb at each of its system calls.
fast := $(foreach tier,fuse_ root_ net_,--skip ::$(tier) --skip ::regression_$(tier)) --skip killed --skip a_disk_that_fails

test-fast: toolchain
	$(CARGO) test --lib
	$(CARGO) test --test main -- $(fast)

bench: toolchain deps-bench release
	@contrib/test-images all
	@contrib/peers
	@contrib/bench

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

toolchain:
	@contrib/toolchain "$(CARGO)"

release:
	$(CARGO) build --release --bin mica --bin mica-keeper

snapshotter:
	$(CARGO) build --release -p mica-snapshotter

build:
	$(CARGO) build

images:
	contrib/test-images all

deps-run:
	@contrib/install-packages fuse3 busybox-static attr gcc libc6-dev

deps:
	@contrib/install-packages $(test_packages)

deps-bench:
	@contrib/install-packages $(bench_packages)

# `install` takes the release binary as it is, so that `sudo make install` needs no toolchain.
install:
	@test -x target/release/mica || { echo "make install: run 'make release' first (as the user who builds)" >&2; exit 1; }
	contrib/install-files target/release/mica $(PREFIX)/bin "$(DESTDIR)" $(PREFIX)/share $(UNITDIR) $(SBINDIR)
	install -d $(doc)
	install -m 0644 LICENSE CHANGELOG.md $(wildcard README.md doc/*.md) $(doc)

# A package for this system's dpkg, of the release binary.
deb: release
	@contrib/deb

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/libexec/mica/mica-keeper
	-rmdir $(DESTDIR)$(PREFIX)/libexec/mica 2>/dev/null
	rm -f $(bin)/mica $(bin)/mica-snapshotter $(man)/man1/mica.1 $(man)/man1/mica-*.1 $(man)/man7/mica-fs.7
	rm -f $(bash_dir)/mica $(zsh_dir)/_mica $(fish_dir)/mica.fish
	rm -f $(addprefix $(DESTDIR)$(SBINDIR)/,mount.fuse.mica umount.fuse.mica)
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/system/,mica@.service mica-volumes.socket mica-volumes.service mica-snapshotter.socket mica-snapshotter.service) $(DESTDIR)$(UNITDIR)/user/mica@.service
	rm -rf $(doc)

# The demonstration's mount goes first; its store goes with it.
clean:
	@if mountpoint -q mnt 2>/dev/null; then target/release/mica umount mnt || fusermount3 -u mnt || umount mnt; fi
	rm -rf var
	@[ ! -d mnt ] || rmdir mnt
	$(CARGO) clean
