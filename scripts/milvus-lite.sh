#!/usr/bin/env bash
# Fetches Milvus Lite, a small server that speaks Milvus' protocol, by pip into a virtual environment of its own (480 MB):
#
#   target/milvus-lite/bin/milvus-lite
#
# The tests of the feature `milvus` run it, and say that they are skipped where it is not. What is there already stays.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${CARGO_TARGET_DIR:-$root/target}/milvus-lite
python=${PYTHON:-python3}

say() { echo "milvus-lite: $*" >&2; }
die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

if "$folder/bin/milvus-lite" server --help > /dev/null 2>&1; then
    say "$folder/bin/milvus-lite is there"
    exit 0
fi
command -v "$python" > /dev/null || die "$python is needed to fetch it" "install Python 3.10 or newer with venv, or name one in PYTHON"
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
"$python" -m venv "$folder" || die "$python makes no virtual environment" "install its venv (Debian: python3-venv)"
# The server's stubs of the protocol are pymilvus', which the package does not ask for itself.
"$folder/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2 ||
    { rm -rf "$folder"; die "pip did not fetch milvus-lite 3.2.2" "is there a network, and a wheel for this Python?"; }
"$folder/bin/milvus-lite" server --help > /dev/null || die "$folder/bin/milvus-lite does not start"
say "$folder/bin/milvus-lite is there"
