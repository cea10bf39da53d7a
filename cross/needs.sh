#!/bin/sh
# Says in one line what is missing on this machine, if anything is: needs.sh MINIMUM-RUST-VERSION
set -eu
minimum=${1:?"expected the oldest Rust that will do, such as 1.91"}
missing() {
    echo "make: $1" >&2
    exit 1
}
command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 ||
    missing "Rust $minimum or newer is missing; install it from https://rustup.rs or your distribution"
command -v cc >/dev/null 2>&1 || command -v "${CC:-cc}" >/dev/null 2>&1 ||
    missing "a C compiler (cc) is missing; on Debian and Ubuntu: apt install build-essential"
found=$(rustc --version | cut -d ' ' -f 2)
older=$(printf '%s\n%s\n' "$minimum" "$found" | sort -V | head -n 1)
[ "$older" = "$minimum" ] || missing "Rust $minimum or newer is needed, found $found; run: rustup update"
