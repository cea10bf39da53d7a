#!/usr/bin/env bash
# Runs tests as ARM programs under emulation: cross/test.sh aarch64|armv7 [smoke|whole]
#
# whole: goldens, pipeline, gradients, bundles and command line, as a Pi 4 and as a Pi 5 or an Orin, and smoke as a Pi 3.
# smoke: what shows in a minute that the kernels are right, as a Pi 4.
# The daemon, cameras, browsers and power cuts are tested on this machine: they are the system's, not the processor's.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-none}
extent=${2:-whole}
smoke="encoding pixels elsewhere bundles::a_good bundles::the_demo_bundle_reproduces bundles::the_everyday_bundle classifying::bits doctor::the_device"
whole="encoding pixels decoding episodes tower tokens prompts labels labelling bundles classifying inputs tracing explaining caching doctor elsewhere"
# Many photos of 64 views each, or thousands of labels: a quarter of an hour under emulation.
left_out="the_demo_runs_and_resists a_cutoff_that_cuts_little any_labels_with_any_head ten_thousand_labels prompts_that_make_no_sense"
case $target:$extent in
aarch64:whole) runs="cortex-a53:smoke cortex-a72:whole cortex-a76:whole" ;;
aarch64:smoke) runs=cortex-a72:smoke ;;
armv7:smoke | armv7:whole) runs=cortex-a7:smoke ;;
*)
    echo "test: unknown tests $target $extent, expected aarch64 or armv7, and smoke or whole" >&2
    exit 1
    ;;
esac
triple=AARCH64_UNKNOWN_LINUX_GNU
[ "$target" = aarch64 ] || triple=ARMV7_UNKNOWN_LINUX_GNUEABIHF

# What this machine's own build computes, to compare with; RTPT_TESTS_NATIVE names one that is there already.
if [ -z "${RTPT_TESTS_NATIVE:-}" ]; then
    cargo build --locked --quiet --bin rtpt
    RTPT_TESTS_NATIVE=$(realpath "${CARGO_TARGET_DIR:-target}/debug/rtpt")
fi
export RTPT_TESTS_NATIVE

for run in $runs; do
    cpu=${run%:*} names=$smoke units=
    [ "${run#*:}" = smoke ] || names=$whole units=--lib
    echo "test: ${run#*:} tests of $target as $cpu"
    export RTPT_TESTS_EMULATOR="$PWD/cross/emulate.sh $cpu"
    export "CARGO_TARGET_${triple}_RUNNER=$RTPT_TESTS_EMULATOR"
    if cargo nextest --version >/dev/null 2>&1; then
        # shellcheck disable=SC2086 # lists of words
        wanted=$(printf 'test(/^%s/) | ' $names) unwanted=$(printf ' - test(%s)' $left_out)
        filter="binary(suite) & ((${wanted% | })$unwanted)${units:+ | kind(lib)}"
        # shellcheck disable=SC2086 # an argument or none
        cross/cargo.sh "$target" nextest run --cargo-profile emulated --profile emulated --test suite $units -E "$filter"
    else
        [ -z "$units" ] || cross/cargo.sh "$target" test --profile emulated --lib -- --quiet
        # shellcheck disable=SC2046,SC2086 # lists of words
        cross/cargo.sh "$target" test --profile emulated --test suite -- --quiet $(printf -- '--skip %s ' $left_out) $names
    fi
done
