#!/usr/bin/env bash
# Measures the demo bundle: on the photos that ship with it, and, where DATA has the photos it was held out from, on 1,000 of
# those, clean and attacked. The second takes about an hour on two cores; what is there already is not made again.
#
#   models/eval_demo.sh RTPT OUT DATA
set -euo pipefail
cd "$(dirname "$0")/.."
rtpt=$1 out=$2 data=$3
bundle=models/demo/bundle names=models/demo/caltech101-folders.tsv photos=models/demo/photos
mkdir -p "$out"

for column in 1 2; do
    name=$([ $column = 1 ] && echo clean || echo attacked)
    awk -F '\t' -v column=$column 'BEGIN { print "path,label" } !/^#/ { print $column "," $3 }' $photos/photos.tsv > "$out/$name.csv"
done
rm -rf "$out/photos"
"$rtpt" eval --bundle $bundle --images $photos --report "$out/photos" --curve 4,8,16,32 \
    clean="$out/clean.csv" attacked="$out/attacked.csv"

test=$data/caltech101/test
if [ ! -d "$test" ]; then
    echo "There is no $test (see models/README.md), so that the held-out photos are not measured."
    exit
fi

models/setup.sh
attack() {
    [ -e "$out/$1.made" ] || models/.venv/bin/python models/attack.py --bundle $bundle --photos "$test" --class-names $names \
        --count 1000 --at-model-resolution --out "$out/$1" "${@:2}"
    touch "$out/$1.made"
}
attack clean --eps 0
attack pgd1 --attack pgd --eps 1 --steps 7
attack pgd4 --attack pgd --eps 4 --steps 100
attack eot --attack eot --eps 4 --steps 20 --views 6
# What was interrupted is begun again: the attack writes to a new folder.
[ -e "$out/square/attack.json" ] || {
    rm -rf "$out/square"
    "$rtpt" attack square "$out/clean" --bundle $bundle --class-names $names \
        --at-model-resolution --eps 4/255 --queries 500 --out "$out/square"
}

# The same photos in their own size, and the held-out ones that are not among them.
list() { # of the photos whose PNG is in $out/clean ($1 = yes), or is not
    echo path,label
    find "$test" -name '*.jpg' | sort | while read -r photo; do
        class=$(basename "$(dirname "$photo")")
        there=$([ -e "$out/clean/$class/$(basename "$photo" .jpg).png" ] && echo yes || echo no)
        [ "$there" != "$1" ] || echo "$(realpath "$photo"),$class"
    done
}
list yes > "$out/originals.csv"
list no > "$out/others.csv"

"$rtpt" eval --bundle $bundle --class-names $names --report "$out/held-out" --curve 4,8,16,32 --save-features \
    clean="$out/clean" photos="$out/originals.csv" pgd-1="$out/pgd1" pgd-4="$out/pgd4" square="$out/square" eot="$out/eot"
models/.venv/bin/python models/check_eval.py "$out/held-out" --bundle $bundle
