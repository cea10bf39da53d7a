#!/usr/bin/env bash
# The linker of the ARM builds: zig, told which glibc to link against, with what rustc says in gcc's words put into zig's.
set -euo pipefail
: "${RTPT_ZIG:?is set by cross/cargo.sh, which starts this}" "${RTPT_ZIG_TARGET:?}"
arguments=()
for argument in "$@"; do
    case $argument in
    # zig has its own: compiler-rt and libunwind, which programs then need no library for.
    -lgcc_s) arguments+=(-lunwind) ;;
    -lgcc | -lgcc_eh) ;;
    # rustc's own compiler builtins come first; two of each would clash.
    -Wl,--no-undefined-version | --target=*) ;;
    *) arguments+=("$argument") ;;
    esac
done
exec "$RTPT_ZIG" cc -target "$RTPT_ZIG_TARGET" "${arguments[@]}"
