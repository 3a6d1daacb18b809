#!/bin/sh
# Runs the CPU attention kernel on random problems under the address and undefined-behaviour sanitizers.
#
#     runtime/csrc/attention/sanitize.sh [PROBLEMS [SEED]]
#
# SANITIZERS chooses others: SANITIZERS=thread finds races. CXX chooses the compiler.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"${CXX:-c++}" -std=c++17 -O1 -g -Wall -Wextra -Werror -pthread -fno-omit-frame-pointer \
    -fsanitize="${SANITIZERS:-address,undefined}" -fno-sanitize-recover=all -I"$here" \
    "$here/../../../tests/runtime/csrc/na2d_driver.cc" "$here/c_api.cc" -o "$folder/driver"
"$folder/driver" "${1:-200}" "${2:-0}"
