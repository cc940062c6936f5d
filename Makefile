# make help: what there is.
PREFIX      ?= /usr/local
BINDIR      ?= $(PREFIX)/bin
MANDIR      ?= $(PREFIX)/share/man
DOCDIR      ?= $(PREFIX)/share/doc/settled
SYSCONFDIR  ?= /etc
UNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
DESTDIR     ?=

CARGO   ?= cargo
INSTALL ?= install
BINARY   = $(or $(CARGO_TARGET_DIR),target)/release/settled
EXAMPLES = $(wildcard packaging/examples/*.toml)
WORKERS  = $(wildcard packaging/examples/worker*)

.PHONY: build demo test lint bench fuzz vm-test install uninstall clean help

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

install: ## to $(DESTDIR)$(PREFIX); run `make build` before
	@test -x $(BINARY) || { echo "$(BINARY) is not there: run make build first" >&2; exit 1; }
	$(INSTALL) -D -m 0755 $(BINARY) "$(DESTDIR)$(BINDIR)/settled"
	$(INSTALL) -D -m 0644 man/settled.8 "$(DESTDIR)$(MANDIR)/man8/settled.8"
	$(INSTALL) -D -m 0644 man/settled.toml.5 "$(DESTDIR)$(MANDIR)/man5/settled.toml.5"
	$(INSTALL) -D -m 0644 man/settled-worker.7 "$(DESTDIR)$(MANDIR)/man7/settled-worker.7"
	$(INSTALL) -d "$(DESTDIR)$(UNITDIR)"
	sed 's|/usr/bin/settled|$(BINDIR)/settled|; s|/etc/settled/|$(SYSCONFDIR)/settled/|' \
	    packaging/systemd/settled.service >"$(DESTDIR)$(UNITDIR)/settled.service"
	chmod 0644 "$(DESTDIR)$(UNITDIR)/settled.service"
	$(INSTALL) -D -m 0644 packaging/systemd/settled.sysusers "$(DESTDIR)$(SYSUSERSDIR)/settled.conf"
	$(INSTALL) -d "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0644 $(EXAMPLES) "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0755 $(WORKERS) "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 0644 README.md CHANGELOG.md LICENSE "$(DESTDIR)$(DOCDIR)"
	@# A configuration that is there is the administrator's.
	test -e "$(DESTDIR)$(SYSCONFDIR)/settled/settled.toml" || \
	    $(INSTALL) -D -m 0644 packaging/settled.toml "$(DESTDIR)$(SYSCONFDIR)/settled/settled.toml"

uninstall: ## all that install put there but the configuration
	rm -f "$(DESTDIR)$(BINDIR)/settled" "$(DESTDIR)$(MANDIR)/man8/settled.8" \
	    "$(DESTDIR)$(MANDIR)/man5/settled.toml.5" \
	    "$(DESTDIR)$(MANDIR)/man7/settled-worker.7" "$(DESTDIR)$(UNITDIR)/settled.service" \
	    "$(DESTDIR)$(SYSUSERSDIR)/settled.conf"
	rm -rf "$(DESTDIR)$(DOCDIR)"

clean: ## what was built
	$(CARGO) clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
