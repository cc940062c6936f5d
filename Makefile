# make help: what there is.
PREFIX      ?= /usr/local
BINDIR      ?= $(PREFIX)/bin
MANDIR      ?= $(PREFIX)/share/man
DOCDIR      ?= $(PREFIX)/share/doc/settled
SYSCONFDIR  ?= /etc
UNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
BASHDIR     ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR      ?= $(PREFIX)/share/zsh/site-functions
FISHDIR     ?= $(PREFIX)/share/fish/vendor_completions.d
DESTDIR     ?=

CARGO   ?= cargo
INSTALL ?= install
BINARY   = $(or $(CARGO_TARGET_DIR),target)/release/settled
EXAMPLES = $(sort $(wildcard packaging/examples/*.toml packaging/examples/*.conf)) packaging/systemd/hardened.conf
WORKERS  = $(sort $(filter-out %.toml,$(wildcard packaging/examples/worker*)))
MANPAGES = $(sort $(wildcard man/*.[1-8]))

.PHONY: build demo test lint bench fuzz vm-test vm-package-test install uninstall deb rpm package-test clean help

build: ## the program, as it is installed
	.ci/need build
	$(CARGO) build --release --locked

demo: build ## files arrive in four ways, the daemon is killed between; watch what it does
	packaging/demo $(BINARY)

test: ## all tests, and what they need; T="--test manual" for some
	@.ci/test $(T)

lint: ## formatting, clippy, manual pages, and dependencies where cargo-deny is installed
	.ci/need build lint
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	mandoc -Tlint -Wwarning man/*.[0-9]
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed: dependencies not checked against deny.toml"; fi

bench: ## measure against a bare loop and the peers, a table; B="W1 --quick" passes arguments on
	.ci/need build
	$(CARGO) bench --locked --bench loads -- $(B)

fuzz: ## the journal's readers and its recovery under libFuzzer, an hour; FUZZ_SECONDS=600 for less
	tests/fuzz/run

vm-test: build ## between two emulated machines over NFS, about an hour, as root; V="slow_v3" for some
	$(CARGO) build --release --locked --example recorder
	PROFILE=$(dir $(BINARY)) tests/vm/nfs $(V)

vm-package-test: ## the Debian package under a real systemd, in an emulated machine, some minutes, as root
	tests/vm/package $(V)

install: ## to $(DESTDIR)$(PREFIX); run `make build` before
	@test -x $(BINARY) || { echo "$(BINARY) is not there: run make build first" >&2; exit 1; }
	$(INSTALL) -D -m 0755 $(BINARY) "$(DESTDIR)$(BINDIR)/settled"
	set -e; for page in $(MANPAGES); do \
	    $(INSTALL) -D -m 0644 $$page "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page#man/}"; done
	$(INSTALL) -d "$(DESTDIR)$(UNITDIR)" "$(DESTDIR)$(BASHDIR)" "$(DESTDIR)$(ZSHDIR)" "$(DESTDIR)$(FISHDIR)"
	set -e; for unit in settled.service settled@.service; do \
	    sed 's|/usr/bin/settled|$(BINDIR)/settled|; s|/etc/settled/|$(SYSCONFDIR)/settled/|' \
	        packaging/systemd/$$unit >"$(DESTDIR)$(UNITDIR)/$$unit"; \
	    chmod 0644 "$(DESTDIR)$(UNITDIR)/$$unit"; done
	$(INSTALL) -D -m 0644 packaging/systemd/settled.sysusers "$(DESTDIR)$(SYSUSERSDIR)/settled.conf"
	$(INSTALL) -D -m 0644 packaging/systemd/settled.tmpfiles "$(DESTDIR)$(TMPFILESDIR)/settled.conf"
	$(BINARY) completions bash >"$(DESTDIR)$(BASHDIR)/settled"
	$(BINARY) completions zsh >"$(DESTDIR)$(ZSHDIR)/_settled"
	$(BINARY) completions fish >"$(DESTDIR)$(FISHDIR)/settled.fish"
	$(INSTALL) -d "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0644 $(EXAMPLES) "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0755 $(WORKERS) "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0644 README.md CHANGELOG.md LICENSE "$(DESTDIR)$(DOCDIR)"
	@# A configuration that is there is the administrator's.
	test -e "$(DESTDIR)$(SYSCONFDIR)/settled/settled.toml" || \
	    $(INSTALL) -D -m 0644 packaging/settled.toml "$(DESTDIR)$(SYSCONFDIR)/settled/settled.toml"

uninstall: ## all that install put there but the configuration
	rm -f "$(DESTDIR)$(BINDIR)/settled" "$(DESTDIR)$(UNITDIR)/settled.service" \
	    "$(DESTDIR)$(UNITDIR)/settled@.service" "$(DESTDIR)$(SYSUSERSDIR)/settled.conf" \
	    "$(DESTDIR)$(TMPFILESDIR)/settled.conf" "$(DESTDIR)$(BASHDIR)/settled" \
	    "$(DESTDIR)$(ZSHDIR)/_settled" "$(DESTDIR)$(FISHDIR)/settled.fish"
	for page in $(MANPAGES); do rm -f "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page#man/}"; done
	rm -rf "$(DESTDIR)$(DOCDIR)"

deb: ## a package for Debian and its kin in target/packages
	packaging/build deb

rpm: ## a package for Fedora, RHEL and their kin in target/packages
	packaging/build rpm

package-test: ## install, upgrade, downgrade, remove and purge real packages in a root of their own; needs root
	tests/package/run

clean: ## what was built
	$(CARGO) clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
