#!/bin/sh
# The whole way on one photo: weights -> checkpoint -> bundle -> .polc file -> picture. Usage: demo.sh [PRESET]
set -eu
preset=${1:-polc-base}
mkdir -p demo
cd demo

photo=$(python -c 'import matplotlib.cbook as c; print(c.get_sample_data("grace_hopper.jpg", asfileobj=False))')
cp "$photo" photo.jpg

echo "== A checkpoint with weights by formula. They are not trained: the pictures mean nothing,"
echo "== but every number below (bytes, bits per pixel, times, errors) is real."
python -m polc.formula "$preset" "$preset.safetensors"

echo "== Export: twelve ONNX graphs, each compared with PyTorch."
polc-export --stage1 "$preset.safetensors" --out "$preset.bundle" --force

echo "== Compress, check, decompress, with the runtime that knows nothing of torch."
export POLC_BUNDLE="$preset.bundle"
for quality in 1 4.5 8; do
    polc compress photo.jpg -o "photo_q$quality.polc" --quality "$quality" --force --verbose
done
polc verify photo_q*.polc
polc decompress photo_q4.5.polc -o photo_q4.5.png --force --verbose
polc info photo_q4.5.polc
