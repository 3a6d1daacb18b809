#!/bin/sh
# From a photo to a prediction. Usage: demo.sh [PRESET]
#   without PRESET: the small trained model in the package codes a photo, decodes it and predicts from the file;
#   polc-base, polc-tiny: weights from a formula -> checkpoint -> bundle -> .polc file -> image.
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
    echo "== A checkpoint with weights from a formula. They are not trained: the images mean nothing,"
    echo "== but every number below (bytes, bits per pixel, times, errors) is real."
    python "$tests/formula.py" "$preset" "$preset.safetensors"
    echo "== Export: thirteen ONNX graphs, each compared with PyTorch."
    polc-export --stage1 "$preset.safetensors" --out "$bundle" --force
fi

export POLC_BUNDLE="$bundle"
echo "== Compress, check, decompress, with the runtime that does not need torch."
for quality in 1 4.5 8; do
    polc compress photo.jpg -o "photo_q$quality.polc" --quality "$quality" --force --verbose
    polc decompress "photo_q$quality.polc" -o "photo_q$quality.png" --force
done
polc verify photo_q*.polc
polc info photo_q4.5.polc

if [ "$preset" = nano ]; then
    echo "== Every quality against JPEG, from real files; the curves are in demo/rd.png."
    polc-bench rd photo.jpg --codec polc --codec jpeg -o rd --plot rd.png --force
    echo "== Predict from the bitstream, without making pixels: thumbnails (CIFAR-10 has no class for a person) ..."
    polc compress photo.jpg -o thumb.polc --for-task cifar10 --quality 4 --force
    polc infer thumb.polc --task cifar10
    echo "== ... and streets (CamVid's classes); demo/street_overlay.png shows the regions."
    polc infer photo_q4.5.polc --task camvid -o street.png --force
fi
echo "== Everything is in demo/."
