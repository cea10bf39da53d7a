#!/usr/bin/env bash
# Runs an ARM program on this machine as a processor would: cross/emulate.sh CPU PROGRAM [ARGUMENTS…]
#
# CPU is cortex-a53 (Pi 3), cortex-a72 (Pi 4), cortex-a76 (Pi 5; Orin is like it) or cortex-a7 (32 bits). The program sees
# that processor's /proc/cpuinfo, by which the inference engine chooses its kernels; of the rest it sees this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=$(cd "$here/.." && realpath -m "${RTPT_TOOLCHAIN:-cross/.toolchain}")

fail() {
    echo "emulate: $1" >&2
    exit 1
}
[ $# -ge 2 ] || fail "expected a processor and a program: cross/emulate.sh cortex-a72 PROGRAM"
cpu=$1
shift
common="fp asimd evtstrm"
case $cpu in
cortex-a53) part=0xd03 features="$common crc32 cpuid" ;;
cortex-a72) part=0xd08 features="$common crc32 cpuid" ;;
cortex-a76)
    part=0xd0b
    features="$common aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    ;;
cortex-a7) part=0xc07 features="half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae" ;;
*) fail "unknown processor $cpu, expected cortex-a53, cortex-a72, cortex-a76 or cortex-a7" ;;
esac
case $cpu in
cortex-a7) emulator=qemu-arm triple=arm-linux-gnueabihf architecture=7 ;;
*) emulator=qemu-aarch64 triple=aarch64-linux-gnu architecture=8 ;;
esac
[ -x "$prefix/bin/$emulator-static" ] || fail "no emulator in $prefix; run: cross/setup-debian.sh"

root=$prefix/emulated/$cpu
if [ ! -e "$root/ready" ]; then
    mkdir -p "$root/proc"
    ln -sfn "$prefix/root/usr/$triple/lib" "$root/lib"
    {
        echo "processor	: 0"
        echo "Features	: $features"
        printf 'CPU implementer\t: 0x41\nCPU architecture: %s\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 3\n' $architecture $part
    } >"$root/proc/cpuinfo.$$"
    mv "$root/proc/cpuinfo.$$" "$root/proc/cpuinfo"
    touch "$root/ready"
fi
# RTPT_EMULATOR is another build of the emulator, such as the one that takes plugins.
exec "${RTPT_EMULATOR:-$prefix/bin/$emulator-static}" -cpu "$cpu" -L "$root" "$@"
