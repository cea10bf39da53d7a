#!/usr/bin/env bash
# Runs cargo for an ARM target: cross/cargo.sh aarch64|armv7 COMMAND [ARGUMENTS…], such as build --bin rtpt
#
# With rustup's target installed that is used, else the tool chain of cross/setup-debian.sh. What is built lies in
# target/cross/TRIPLE/PROFILE. RTPT_GLIBC is the glibc that programs are linked against, 2.27 if unset.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "cross: $1" >&2
    exit 1
}

usage="expected a target and a command of cargo, such as: cross/cargo.sh aarch64 build --bin rtpt"
[ $# -ge 2 ] || fail "$usage"
case $1 in
aarch64) triple=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu zig=aarch64-linux-gnu ;;
armv7) triple=armv7-unknown-linux-gnueabihf gcc=arm-linux-gnueabihf zig=arm-linux-gnueabihf ;;
*) fail "unknown target $1, expected aarch64 (arm64) or armv7 (armhf)" ;;
esac
shift
prefix=$(realpath -m "${RTPT_TOOLCHAIN:-cross/.toolchain}")

variable=${triple//-/_}
of_target() {
    export "$1_$variable=$2"
}
options=()
if rustup target list --installed 2>/dev/null | grep -qx "$triple"; then
    origin="rustup's target"
elif cross/setup-debian.sh --check 2>/dev/null; then
    origin="the tool chain in $prefix"
    export RUSTC=$prefix/bin/rustc RUSTDOC=$prefix/bin/rustdoc
    if [ $triple = armv7-unknown-linux-gnueabihf ]; then
        # Debian has no library for it: it is built from its source, which asks for a compiler that takes unstable options.
        export RUSTC_BOOTSTRAP=1
        options+=("-Zbuild-std=std,panic_unwind")
    fi
else
    fail "no compiler for $triple; run cross/setup-debian.sh on Debian or Ubuntu, or: rustup target add $triple"
fi
if [ -x "$prefix/bin/$gcc-gcc" ]; then
    of_target CC "$prefix/bin/$gcc-gcc"
    of_target AR "$prefix/bin/$gcc-ar"
    export RTPT_ZIG=$prefix/bin/zig RTPT_ZIG_TARGET=$zig.${RTPT_GLIBC:-2.27}
    export ZIG_GLOBAL_CACHE_DIR=$prefix/zig-cache ZIG_LOCAL_CACHE_DIR=$prefix/zig-cache
    linker=$PWD/cross/zig-link.sh
else
    command -v "$gcc-gcc" >/dev/null 2>&1 || fail "$gcc-gcc is missing; run: apt install gcc-$gcc, or cross/setup-debian.sh"
    linker=$gcc-gcc
fi
upper=${variable^^}
export "CARGO_TARGET_${upper}_LINKER=$linker"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cross CARGO_INCREMENTAL=0
export RTPT_SOURCE=$PWD RTPT_PREFIX=$prefix RTPT_RUSTC_WRAPPER=${RUSTC_WRAPPER:-} RUSTC_WRAPPER=$PWD/cross/rustc.sh
echo "cross: $triple, $origin: $("${RUSTC:-rustc}" --version), linked by ${linker##*/}${RTPT_ZIG_TARGET:+ for $RTPT_ZIG_TARGET}" >&2
command=("$1")
shift
if [ "${command[0]}" = nextest ]; then
    [ $# -gt 0 ] || fail "$usage"
    command+=("$1")
    shift
fi
# What is shipped has the list of its dependencies in it, where cargo-auditable is installed (make package-tools).
auditable=()
tools=$(realpath -m "$CARGO_TARGET_DIR/../tools/bin")
if [ "${command[0]}" = build ] && [ -x "$tools/cargo-auditable" ]; then
    export PATH=$tools:$PATH
    auditable=(auditable)
fi
exec cargo "${auditable[@]}" "${command[@]}" --locked --target "$triple" "${options[@]}" "$@"
