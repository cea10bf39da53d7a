#!/usr/bin/env bash
# Sets up a tool chain for ARM from Debian's packages, in a folder of its own: nothing of the system is changed, and no
# right to install anything is needed.
#
#   cross/setup-debian.sh            set up cross/.toolchain, unless it is there already
#   cross/setup-debian.sh --check    only say whether it is there
#
# RTPT_TOOLCHAIN names another folder, RTPT_DEBIAN_MIRROR another mirror. What it holds:
#
#   rustc and the standard library for aarch64, its source for armv7    Debian's rustc-web, kept up for browsers
#   gcc, binutils, C libraries for both                                 they assemble the engine's kernels
#   qemu for single programs                                            they run the tests
#   zig                                                                 from PyPI; links against an old glibc
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${RTPT_TOOLCHAIN:-cross/.toolchain}
mirror=${RTPT_DEBIAN_MIRROR:-http://deb.debian.org}
suite=bookworm
rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# Room for the tool chain while it is set up (MiB); what it builds takes 4 GiB more, in the target folder.
room=3072

fail() {
    echo "setup: $1" >&2
    exit 1
}

# The place is part of it: what is set up has its own paths inside.
made_by=$({ sha256sum cross/setup-debian.sh cross/requirements.txt && realpath -m "$prefix"; } | sha256sum | cut -c 1-16)
is_there() {
    [ "$(cat "$prefix/made-by" 2>/dev/null)" = "$made_by" ]
}

[ $# -le 1 ] || fail "expected no argument, or --check alone"
case ${1:-} in
"") ;;
--check)
    is_there || fail "no tool chain in $prefix, or one of another version; run: cross/setup-debian.sh"
    exit 0
    ;;
*) fail "unknown argument $1, expected none or --check" ;;
esac
if is_there; then
    echo "setup: the tool chain in $prefix is ready; remove $prefix/made-by to set it up again"
    exit 0
fi

needs() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing; $2"
}
[ "$(uname -sm)" = "Linux x86_64" ] || fail "this is $(uname -sm), expected Linux x86_64; use rustup targets here (docs/arm.md)"
needs cargo "install Rust $rust_minimum or newer from https://rustup.rs"
for tool in apt-get apt-cache dpkg-deb; do
    needs "$tool" "this needs Debian or Ubuntu; elsewhere use rustup targets (docs/arm.md)"
done
needs python3 "run: apt install python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; run: apt install python3-pip"
keyring=
for candidate in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
    [ -e "$candidate" ] && keyring=$candidate
done
[ -n "$keyring" ] || fail "Debian's archive keys are missing; run: apt install debian-archive-keyring"

mkdir -p "$prefix" 2>/dev/null || fail "the folder $prefix cannot be made; name another with RTPT_TOOLCHAIN"
prefix=$(cd "$prefix" && pwd)
# What is set up replaces what was there: only ever in a folder of its own, and one at a time.
if [ ! -e "$prefix/rtpt-tool-chain" ] && [ -n "$(ls -A "$prefix")" ]; then
    fail "the folder $prefix holds other things; name an empty one with RTPT_TOOLCHAIN"
fi
exec 9>"$prefix/rtpt-tool-chain" || fail "the folder $prefix cannot be written; name another with RTPT_TOOLCHAIN"
flock -n 9 || fail "another set-up of $prefix is running; wait for it"
free=$(df -Pm "$prefix" | awk 'NR == 2 { print $4 }')
[ "$free" -ge "$room" ] || fail "$free MiB are free in $prefix, expected $room; make room, or name another folder with RTPT_TOOLCHAIN"

work=$prefix/work
rm -rf "$prefix/made-by" "$work" "$prefix/root" "${prefix:?}/bin" "$prefix/zig" "$prefix/emulated"
mkdir -p "$work"/apt/{lists,cache/archives,etc/apt.conf.d}/partial "$work/debs" "$prefix/root" "$prefix/bin"

# A disk that fills up meanwhile, or a connection that breaks, is told in one line; what was said before is in the log.
log=$work/log
run() {
    "$@" >>"$log" 2>&1
}
broken() {
    if grep -qiE 'no space left|enough free space' "$log"; then
        fail "the disk is full in $prefix; make room, or name another folder with RTPT_TOOLCHAIN"
    fi
    fail "$1 (the log is $log)"
}

# An apt of its own, which knows no installed package. armhf is left out: its index has no rustc-web, and all that is
# needed for armhf comes as packages for amd64.
touch "$work/apt/status"
cat >"$work/apt/sources.list" <<LIST
deb [arch=amd64,arm64 signed-by=$keyring] $mirror/debian $suite main
deb [arch=amd64,arm64 signed-by=$keyring] $mirror/debian-security $suite-security main
LIST
cat >"$work/apt/apt.conf" <<CONF
Dir::State "$work/apt";
Dir::State::status "$work/apt/status";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
Dir::Etc "$work/apt/etc";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
APT::Update::Error-Mode "any";
Acquire::Retries "2";
Acquire::Languages "none";
Acquire::http::Timeout "20";
CONF
export APT_CONFIG=$work/apt/apt.conf

echo "setup: reading Debian's package lists"
run apt-get update || broken "no package lists from $mirror; is there a network? RTPT_DEBIAN_MIRROR names another mirror"

version_of() {
    apt-cache policy "$1" 2>>"$log" | awk '$1 == "Candidate:" { print $2 }'
}
rustc=$(version_of rustc-web)
for package in libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64 rust-web-src; do
    found=$(version_of "$package")
    [ -n "$rustc" ] && [ "$found" = "$rustc" ] ||
        fail "rustc-web has version ${rustc:-none} and $package ${found:-none}, expected equal ones; the mirror is being updated: try again later"
done
older=$(printf '%s\n%s\n' "$rust_minimum" "${rustc%%+*}" | sort -V | head -n 1)
[ "$older" = "$rust_minimum" ] || fail "rustc-web has version $rustc, expected $rust_minimum or newer; use rustup targets instead (docs/arm.md)"

# What is wanted, with all it needs; then without what every system has, and without foreign libraries.
wanted="rustc-web libstd-rust-web-dev libstd-rust-web-dev:arm64 rust-web-src
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
    qemu-user-static qemu-user proot debootstrap"
kept='rustc-web|libstd-rust-web-[^ ]*|rust-web-src|libllvm[^ ]*|libz3-[^ ]*|libxml2|libicu[^ ]*|libedit2|libbsd0|libmd0|libffi8|libtinfo6|liblzma5|zlib1g|libzstd1'
kept="$kept|[^ ]*-(aarch64-linux-gnu|arm-linux-gnueabihf)(-base)?|(linux-libc-dev|libc6|libc6-dev|libgcc-s1|libgcc-12-dev)-(arm64|armhf)-cross"
kept="$kept|binutils-common|libbinutils|libisl23|libmpc3|libmpfr6|libgmp10|libctf[^ ]*|libgprofng0|libjansson4"
kept="$kept|qemu-user-static|qemu-user|libcapstone4|libnuma1|liburing2|libglib2.0-0|libpcre2-8-0|proot|libtalloc2|debootstrap"
# shellcheck disable=SC2086 # a list of words
apt-get install --simulate --yes $wanted 2>>"$log" |
    sed -nE 's/^Inst ([^ :]+)(:[a-z0-9]+)? \(([^ ]+) .*\[([a-z0-9]+)\]\).*/\1 \3 \4/p' |
    grep -E "^($kept) " | grep -vE '^(libstd-rust-web-[^ d]|lib(llvm|z3|xml2|icu|edit|bsd|md0|ffi|tinfo|lzma|zstd)|zlib1g)[^ ]* [^ ]* arm64$' \
    >"$prefix/packages" || broken "the packages do not fit together"

echo "setup: fetching $(wc -l <"$prefix/packages") packages"
(
    cd "$work/debs"
    # shellcheck disable=SC2046 # a list of words
    run apt-get download $(awk '{ print $1 ($3 == "all" ? "" : ":" $3) "=" $2 }' "$prefix/packages")
) || broken "packages could not be fetched from $mirror"
run python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r cross/requirements.txt -d "$work/debs" ||
    broken "zig could not be fetched from the Python package index"

echo "setup: unpacking"
for package in "$work"/debs/*.deb; do
    case ${package##*/} in
    # Of these a small part is needed.
    rust-web-src_*) parts=(--wildcards './usr/src/*/library/*' './usr/lib/*') ;;
    qemu-user-static_*) parts=(./usr/bin/qemu-aarch64-static ./usr/bin/qemu-arm-static) ;;
    qemu-user_*) parts=(./usr/bin/qemu-aarch64 ./usr/bin/qemu-arm) ;;
    *) parts=() ;;
    esac
    dpkg-deb --fsys-tarfile "$package" 2>>"$log" | run tar -x -C "$prefix/root" "${parts[@]}" || broken "${package##*/} cannot be unpacked"
done
run python3 -m zipfile -e "$work"/debs/ziglang-*.whl "$prefix/zig" || broken "zig cannot be unpacked"
chmod +x "$prefix/zig/ziglang/zig"

# The programs are started through scripts that tell them where their libraries are. gcc and rustc start others, which must be told
# as well; what emulates programs must not tell those.
libraries=$prefix/root/usr/lib/x86_64-linux-gnu
starter() {
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$2" >"$prefix/bin/$1"
    chmod +x "$prefix/bin/$1"
}
for program in "$prefix"/root/usr/bin/{aarch64-linux-gnu,arm-linux-gnueabihf}-{gcc,ar,strip,readelf}; do
    starter "${program##*/}" "$program"
done
starter rustc "$prefix/root/usr/bin/rustc\" --sysroot \"$prefix/root/usr"
starter rustdoc "$prefix/root/usr/bin/rustdoc\" --sysroot \"$prefix/root/usr"
for program in aarch64 arm; do
    cp "$prefix/root/usr/bin/qemu-$program-static" "$prefix/bin/"
done
for program in proot qemu-aarch64 qemu-arm; do
    printf '#!/bin/sh\nexec /lib64/ld-linux-x86-64.so.2 --library-path "%s" "%s" "$@"\n' "$libraries" "$prefix/root/usr/bin/$program" >"$prefix/bin/$program"
    chmod +x "$prefix/bin/$program"
done
ln -s "$prefix/zig/ziglang/zig" "$prefix/bin/zig"

first_line() {
    "$@" 2>>"$log" | head -n 1 | grep . || broken "${1##*/} does not start"
}
{
    first_line "$prefix/bin/rustc" --version
    first_line "$prefix/bin/aarch64-linux-gnu-gcc" --version
    first_line "$prefix/bin/arm-linux-gnueabihf-gcc" --version
    first_line "$prefix/bin/qemu-aarch64-static" --version
    echo "zig $(first_line "$prefix/bin/zig" version)"
} >"$prefix/versions"
rm -rf "$work"
echo "$made_by" >"$prefix/made-by"
echo "setup: the tool chain is in $prefix:"
sed 's/^/    /' "$prefix/versions"
