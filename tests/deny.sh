#!/usr/bin/env bash
# Holds the dependencies to known sources and licences (deny.toml). Advisories are looked up where their database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
deny=$tools/bin/cargo-deny
# In a debug build, which is made in a third of the time: it runs for a second.
"$deny" --version 2>/dev/null | grep -qF "$version" \
    || cargo install --quiet --locked --debug --root "$tools" --target-dir "$tools/build" --version "$version" cargo-deny
"$deny" --all-features check --hide-inclusion-graph licenses bans sources
found=$("$deny" --all-features check --hide-inclusion-graph advisories 2>&1) && exit 0
if grep -q "failed to fetch advisory database" <<<"$found"; then
    echo "deny: the advisories were not looked up, since their database cannot be had" >&2
else
    echo "$found" >&2
    exit 1
fi
