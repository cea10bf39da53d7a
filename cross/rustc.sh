#!/usr/bin/env bash
# The compiler of the ARM builds, by cargo's RUSTC_WRAPPER: rustc, with the folders of this machine out of what it writes, so that a
# build gives the same bytes wherever the sources lie.
set -euo pipefail
: "${RTPT_SOURCE:?is set by cross/cargo.sh, which starts this}"
remap=("--remap-path-prefix=$RTPT_SOURCE=/rtpt-edge")
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    remap+=("--remap-path-prefix=$registry=/crates")
done
[ -z "${RTPT_PREFIX:-}" ] || remap+=("--remap-path-prefix=$RTPT_PREFIX=/toolchain")
[ -z "${CARGO_TARGET_DIR:-}" ] || remap+=("--remap-path-prefix=$(realpath -m "$CARGO_TARGET_DIR")=/target")
exec ${RTPT_RUSTC_WRAPPER:+"$RTPT_RUSTC_WRAPPER"} "$@" "${remap[@]}"
