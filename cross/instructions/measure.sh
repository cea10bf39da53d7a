#!/usr/bin/env bash
# Counts the instructions that an ARM processor executes for one view through an encoder, of rtpt and of onnxruntime, both on one
# thread under the same emulation: cross/instructions/measure.sh [CPU [NAME ONNX RESOLUTION WIDTH [THEIRS]]]
#
# CPU is cortex-a72 if nothing is said, and the encoder the demo bundle's. THEIRS is another file of the same encoder for onnxruntime, whose own
# tools bring it to int8. The count is that of three runs less that of one, by two: what
# comes once is not in it. Needs the tool chain and a network, for onnxruntime and a Python to run it.
set -euo pipefail
cd "$(dirname "$0")/../.."

cpu=${1:-cortex-a72} name=${2:-demo} onnx=${3:-models/demo/bundle/image_encoder.onnx} resolution=${4:-72} width=${5:-128}
theirs_onnx=${6:-$onnx}
# Later ones (1.32.0) end with a segmentation fault under this emulator.
version=1.22.1
prefix=$(realpath "${RTPT_TOOLCHAIN:-cross/.toolchain}")
work=$(realpath -m "${CARGO_TARGET_DIR:-target}/instructions")
mkdir -p "$work"

root=$(RTPT_PACKAGES=python3,python3-numpy cross/emulated-root.sh arm64 bookworm)
if [ ! -e "$root/opt/onnxruntime-$version" ]; then
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_27_aarch64 --python-version 3.11 --implementation cp "onnxruntime==$version" -d "$work"
    python3 -m zipfile -e "$work"/onnxruntime-$version-*.whl "$root/opt/onnxruntime-$version"
fi
cp cross/instructions/encode.py "$root/opt/encode.py"
cp "$theirs_onnx" "$root/opt/$name.onnx"
cross/cargo.sh aarch64 bench --profile packaged --bench instructions --no-run >"$work/build.log" 2>&1 || {
    tail -n 5 "$work/build.log" >&2
    exit 1
}
ours=$(find "${CARGO_TARGET_DIR:-target}"/cross/aarch64-unknown-linux-gnu/packaged/deps -name 'instructions-*' -executable -printf '%T@ %p\n' |
    sort -n | tail -n 1 | cut -d ' ' -f 2)

cc -shared -fPIC -O2 -o "$work/count.so" cross/instructions/count.c
printf '#!/bin/sh\nexec "%s" -plugin "%s" "$@"\n' "$prefix/bin/qemu-aarch64" "$work/count.so" >"$work/emulator"
chmod +x "$work/emulator"
export RTPT_EMULATOR=$work/emulator RTPT_INSTRUCTIONS=$work/count

# Executed instructions of a command that is given a number of runs, for one run.
of_one() {
    for runs in 1 3; do
        rm -f "$work/count"
        "$@" $runs >"$work/output" && cp "$work/count" "$work/count-$runs" || return 1
    done
    echo $((($(cat "$work/count-3") - $(cat "$work/count-1")) / 2))
}
rtpt=$(of_one cross/emulate.sh "$cpu" "$ours" "$onnx" "$resolution" "$width")
# Python's own standard library is found from where the program lies; what alternatives choose is not.
libraries=$root/usr/lib/aarch64-linux-gnu
theirs=$(
    export PYTHONPATH=$root/opt/onnxruntime-$version LD_LIBRARY_PATH=$libraries/blas:$libraries/lapack
    of_one "$RTPT_EMULATOR" -cpu "$cpu" -L "$root" "$root/usr/bin/python3.11" "$root/opt/encode.py" "$root/opt/$name.onnx" "$resolution"
)
awk -v name="$name" -v cpu="$cpu" -v a="$rtpt" -v b="$theirs" -v version=$version 'BEGIN {
    printf "%s on %s: rtpt %.1f, onnxruntime %s %.1f million instructions a view; ratio %.2f\n", name, cpu, a / 1e6, version, b / 1e6, a / b
}'
