#!/bin/sh
# The whole way on one photo. Usage: demo.sh [PRESET]
#   without one: the small trained model that comes with polc codes a photo, decodes it and predicts from the file;
#   polc-base, polc-tiny: weights by formula -> checkpoint -> bundle -> .polc file -> picture.
set -eu
preset=${1:-nano}
tests=$(cd "$(dirname "$0")/../tests" && pwd)
mkdir -p demo
cd demo

photo=$(python -c 'import matplotlib.cbook as c; print(c.get_sample_data("grace_hopper.jpg", asfileobj=False))')
cp "$photo" photo.jpg

if [ "$preset" = nano ]; then
    bundle=nano
else
    bundle="$preset.bundle"
    echo "== A checkpoint with weights by formula. They are not trained: the pictures mean nothing,"
    echo "== but every number below (bytes, bits per pixel, times, errors) is real."
    python "$tests/formula.py" "$preset" "$preset.safetensors"
    echo "== Export: thirteen ONNX graphs, each compared with PyTorch."
    polc-export --stage1 "$preset.safetensors" --out "$bundle" --force
fi

export POLC_BUNDLE="$bundle"
echo "== Compress, check, decompress, with the runtime that knows nothing of torch."
for quality in 1 4.5 8; do
    polc compress photo.jpg -o "photo_q$quality.polc" --quality "$quality" --force --verbose
    polc decompress "photo_q$quality.polc" -o "photo_q$quality.png" --force
done
polc verify photo_q*.polc
polc info photo_q4.5.polc

if [ "$preset" = nano ]; then
    echo "== The same at every quality against JPEG, from real files, and the curves in rd.png."
    polc-bench rd photo.jpg --codec polc --codec jpeg -o rd --plot rd.png --force
    echo "== Predict from the bitstream, without making pixels: thumbnails (CIFAR-10's classes, none of them a person) ..."
    polc compress photo.jpg -o thumb.polc --for-task cifar10 --quality 4 --force
    polc infer thumb.polc --task cifar10
    echo "== ... and streets (CamVid's classes); demo/street_overlay.png shows the regions."
    polc infer photo_q4.5.polc --task camvid -o street.png --force
fi
echo "== Everything is in demo/."
