#!/usr/bin/env bash
# What the model card reports: the accuracy of a bundle on photos that it was not trained on, clean, corrupted and attacked. Hours on two cores, most of them for
# the attacks with gradients; what is there already is not made again.
#
#   models/everyday/eval.sh BUNDLE DATA WORK OUT [PART…]
#
# PART is `photos`, `shots`, `attacks` or `attacked`; without, all. The photos, changed ones too, come to WORK, the reports to OUT. ATTACKED is how many photos of
# a set are attacked, BUNDLE's own encoder being what the attacker knows.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 data=$(realpath "$2") work=$3 out=$4
shift 4
parts=${*:-photos shots attacks attacked}
rtpt=${RTPT:-target/release/rtpt} python=models/.venv/bin/python attacked=${ATTACKED:-150}
samples=$data/imagenet-samples
sets="imagenet caltech101 clothing cifar10"
mkdir -p "$out" "$work/labels" "$work/names"

# Every set as folders of its classes, the labels to tell apart, and what the folders are called as labels.
if [ ! -d "$work/photos" ]; then
    mkdir -p "$work/making/imagenet"
    find "$samples" -name 'n*.jpg' | while read -r photo; do
        install -D -m 644 -t "$work/making/imagenet/$(basename "$photo" .jpg)" "$photo"
    done
    cp -r "$data/caltech101/test" "$work/making/caltech101"
    cp -r "$data/clothing/test" "$work/making/clothing"
    # The last of each class: training has the first.
    $python models/everyday/cifar10.py --data "$data" --out "$work/making/cifar10"
    mv "$work/making" "$work/photos"
fi
# ImageNet's 1,000 names, with their synsets as identifiers: two names occur twice.
grep '^n' "$samples/classes.tsv" | cut -f 1,2 > "$work/labels/imagenet"
cp models/demo/caltech101-folders.tsv "$work/names/caltech101"
cp models/everyday/clothing-folders.tsv "$work/names/clothing"
: > "$work/names/cifar10"
cp "$work/labels/imagenet" "$work/names/imagenet"
for set in caltech101 clothing cifar10; do
    ls "$work/photos/$set" | awk -F '\t' 'FNR == NR { if (!/^#/) name[$1] = $2; next } { label = $1 in name ? name[$1] : $1; gsub("_", " ", label); print label }' \
        "$work/names/$set" - | sort -u > "$work/labels/$set"
done
(echo path,label && grep -v '^#' models/everyday/typed.tsv | sed "s#^#$samples/#; s#\t#,#") > "$work/typed.csv"
grep -v '^#' models/everyday/typed.tsv | cut -f 2 | sort -u > "$work/labels/typed"

of() { # the options that a set needs
    echo --labels "$work/labels/$1"
    # The synsets are the labels' identifiers.
    [ "$1" = imagenet ] || [ ! -s "$work/names/$1" ] || echo --class-names "$work/names/$1"
    # A step with 1,000 classes takes seconds; those that no view finds likely change nothing.
    [ "$1" != imagenet ] || echo --set context.class_cutoff=1e-3
}
eval() { "$rtpt" eval --bundle "$bundle" "$@"; }

photos() {
    for set in $sets; do
        eval photos="$work/photos/$set" $(of $set) --report "$out/$set" --curve 1,4,8
    done
    eval typed="$work/typed.csv" --labels "$work/labels/typed" --report "$out/typed"
}

shots() {
    eval by-example="$work/photos/caltech101" $(of caltech101) --report "$out/shots" --shots 1,4,16 --examples "$data/caltech101/train" \
        --methods zero-shot,none,view-shift
}

attacks() {
    models/setup.sh
    for set in $sets; do
        local to="$work/attacked/$set"
        local given=(--bundle "$bundle" --labels "$work/labels/$set" --pseudo-labels)
        [ ! -s "$work/names/$set" ] || given+=(--class-names "$work/names/$set")
        made() { # $1, from the photos $2
            [ -e "$to/$1.made" ] || $python models/attack.py "${given[@]}" --photos "$2" --out "$to/$1" "${@:3}"
            touch "$to/$1.made"
        }
        # In the model's size, as the papers attack.
        made clean "$work/photos/$set" --eps 0 --at-model-resolution --count "$attacked"
        made pgd1 "$to/clean" --attack pgd --eps 1 --steps 7
        made pgd4 "$to/clean" --attack pgd --eps 4 --steps 20
        made eot "$to/clean" --attack eot --eps 4 --steps 10 --views 4
        for name in square corruptions; do
            # What was interrupted is begun again: `rtpt attack` writes to a new folder.
            [ -e "$to/$name/attack.json" ] || rm -rf "$to/$name"
        done
        local names=()
        [ $set = imagenet ] || [ ! -s "$work/names/$set" ] || names=(--class-names "$work/names/$set")
        [ -d "$to/square" ] || "$rtpt" attack square "$to/clean" --bundle "$bundle" --labels "$work/labels/$set" "${names[@]}" --eps 4/255 --queries 500 --out "$to/square"
        [ -d "$to/corruptions" ] || "$rtpt" attack corruptions "$to/clean" --bundle "$bundle" --labels "$work/labels/$set" "${names[@]}" --severities 3 --out "$to/corruptions"
    done
}

attacked() {
    for set in $sets; do
        local to="$work/attacked/$set"
        eval $(of $set) --report "$out/$set-attacked" --curve 1,4,8 \
            clean="$to/clean" pgd-1="$to/pgd1" pgd-4="$to/pgd4" square="$to/square" eot="$to/eot" corruptions="$to/corruptions"
    done
}

for part in $parts; do
    $part
done
