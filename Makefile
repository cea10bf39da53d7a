# `make help` lists the targets. Each sets up what it needs; a machine needs Rust and a C compiler.

# Keep in step with rust-version in Cargo.toml.
RUST_MIN := 1.91
CARGO ?= cargo
RTPT := $(or $(CARGO_TARGET_DIR),target)/release/rtpt
# Photos that were held out from the demo model, laid out as models/README.md says; without them eval-demo measures fewer.
DATA ?= ../shared/data
EVALUATION := $(or $(CARGO_TARGET_DIR),target)/eval-demo
EXPLAIN := $(or $(CARGO_TARGET_DIR),target)/demo-explain.png

.DEFAULT_GOAL := help
.PHONY: help needs test-needs build demo eval-demo test check fmt clippy docs deny bench fuzz soak cross-aarch64 cross-armv7 cross-minimal \
    test-aarch64 test-aarch64-smoke test-armv7 test-cross package-arm64 package-armhf packages test-packages package-tools bench-instructions

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 20

needs:
	@cross/needs.sh $(RUST_MIN)

build: needs ## Build the program: target/release/rtpt
	$(CARGO) build --release --locked

demo: build ## Classify the demo photos, clean and attacked, and draw why
	@RTPT_BUNDLE=models/everyday/bundle $(RTPT) demo --explain $(EXPLAIN)

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

clippy: needs ## Lint, warnings are errors; also without the features that a minimal program leaves out
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features cli -- -D warnings

docs: needs ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

deny: needs ## Hold the dependencies to known sources and licences; installs cargo-deny into target/tools
	tests/deny.sh

SECONDS ?= 60
fuzz: needs ## Fuzz every reader of foreign bytes, each for SECONDS; the first build takes ten minutes
	@tests/setup.sh --fuzz
	fuzz/run.sh $(SECONDS)

HOURS ?= 2
soak: test-needs ## Use a daemon for HOURS while disks, clocks, clients and frames go wrong; it must not grow. Samples: target/soak
	RTPT_SOAK_HOURS=$(HOURS) $(CARGO) test --locked --test suite -- --exact soak::hours_of_use_with_everything_that_goes_wrong --ignored --nocapture

bench: needs ## Run the benchmarks (minutes); results of earlier runs are in benches/results
	$(CARGO) bench --locked

# For ARM, from an x86-64 machine: by rustup's targets, or by the tool chain that cross/setup-debian.sh sets up.
CROSS := $(or $(CARGO_TARGET_DIR),target)/cross
AARCH64 := $(CROSS)/aarch64-unknown-linux-gnu/packaged/rtpt
ARMV7 := $(CROSS)/armv7-unknown-linux-gnueabihf/packaged/rtpt
PACKAGES := $(or $(CARGO_TARGET_DIR),target)/packages

cross-aarch64: needs ## Build for 64-bit ARM (Pi 3 to 5, Jetson), for glibc 2.31 and newer
	cross/cargo.sh aarch64 build --profile packaged --bin rtpt
	@cross/check-program.sh $(AARCH64) 30

cross-armv7: needs ## Build for 32-bit ARM with NEON (32-bit Raspberry Pi OS), for glibc 2.31 and newer
	cross/cargo.sh armv7 build --profile packaged --bin rtpt
	@cross/check-program.sh $(ARMV7) 30

cross-minimal: needs ## Build for 64-bit ARM without daemon and evaluation
	cross/cargo.sh aarch64 build --profile minimal --bin rtpt --no-default-features --features cli
	@cross/check-program.sh $(CROSS)/aarch64-unknown-linux-gnu/minimal/rtpt 20

test-aarch64: needs ## Run goldens, pipeline, gradients, bundles and command line as a Pi 4 and as a Pi 5, under emulation
	cross/test.sh aarch64 whole

test-aarch64-smoke: needs ## Run the few of these that show that the kernels are right, as a Pi 4
	cross/test.sh aarch64 smoke

test-armv7: needs ## Run the few of these as a 32-bit ARM
	cross/test.sh armv7 smoke

test-cross: test-aarch64 test-armv7 test-packages ## Run all tests under emulation, packages too

package-arm64: cross-aarch64 ## Make .deb and .tar.gz for 64-bit ARM
	cross/package.sh arm64 $(AARCH64) $(PACKAGES)/arm64

package-armhf: cross-armv7 ## Make .deb and .tar.gz for 32-bit ARM
	cross/package.sh armhf $(ARMV7) $(PACKAGES)/armhf

packages: package-arm64 package-armhf ## Make all packages for ARM: target/packages

test-packages: packages ## Install the packages in emulated Debians with glibc 2.31 and use them there
	cross/test-package.sh arm64 $(PACKAGES)/arm64
	cross/test-package.sh armhf $(PACKAGES)/armhf

package-tools: needs ## Install cargo-cyclonedx and cargo-auditable, which list a package's components, into target/tools
	$(CARGO) install --locked --root $(or $(CARGO_TARGET_DIR),target)/tools --version 0.5.9 cargo-cyclonedx
	$(CARGO) install --locked --root $(or $(CARGO_TARGET_DIR),target)/tools --version 0.7.7 cargo-auditable

bench-instructions: needs ## Count the ARM instructions of one encode, against onnxruntime (results are in benches/results)
	cross/instructions/measure.sh
