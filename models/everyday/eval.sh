#!/usr/bin/env bash
# What the model card reports, as far as it needs no attack: the accuracy of a bundle on photos that it was not trained on. Minutes; what is there already is
# not made again.
#
#   models/everyday/eval.sh BUNDLE DATA WORK OUT
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 data=$(realpath "$2") work=$3 out=$4
rtpt=${RTPT:-target/release/rtpt}
samples=$data/imagenet-samples
mkdir -p "$out" "$work"

# ImageNet's 1,000 names, with their synsets as identifiers: two names occur twice.
grep '^n' "$samples/classes.tsv" | cut -f 1,2 > "$work/imagenet.tsv"
(echo path,label && find "$samples" -name '*.jpg' | sort | sed -E 's#(.*/(n[0-9]+)\.jpg)#\1,\2#') > "$work/imagenet.csv"
(echo path,label && grep -v '^#' models/everyday/typed.tsv | sed "s#^#$samples/#; s#\t#,#") > "$work/typed.csv"
grep -v '^#' models/everyday/typed.tsv | cut -f 2 | sort -u > "$work/typed.txt"
# CIFAR-10's photos that training did not see: the last 50 of each class.
[ -d "$work/cifar10" ] || models/.venv/bin/python models/everyday/cifar10.py --data "$data" --out "$work/cifar10"

names() { ls "$1" | sed 's/_/ /g'; }
eval() { "$rtpt" eval --bundle "$bundle" "$@"; }
eval imagenet="$work/imagenet.csv" --labels "$work/imagenet.tsv" --report "$out/imagenet" --curve 4,8
eval typed="$work/typed.csv" --labels "$work/typed.txt" --report "$out/typed"
eval caltech101="$data/caltech101/test" --class-names models/demo/caltech101-folders.tsv --report "$out/caltech101" --curve 4,8
eval clothing="$data/clothing/test" --class-names models/everyday/clothing-folders.tsv --report "$out/clothing" --curve 4,8
eval cifar10="$work/cifar10" --report "$out/cifar10"
eval by-example="$data/caltech101/test" --class-names models/demo/caltech101-folders.tsv --report "$out/shots" \
    --shots 1,4,16 --examples "$data/caltech101/train" --methods zero-shot,none,view-shift
