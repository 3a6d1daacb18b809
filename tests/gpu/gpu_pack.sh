#!/usr/bin/env bash
# Collects in one folder what a GPU machine without a network lacks, for gpu_check.sh --pack.
#
#     tests/gpu/gpu_pack.sh OUT [TRT_PYTHON [MAIN_VERSION]]
#
# TRT_PYTHON (python3.10 by default) is a Python of the version that TensorRT runs in over there: the native
# coder is built for it. MAIN_VERSION (3.12 by default) is that of the Python with torch: wheels for it.
# Writes OUT/coder/_rans.*.so, OUT/wheels/*.whl, and OUT/tensorrt/*.h, copied from $TENSORRT_INCLUDE_DIR where that is set: with them the TensorRT plugin is built over there.
set -euo pipefail
out=${1:?usage: gpu_pack.sh OUT [TRT_PYTHON [MAIN_VERSION]]}
trt_python=$(command -v "${2:-python3.10}") || { echo "gpu_pack.sh: ${2:-python3.10} is not there" >&2; exit 2; }
main_version=${3:-3.12}
repository=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out/coder" "$out/wheels"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$trt_python" -m pip install --quiet --target "$work/tools" "nanobind>=2.4"
nanobind=$(PYTHONPATH="$work/tools" "$trt_python" -m nanobind --cmake_dir)
cmake -S "$repository" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DPOLC_CUDA=OFF -DPOLC_TENSORRT=OFF \
    -DPython_EXECUTABLE="$trt_python" -Dnanobind_DIR="$nanobind" > "$work/log" || { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build" --target _rans > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
cp "$work"/build/_rans*.so "$out/coder/"

platforms=()
for glibc in 34 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
"$trt_python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$main_version" \
    --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 -d "$out/wheels" \
    "compressai>=1.2.6" pytorch-msssim tomli

if [ -n "${TENSORRT_INCLUDE_DIR:-}" ]; then
    mkdir -p "$out/tensorrt"
    cp "$TENSORRT_INCLUDE_DIR"/Nv*.h "$out/tensorrt/"
fi
du -sh "$out"
