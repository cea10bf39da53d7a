#!/usr/bin/env bash
# Fuzzes the readers of foreign bytes, each for some seconds, beginning with its committed seeds and with what earlier runs
# found. Ends with 1 and the input's path at the first panic, hang (10 s), or 2 GB of memory.
#
#   fuzz/run.sh SECONDS [TARGET…]
#
# What the runs find that leads to new code is kept in target/fuzz/corpus, what breaks a reader in target/fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET…]}
shift
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')

# The compiler's coverage for libFuzzer, as cargo-fuzz asks for it without a sanitizer. With --target, build scripts and
# macros are built without it.
instrument="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="$(echo $instrument)" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$target \
    cargo build --manifest-path fuzz/Cargo.toml --release --locked --target "$triple"
readers=$target/$triple/release/readers

names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(ls fuzz/seeds))
fuzz() {
    local name=$1 status=0 scratch corpus=$target/corpus/$1 found=$target/found/$1 log=$target/$1.log
    mkdir -p "$corpus" "$found"
    # In memory, where there is such a folder: readers of files write one for each input.
    scratch=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
    RTPT_FUZZ_TARGET=$name TMPDIR=$scratch "$readers" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -malloc_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/" "$corpus" "fuzz/seeds/$name" \
        >"$log" 2>&1 || status=$?
    rm -rf "$scratch"
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    printf '%-20s %12s executions %8s edges\n' "$name" "${executed:-0}" "${coverage:-0}"
    if [ "$status" -ne 0 ]; then
        tail -25 "$log"
        echo "$name: broken (status $status); the input is in $found, the log is $log" >&2
        return 1
    fi
}
# As many at once as there are cores.
failed=0 running=0
for name in "${names[@]}"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz "$name" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
