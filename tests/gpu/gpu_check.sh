#!/bin/sh
# Everything that wants a GPU, in one run of at most 8 minutes: see gpu_check.py, whose options it takes.
#
#     tests/gpu/gpu_check.sh --out DIR [--bundle BUNDLE] [--trt-python PYTHON --pack DIR] ...
#
# PYTHON names the Python that has torch; by default python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python3}" "$here/gpu_check.py" "$@"
