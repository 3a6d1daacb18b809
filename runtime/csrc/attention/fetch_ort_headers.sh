#!/bin/sh
# Puts ONNX Runtime's C headers below OUT and prints the folder to give the build as ORT_INCLUDE_DIR.
#
#     runtime/csrc/attention/fetch_ort_headers.sh OUT
#
# The wheels of onnxruntime ship no headers. Debian 13 (trixie) packages those of 1.21, the oldest runtime the
# project runs on; an op built with them loads in every later one, and nothing is linked. The package is
# unpacked, not installed: apt's lists and cache lie in OUT too, so that nothing outside it changes and no
# rights are needed. A folder named by ORT_INCLUDE_DIR is taken as it is, and nothing is fetched.
#
# Needs apt-get, dpkg and a network. Elsewhere take the headers of a release's archive
# (https://github.com/microsoft/onnxruntime/releases) or of a system package, and set ORT_INCLUDE_DIR.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 OUT" >&2
    exit 2
fi

has_headers() {
    [ -f "$1/onnxruntime_c_api.h" ]
}

if [ -n "${ORT_INCLUDE_DIR:-}" ]; then
    if ! has_headers "$ORT_INCLUDE_DIR"; then
        echo "ORT_INCLUDE_DIR=$ORT_INCLUDE_DIR has no onnxruntime_c_api.h" >&2
        exit 1
    fi
    echo "$ORT_INCLUDE_DIR"
    exit 0
fi

mkdir -p "$1"
out=$(cd "$1" && pwd)
include=$out/usr/include/onnxruntime
if has_headers "$include"; then
    echo "$include"
    exit 0
fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || { echo "$0 needs $tool; set ORT_INCLUDE_DIR instead" >&2; exit 1; }
done

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$out/apt/lists/partial" "$out/apt/cache/archives/partial"
echo "deb [signed-by=$keyring] $mirror trixie main" >"$out/apt/sources.list"
: >"$out/apt/status"

private_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$out/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$out/apt/lists" -o Dir::State::status="$out/apt/status" \
        -o Dir::Cache="$out/apt/cache" -o APT::Sandbox::User= "$@" >&2
}

private_apt update
cd "$out/apt"
private_apt download libonnxruntime-dev
dpkg -x libonnxruntime-dev_*.deb "$out"
rm -rf "$out/apt"
has_headers "$include" || { echo "libonnxruntime-dev holds no onnxruntime_c_api.h" >&2; exit 1; }
echo "$include"
