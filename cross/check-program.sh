#!/bin/sh
# Says which glibc a program needs and how large it is, and fails if it asks too much of a device:
# cross/check-program.sh PROGRAM MEGABYTES [2.31]
#
# 2.31 is what JetPack 5 and Raspberry Pi OS bullseye have. What is read is the version of every symbol the program takes.
set -eu
fail() {
    echo "check-program: $1" >&2
    exit 1
}
[ $# -ge 2 ] || fail "expected a program and its largest size: cross/check-program.sh PROGRAM MEGABYTES [GLIBC]"
program=$1 megabytes=$2 most=${3:-2.31}
case $megabytes in *[!0-9]* | "") fail "the largest size is $megabytes, expected a number of megabytes" ;; esac
case $most in 2.[0-9] | 2.[0-9][0-9]) ;; *) fail "the newest glibc is $most, expected such as 2.31" ;; esac
here=$(cd "$(dirname "$0")/.." && pwd)
toolchain=${RTPT_TOOLCHAIN:-cross/.toolchain}
case $toolchain in /*) ;; *) toolchain=$here/$toolchain ;; esac
readelf=$(command -v readelf || echo "$toolchain/bin/aarch64-linux-gnu-readelf")
[ -x "$readelf" ] || fail "readelf is missing; run: apt install binutils"
symbols=$("$readelf" --wide --version-info "$program" 2>/dev/null) || fail "$program is no program that can be read"
needed=$(printf '%s\n' "$symbols" | grep -o 'GLIBC_[0-9.]*' | cut -d _ -f 2 | sort -Vu | tail -n 1)
[ -n "$needed" ] || fail "$program takes no symbol of glibc: it is no program, or linked statically"
newest=$(printf '%s\n%s\n' "$needed" "$most" | sort -V | tail -n 1)
[ "$newest" = "$most" ] || fail "$program needs glibc $needed, expected $most or older; link it with the tool chain of cross/setup-debian.sh"
libraries=$("$readelf" --wide --dynamic "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
for library in $libraries; do
    case $library in
    libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux*) ;;
    *) fail "$program needs $library, which not every device has; link it with the tool chain of cross/setup-debian.sh" ;;
    esac
done
size=$(wc -c <"$program")
[ "$size" -le "$((megabytes * 1000000))" ] || fail "$program has $size bytes, expected at most $megabytes MB"
echo "$program: $size bytes, needs glibc $needed, $libraries"
