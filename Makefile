# `make run` runs an appliance, `make test` passes the tests. The rest is for those who change things.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Where rustup puts its programs, also before a new shell is started.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Seeds of the simulation: for `make test`, and for `make soak`.
SEEDS ?=
# Where the appliance of `make run` has its data, and where it listens for its API and for hosts.
DIR ?=
LISTEN ?= 127.0.0.1:8443
NBD_LISTEN ?= 127.0.0.1:10809
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

SIMULATION := cargo test --package ashlar-engine --profile sim --features sim --test simulation

.PHONY: help
help: ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: run
run: toolchain ## Run an appliance in ./data (DIR, LISTEN, NBD_LISTEN), and say what to do with it
	scripts/deps.sh serve
	cargo build --release --package ashlar-cli
	@scripts/run.sh "$(LISTEN)" "$(NBD_LISTEN)" "$(DIR)"

.PHONY: test
test: deps sqlx-check lint unit simulation ## Pass every test; installs what is missing for that

.PHONY: unit
unit: toolchain
	cargo build --workspace --bins --examples
	if command -v cargo-nextest >/dev/null; then cargo nextest run --workspace; else cargo test --workspace --tests --no-fail-fast; fi
	cargo test --workspace --doc

.PHONY: simulation
simulation: toolchain
	SEEDS=$(or $(SEEDS),500) $(SIMULATION)

.PHONY: soak
soak: toolchain ## Run the simulation over many seeds (SEEDS=100000)
	SEEDS=$(or $(SEEDS),10000) $(SIMULATION)

.PHONY: demo
demo: deps ## See a write survive kill -9
	cargo build --release --package ashlar-engine --bin ashlar-engine
	scripts/demo.sh

.PHONY: bench
bench: bench-engine bench-appliance ## Measure everything, see docs/benches.md (SECS, REPS)

.PHONY: bench-engine
bench-engine: deps ## Measure beside other NBD servers, and the inner loops (SIZE, SECS, REPS, DISK_DIR)
	cargo build --release --package ashlar-engine --bin ashlar-engine
	cargo bench --package ashlar-engine --bench map --bench parity --bench raid --bench volume --bench scale
	tests/bench/nbd_matrix.py

# The floor and the program are built alike, and of the same pieces: both packages are named each time.
APPLIANCE_BENCH := --package ashlar-cli --package ashlar-tests --bench appliance

.PHONY: bench-appliance
bench-appliance: deps ## Measure the API, a large appliance, listeners, hosts beside a busy API (APPLIANCE)
	cargo build --release $(APPLIANCE_BENCH) --bin ashlar
	ASHLAR_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/ashlar" \
	  cargo bench --profile release $(APPLIANCE_BENCH)

.PHONY: fuzz
fuzz: toolchain ## Fuzz every byte parser, FUZZ_SECONDS each
	FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh

.PHONY: sqlx
sqlx: deps ## Check the server's queries against the migrations and renew .sqlx
	scripts/sqlx.sh

.PHONY: sqlx-check
sqlx-check: deps ## Say whether .sqlx is what the queries and the migrations make it
	scripts/sqlx.sh --check

.PHONY: fmt
fmt: toolchain ## Format the code
	cargo fmt --all

.PHONY: lint
lint: toolchain ## Formatting and lints, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: deps
deps: toolchain ## Install what tests and benches need and what is missing: Debian packages, and schemathesis in target
	scripts/deps.sh test
	scripts/schemathesis.sh

.PHONY: toolchain
toolchain:
	@scripts/toolchain.sh

.PHONY: deb
deb: toolchain ## Build a Debian package in target/deb
	cargo build --release --package ashlar-cli
	scripts/deb.sh

.PHONY: openapi
openapi: toolchain ## Write openapi/openapi.json from the contract
	cargo run --quiet --package ashlar-openapi --example openapi_json >openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json
