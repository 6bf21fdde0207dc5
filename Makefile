# Ferrule's tasks. `make` alone lists them.

CARGO ?= cargo
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | sed 's/-apple-.*//')
STATIC := target/$(TARGET)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TAG ?= $(VERSION)
IMAGES := target/images
E2E_ABLE := $(shell [ "$$(uname -s)" = Linux ] && [ "$$(id -u)" = 0 ] && echo yes)
# Always the same set: with another one features differ and everything is built anew.
PACKAGES := ferrule ferrule-proxy ferrule-e2e
STATIC_FLAGS := CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
# The mesh on a laptop needs neither Kubernetes' client nor cryptography, which are half of what there is to compile. In a
# directory of its own, so that the two ways to build don't undo each other.
DEMO_FLAGS := --no-default-features --target-dir target/demo --config profile.dev.debug=false
DENY_ROOT := $(or $(FERRULE_CACHE),$(HOME)/.cache/ferrule)/cargo

.PHONY: help deps build demo test check unit conformance endurance crds images e2e-images cluster cluster-down cluster-check e2e soak bench bench-deps bench-profile fuzz deny audit clean

help: ## List the tasks.
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

deps: ## See that the Rust toolchain is there, and what the cluster needs where it can run.
	@command -v cargo >/dev/null || { echo "Rust is missing: install it with rustup" >&2; exit 1; }
	@if [ "$(E2E_ABLE)" = yes ]; then e2e/cluster/deps.sh; fi

build: ## Build the binaries for this machine.
	$(CARGO) build --release --locked -p ferrule -p ferrule-proxy

demo: deps ## Run the mesh on this machine: a 90/10 split, edited to 50/50 under load.
	$(CARGO) build --locked $(DEMO_FLAGS) -p ferrule -p ferrule-proxy -p ferrule-demo --bins
	target/demo/debug/ferrule-demo

test: deps check unit ## Everything: format, lints, tests; as root on Linux also the real cluster.
ifeq ($(E2E_ABLE),yes)
	$(MAKE) e2e
else
	@echo "The cluster tests did not run: they need Linux and root."
endif

check: ## Format and lints.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: ## All tests that need no cluster.
	$(CARGO) test --workspace --locked

conformance: ## The protocols, asked by others' tools: h2spec, gRPC interop, WebSocket, curl.
	proxy/conformance/run.sh

endurance: ## 1 GiB through two proxies, 10,000 idle connections, slow peers for a minute; prints the memory they take.
	FERRULE_ENDURANCE=full $(CARGO) test --release --locked -p ferrule-proxy --test endurance -- --nocapture

crds: ## Write crds/ from the Rust types.
	$(CARGO) run --locked -q -p ferrule -- crds --out crds

images: ## Images of operator and proxy as tars, without a container engine.
	$(STATIC_FLAGS) $(CARGO) build --release --locked --target $(TARGET) $(foreach package,$(PACKAGES),-p $(package))
	images/pack.sh --name ferrule/ferrule:$(TAG) --out $(IMAGES)/ferrule.tar \
	  --bin $(STATIC)/ferrule --entrypoint /ferrule --user 65532:65532 \
	  --label org.opencontainers.image.title=ferrule --label org.opencontainers.image.version=$(VERSION) \
	  --label org.opencontainers.image.licenses=Apache-2.0
	images/pack.sh --name ferrule/ferrule-proxy:$(TAG) --out $(IMAGES)/ferrule-proxy.tar \
	  --bin $(STATIC)/ferrule-proxy --entrypoint /ferrule-proxy --user 15100:15100 \
	  --label org.opencontainers.image.title=ferrule-proxy --label org.opencontainers.image.version=$(VERSION) \
	  --label org.opencontainers.image.licenses=Apache-2.0

e2e-images: images
	images/pack.sh --name ferrule/e2e:$(TAG) --out $(IMAGES)/e2e.tar \
	  --bin $(STATIC)/testserver --bin $(STATIC)/testclient --user 65532:65532
	e2e/images/database.sh ferrule/e2e-database:$(TAG) $(IMAGES)/e2e-database.tar
	e2e/images/talk.sh ferrule/e2e-talk:$(TAG) $(IMAGES)/e2e-talk.tar

cluster: ## A real Kubernetes node on this machine (NODES=2 for two).
	e2e/cluster/up.sh

cluster-down: ## End it and leave nothing behind.
	e2e/cluster/down.sh

soak: ## Certificates of two minutes under load for 15 minutes, and the operator away for half of a certificate's life.
	FERRULE_SOAK_SECONDS=$(or $(SOAK_SECONDS),900) ONLY=soak e2e/run.sh

cluster-check: ## See that the node does what Kubernetes promises.
	e2e/cluster/check.sh

e2e: ## The cluster tests (ONLY=group for one group; KUBECONFIG=file for a cluster of yours).
	e2e/run.sh

BENCH := target/release/ferrule-bench
BENCH_OPTIONS = $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) \
  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

bench: ## The proxy beside its peers (ONLY=h1-small,tcp PEERS=ferrule,haproxy ROUNDS=1 SECONDS=2 for a quick question).
	$(CARGO) build --release --locked -p ferrule-bench
	$(STATIC_FLAGS) $(CARGO) build --release --locked --target $(TARGET) $(foreach package,$(PACKAGES),-p $(package))
	bench/run.sh $(BENCH) $(STATIC)/ferrule-proxy --out bench/RESULTS.md $(BENCH_OPTIONS)

bench-deps: ## Fetch the peers.
	bench/deps.sh

bench-profile: ## Where CPU time goes (MEASURE=h1-small PEER=ferrule): text and flame graph in target/profile.
	$(CARGO) build --release --locked -p ferrule-bench
	RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_STRIP=none \
	$(CARGO) build --release --locked -p ferrule-proxy --target-dir target/profile
	bench/profile.sh $(BENCH) target/profile/release/ferrule-proxy \
	  $(or $(MEASURE),h1-small) $(or $(PEER),ferrule) $(or $(SECONDS),10) target/profile

fuzz: ## Every parser with random input, 20 s each (FUZZ_SECONDS=600 for longer).
	proxy/fuzz/run.sh
	fuzz/run.sh

deny: ## Licences, sources and duplicates of the dependencies.
	@[ -x $(DENY_ROOT)/bin/cargo-deny ] || $(CARGO) install --locked --quiet --root $(DENY_ROOT) cargo-deny
	$(DENY_ROOT)/bin/cargo-deny --all-features check bans licenses sources

audit: ## Known flaws of the dependencies, by the RustSec database; needs the internet, or AUDIT_DB=directory with a copy of it.
	@[ -x $(DENY_ROOT)/bin/cargo-audit ] || $(CARGO) install --locked --quiet --root $(DENY_ROOT) cargo-audit
	$(DENY_ROOT)/bin/cargo-audit audit $(if $(AUDIT_DB),--db $(AUDIT_DB) --no-fetch --stale)

clean: ## Remove what was built here.
	$(CARGO) clean
