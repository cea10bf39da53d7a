#!/usr/bin/env bash
# Installs a package in an emulated Debian and uses it there: cross/test-package.sh arm64|armhf FOLDER [SUITE]
#
# SUITE is bullseye if nothing is said, which has glibc 2.31, as JetPack 5 has.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "test-package: $1" >&2
    exit 1
}
[ $# -ge 2 ] || fail "expected an architecture and a folder: cross/test-package.sh arm64 target/packages/arm64"
architecture=$1 folder=$2 suite=${3:-bullseye}
package=$(ls "$folder"/rtpt_*_"$architecture".deb 2>/dev/null) || fail "no package for $architecture in $folder; run: make packages"
root=$(cross/emulated-root.sh "$architecture" "$suite")
place=$(dirname "$root")
inside() {
    cross/emulated-root.sh "$architecture" "$suite" "$@"
}

# shellcheck disable=SC2016 # for the shell inside
echo "test-package: $(inside /bin/sh -c '. /etc/os-release; echo "$PRETTY_NAME, glibc $(dpkg-query -Wf "\${Version}" libc6), $(uname -m)"')"
cp "$package" "$root/rtpt.deb"
inside /usr/bin/dpkg --purge rtpt >"$place/purge" 2>&1 || true
inside /usr/bin/dpkg --install /rtpt.deb 2>&1 | sed 's/^/    /'
inside /usr/bin/dpkg --verify rtpt || fail "installed files are not those of the package"
inside /usr/bin/rtpt doctor --no-timing >"$place/doctor"
sed 's/^/    /' "$place/doctor"
grep -q "^bundle *ok" "$place/doctor" || fail "the doctor finds the bundle wrong there"

echo "test-package: classifying the demo photos, there and here"
cargo build --locked --quiet --bin rtpt
here=${CARGO_TARGET_DIR:-target}/debug/rtpt
# A view takes seconds there, and several times as many with 32 bits: all photos by one view, and a photo and its attacked copy by the
# bundle's own method.
classify="classify --json --cache off --batch 1"
all="$classify --method zero-shot --views 1"
few="$classify --views 8"
# shellcheck disable=SC2086 # lists of words
{
    inside /usr/bin/rtpt $all /usr/share/rtpt/bundles/photos
    inside /usr/bin/rtpt $few /usr/share/rtpt/bundles/photos/airplane.jpg /usr/share/rtpt/bundles/photos/airplane-attacked.png
} >"$place/there.jsonl"
# shellcheck disable=SC2086
{
    "$here" $all models/everyday/photos
    "$here" $few models/everyday/photos/airplane.jpg models/everyday/photos/airplane-attacked.png
} >"$place/here.jsonl"
# Without int8 kernels weights in int8 are multiplied in f32.
tolerance=0.002
[ "$architecture" = arm64 ] || tolerance=0.05
python3 - "$place/there.jsonl" "$place/here.jsonl" "$tolerance" <<'PYTHON'
import json, os, sys
there, here = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
key = lambda record: (os.path.basename(record["path"]), record["method"], record["digest"], record["label"], record["zero_shot"]["label"])
assert len(here) == 34, f"{len(here)} records here"
different = set(map(key, there)) ^ set(map(key, here))
assert not different, f"answers differ: {sorted(different)}"
probabilities = {key(record): record["probability"] for record in here}
largest = max(abs(record["probability"] - probabilities[key(record)]) for record in there)
assert largest < float(sys.argv[3]), f"probabilities differ by {largest}"
print(f"    {len(here)} records: the same labels, probabilities within {largest:.1e}")
PYTHON
inside /bin/sh -c 'test -e /etc/rtpt/rtpt.toml && test -e /lib/systemd/system/rtpt.service && zcat /usr/share/man/man1/rtpt-serve.1.gz | grep -q rtpt' ||
    fail "a file of the package is missing"
inside /usr/bin/dpkg --purge rtpt >"$place/purge" 2>&1 || fail "it cannot be removed: $(tail -n 1 "$place/purge")"
[ ! -e "$root/usr/bin/rtpt" ] && [ ! -e "$root/etc/rtpt" ] || fail "something is left after its removal"
echo "test-package: $(basename "$package") installs, runs and goes"
