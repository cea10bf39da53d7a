#!/usr/bin/env bash
# What the model card reports: the accuracy of a bundle on photos that it was not trained on, clean, corrupted and attacked. Hours on two cores, most of them for
# the attacks with gradients; what is there already is not made again.
#
#   models/everyday/eval.sh BUNDLE DATA WORK OUT [PART…]
#
# PART is `photos`, `many`, `rounds`, `shots`, `nothing`, `attacks`, `eot`, `attacked` or `rounds-attacked`; without, all. The photos, changed ones too, come to WORK, the reports to OUT. ATTACKED is how many photos of
# a set are attacked, BUNDLE's own encoder being what the attacker knows.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 data=$(realpath "$2") work=$3 out=$4
shift 4
parts=${*:-photos many rounds shots nothing attacks eot attacked rounds-attacked}
rtpt=${RTPT:-target/release/rtpt} python=models/.venv/bin/python attacked=${ATTACKED:-100}
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
echo '# As they are.' > "$work/names/cifar10"
cp "$work/labels/imagenet" "$work/names/imagenet"
for set in caltech101 clothing cifar10; do
    ls "$work/photos/$set" | awk -F '\t' 'FNR == NR { if (!/^#/) name[$1] = $2; next } { label = $1 in name ? name[$1] : $1; gsub("_", " ", label); print label }' \
        "$work/names/$set" - | sort -u > "$work/labels/$set"
done
(echo path,label && grep -v '^#' models/everyday/typed.tsv | sed "s#^#$samples/#; s#\t#,#") > "$work/typed.csv"
grep -v '^#' models/everyday/typed.tsv | cut -f 2 | sort -u > "$work/labels/typed"

labelled() { # the options that a set needs
    echo --labels "$work/labels/$1"
    # The synsets are the labels' identifiers.
    [ "$1" = imagenet ] || echo --class-names "$work/names/$1"
}
of() { # the same where `context` is measured as well
    labelled "$1"
    # A step with 1,000 classes takes seconds; those that no view finds likely change nothing.
    [ "$1" != imagenet ] || echo --set context.class_cutoff=1e-3
}
evaluate() { "$rtpt" eval --bundle "$bundle" "$@"; }

photos() {
    for set in $sets; do
        evaluate photos="$work/photos/$set" $(of $set) --report "$out/$set"
    done
    # `context` has no words to tune in a template.
    evaluate photos="$work/photos/clothing" $(labelled clothing) --template 'a photo of a {}, a type of clothing.' --report "$out/clothing-prompt" \
        --methods zero-shot,view-shift,dbd
    evaluate typed="$work/typed.csv" --labels "$work/labels/typed" --report "$out/typed"
}

# With 64 views, and fewer of them.
many() {
    for set in $sets; do
        evaluate photos="$work/photos/$set" $(labelled $set) --report "$out/$set-many" --views 64 --methods zero-shot,none,view-shift,dbd --curve 2,4,8,16,32
    done
}

# All of 64 views, and only as many as a photo needs.
rounds() {
    for set in $sets; do
        evaluate photos="$work/photos/$set" $(labelled $set) --report "$out/$set-rounds" --views-max 64 --methods zero-shot,view-shift,dbd
    done
}

shots() {
    evaluate by-example="$work/photos/caltech101" $(of caltech101) --report "$out/shots" --shots 1,4,16 --examples "$data/caltech101/train" \
        --methods zero-shot,none,view-shift,dbd
}

# Half of Caltech-101's classes as labels, with "none of these": how many photos of the others are known as such, and how many of theirs are lost.
nothing() {
    awk 'NR % 2' "$work/labels/caltech101" > "$work/labels/half"
    for kept in known others; do
        (echo path,label && find "$work/photos/caltech101" -type f | sort | awk -F / -v kept=$kept -v names="$work/names/caltech101" -v half="$work/labels/half" '
            BEGIN {
                while (getline line < names) { split(line, parts, "\t"); name[parts[1]] = parts[2] }
                while (getline line < half) known[line]
            }
            { folder = $(NF - 1); label = folder in name ? name[folder] : folder; gsub("_", " ", label) }
            (label in known) == (kept == "known") { print $0 "," (label in known ? label : "none of these") }') > "$work/$kept.csv"
    done
    echo 'none of these' >> "$work/labels/half"
    evaluate known="$work/known.csv" others="$work/others.csv" --labels "$work/labels/half" --report "$out/nothing"
}

# Attacks with gradients: set, name, folder of photos, and the options.
made() {
    local to="$work/attacked/$1"
    [ -e "$to/$2.made" ] || $python models/attack.py --bundle "$bundle" --labels "$work/labels/$1" --class-names "$work/names/$1" --pseudo-labels \
        --photos "$3" --out "$to/$2" "${@:4}"
    touch "$to/$2.made"
}

attacks() {
    models/setup.sh
    for set in $sets; do
        local to="$work/attacked/$set"
        # In the model's size, as the papers attack.
        made $set clean "$work/photos/$set" --eps 0 --at-model-resolution --count "$attacked"
        made $set pgd1 "$to/clean" --attack pgd --eps 1 --steps 7
        made $set pgd4 "$to/clean" --attack pgd --eps 4 --steps 20
        # What was interrupted is begun again: `rtpt attack` writes to a new folder.
        [ -e "$to/square/attack.json" ] || rm -rf "$to/square"
        [ -e "$to/corruptions/corruptions.json" ] || rm -rf "$to/corruptions"
        local given=(--bundle "$bundle" --labels "$work/labels/$set")
        # ImageNet's synsets are the labels' identifiers.
        [ $set = imagenet ] || given+=(--class-names "$work/names/$set")
        [ -d "$to/square" ] || "$rtpt" attack square "$to/clean" "${given[@]}" --eps 4/255 --queries 500 --out "$to/square"
        [ -d "$to/corruptions" ] || "$rtpt" attack corruptions "$to/clean" "${given[@]}" --severities 3 --out "$to/corruptions"
        # A third of each kind.
        (echo path,label && find "$(realpath "$to/corruptions")" -name '*.png' | sort | awk -F / 'NR % 3 == 1 { print $0 "," $(NF - 1) }') > "$to/corruptions.csv"
    done
}

# Through the views: the slowest.
eot() {
    for set in $sets; do
        made $set eot "$work/attacked/$set/clean" --attack eot --eps 4 --steps 10 --views 4
    done
}

attacked() {
    for set in $sets; do
        local to="$work/attacked/$set"
        evaluate $(of $set) --report "$out/$set-attacked" --curve 4,8 \
            clean="$to/clean" pgd-1="$to/pgd1" pgd-4="$to/pgd4" square="$to/square" corruptions="$to/corruptions.csv" \
            $([ ! -e "$to/eot.made" ] || echo "eot=$to/eot")
    done
}

rounds-attacked() {
    for set in $sets; do
        local to="$work/attacked/$set"
        evaluate $(labelled $set) --report "$out/$set-rounds-attacked" --views-max 64 --methods zero-shot,view-shift,dbd \
            clean="$to/clean" pgd-1="$to/pgd1" pgd-4="$to/pgd4" square="$to/square" $([ ! -e "$to/eot.made" ] || echo "eot=$to/eot")
    done
}

for part in $parts; do
    $part
done
