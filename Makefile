# `make help` lists the targets. Each sets up what it needs; a machine needs Rust and a C compiler.

# Keep in step with rust-version in Cargo.toml.
RUST_MIN := 1.91
CARGO ?= cargo
RTPT := $(or $(CARGO_TARGET_DIR),target)/release/rtpt
# Photos the demo model was held out from, laid out as models/README.md says; without them eval-demo measures fewer.
DATA ?= ../shared/data
EVALUATION := $(or $(CARGO_TARGET_DIR),target)/eval-demo
EXPLAIN := $(or $(CARGO_TARGET_DIR),target)/demo-explain.png

.DEFAULT_GOAL := help
.PHONY: help needs test-needs build demo eval-demo test check fmt clippy docs bench

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

needs:
	@cross/needs.sh $(RUST_MIN)

build: needs ## Build the program: target/release/rtpt
	$(CARGO) build --release --locked

demo: build ## Classify the demo photos, clean and attacked, and draw why
	@$(RTPT) demo --explain $(EXPLAIN)

eval-demo: build ## Measure the demo bundle: on its photos, and on those in DATA, if they are there (an hour)
	@models/eval_demo.sh $(RTPT) $(EVALUATION) $(DATA)

test-needs: needs
	@tests/setup.sh

test: test-needs ## Run all tests; installs ffmpeg and Chromium for them, or says how
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) nextest run --locked; \
	else \
	    $(CARGO) test --locked --quiet -- --test-threads 1; \
	fi
	$(CARGO) test --locked --doc --quiet

check: fmt clippy test docs ## Everything that must hold before a commit

fmt: needs ## Check the formatting
	$(CARGO) fmt --check

clippy: needs ## Lint, warnings are errors
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs: needs ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

bench: needs ## Run the benchmarks (minutes); results of earlier runs are in benches/results
	$(CARGO) bench --locked
