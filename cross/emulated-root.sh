#!/usr/bin/env bash
# Makes a Debian for an ARM processor and runs programs in it: no rights are needed, nothing of this machine changes.
#
#   cross/emulated-root.sh arm64|armhf SUITE                       make it, unless it is there, and say where it is
#   cross/emulated-root.sh arm64|armhf SUITE PROGRAM [ARGUMENTS…]  run a program in it, as root
#
# It lies below the target folder. It is made by debootstrap under proot, which lets files have other owners; programs run in namespaces
# of their own, with a binfmt_misc of their own that has qemu run them, which takes Linux 6.7 or newer. RTPT_PACKAGES names packages to have from the beginning, with commas.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "emulated-root: $1" >&2
    exit 1
}
[ $# -ge 2 ] || fail "expected an architecture and a suite of Debian: cross/emulated-root.sh arm64 bullseye"
architecture=$1 suite=$2
case $architecture in
arm64) emulator=qemu-aarch64-static cpu=cortex-a72 class=02 machine=b7 ;;
armhf) emulator=qemu-arm-static cpu=cortex-a7 class=01 machine=28 ;;
*) fail "unknown architecture $architecture, expected arm64 or armhf" ;;
esac
shift 2
cross/setup-debian.sh --check
prefix=$(realpath "${RTPT_TOOLCHAIN:-cross/.toolchain}")
place=$(realpath -m "${CARGO_TARGET_DIR:-target}/emulated-$suite-$architecture${RTPT_PACKAGES:+-${RTPT_PACKAGES//,/-}}")
root=$place/root
log=$place/log

# What the emulated processor says of itself.
cpuinfo=$prefix/emulated/$cpu/proc/cpuinfo
[ -e "$cpuinfo" ] || cross/emulate.sh "$cpu" --version >/dev/null

plain="PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive"

inside() {
    # shellcheck disable=SC2016 # for the shell inside
    unshare --map-root-user --mount sh -ec '
        root=$1 emulator=$2 cpuinfo=$3 cpu=$4 class=$5 machine=$6 plain=$7
        shift 7
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        zeros="\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        magic="\x7fELF\x$class\x01\x01$zeros\x02\x00\x$machine\x00"
        mask="\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
        printf %s ":rtpt-emulated:M::$magic:$mask:$emulator:F" >/proc/sys/fs/binfmt_misc/register
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$cpuinfo" "$root/proc/cpuinfo"
        exec chroot "$root" /usr/bin/env -i $plain QEMU_CPU="$cpu" "$@"
    ' sh "$root" "$prefix/bin/$emulator" "$cpuinfo" "$cpu" $class $machine "$plain" "$@"
}
can_enter() {
    # shellcheck disable=SC2016
    unshare --map-root-user --mount sh -c 'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc' >/dev/null 2>&1
}
can_enter || fail "no binfmt_misc in a namespace here; this needs Linux 6.7 or newer that lets users make namespaces, found $(uname -r)"

if [ ! -e "$place/ready" ]; then
    echo "emulated-root: making $suite for $architecture (minutes; the log is $log)" >&2
    rm -rf "$place"
    mkdir -p "$place"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e $keyring ] || keyring=${keyring%.gpg}.pgp
    [ -e $keyring ] || fail "Debian's archive keys are missing; run: apt install debian-archive-keyring"
    env DEBOOTSTRAP_DIR="$prefix/root/usr/share/debootstrap" "$prefix/bin/proot" -0 "$prefix/root/usr/sbin/debootstrap" \
        --arch="$architecture" --foreign --variant=minbase ${RTPT_PACKAGES:+--include="$RTPT_PACKAGES"} --keyring="$keyring" \
        "$suite" "$root" "${RTPT_DEBIAN_MIRROR:-http://deb.debian.org}/debian" >"$log" 2>&1 ||
        fail "debootstrap failed; is there a network? The log is $log"
    # Under proot it takes /proc for one that it may not make.
    [ ! -L "$root/proc" ] || rm "$root/proc"
    mkdir -p "$root/proc"
    # shellcheck disable=SC2086 # a list of words
    env -i $plain DEBOOTSTRAP_DIR=/debootstrap "$prefix/bin/proot" -0 -q "$prefix/bin/$emulator -cpu $cpu" -r "$root" -b /proc -b /dev -w / \
        /debootstrap/debootstrap --second-stage >>"$log" 2>&1 || fail "debootstrap's second stage failed; the log is $log"
    touch "$place/ready"
fi
if [ $# = 0 ]; then
    echo "$root"
else
    inside "$@"
fi
