#!/usr/bin/env bash
# Builds an environment of the peers and runs every pair of a peer and FissFuse in turn: one table (docs/peers.md).
#
#   scripts/peers.sh [--device cpu|cuda] [--only "PAIR..."] [--without PEER]... [--turns N] [--small] [--out DIR]
#                    [--compare FILE] [--program FISSFUSE-BENCH]
#
# Pairs: train-wikidiverse, train-wikimel, encode-f32, encode-bf16, pretrain, decode, llama; peers are called as in the table. The
# environment lies in <target>/peers and is used again: Python packages of benches/peers/requirements.txt
# in venv, candle's program in candle. What cannot be installed is a row of the table that says so; the rest goes on.
# Without --program, the engine is built in release.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
work=$target/peers
cargo=${CARGO:-cargo}
python=$work/venv/bin/python3

say() { echo "peers: $*" >&2; }
die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

options=() only='' without=() out=$work program=''
while [ $# -gt 0 ]; do
    [ "$1" = --small ] || [ $# -gt 1 ] || die "$1 needs a value"
    case $1 in
        --device) options+=(--device "$2"); shift 2 ;;
        --turns) options+=(--runs "$2"); shift 2 ;;
        --compare) options+=(--compare "$2"); shift 2 ;;
        --only) only=$2; shift 2 ;;
        --without) without+=("$2"); shift 2 ;;
        --out) out=$2; shift 2 ;;
        --program) program=$2; shift 2 ;;
        --small) options+=(--small); shift ;;
        *) die "$1: no such option" "the head of $0 names them" ;;
    esac
done

mkdir -p "$work"
# One that was cut short while it was made has no pip.
if ! "$python" -m pip --version > /dev/null 2>&1; then
    base=${PYTHON:-python3}
    command -v "$base" > /dev/null || die "$base is needed for the peers" "install Python 3, or name one in PYTHON"
    "$base" -m venv --clear "$work/venv" ||
        die "$base cannot make a virtual environment" "Debian: apt-get install python3-venv"
fi

# Whether a requirement NAME==VERSION is met; +cpu and the like are builds of the same version.
met() {
    "$python" - "$1" << 'END'
import importlib.metadata, sys
name, _, version = sys.argv[1].partition("==")
try:
    sys.exit(importlib.metadata.version(name).split("+")[0] != version)
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
END
}
failed=()
while read -r requirement; do
    case $requirement in '' | '#'*) continue ;; esac
    ! met "$requirement" || continue
    say "installing $requirement"
    # llama.cpp is built for this processor.
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check \
        --no-binary llama-cpp-python "$requirement" > "$work/pip.log" 2>&1 ||
        { failed+=("$requirement"); say "  failed: $(tail -1 "$work/pip.log")"; }
done < "$root/benches/peers/requirements.txt"

say "building candle's program"
# In its own folder, whose configuration compiles it for this processor.
(cd "$root/benches/peers/candle" && CARGO_TARGET_DIR=$work/candle "$cargo" build --quiet --release --locked) \
    > "$work/candle.log" 2>&1 || { failed+=(candle); say "  failed: $work/candle.log says why"; }

if [ -z "$program" ]; then
    say "building FissFuse"
    (cd "$root" && "$cargo" build --quiet --release)
    program=$target/release/fissfuse-bench
fi
[ -x "$program" ] || die "$program is not an executable file" "give --program a fissfuse-bench, or leave it out"
[ ${#failed[@]} = 0 ] || say "without ${failed[*]}: the table has a row for what needs them"

# shellcheck disable=SC2206 # names of pairs have no spaces
[ -z "$only" ] || options+=(--only $only)
[ ${#without[@]} = 0 ] || options+=(--without "${without[@]}")
"$python" "$root/benches/peers/peers.py" --out "$out" --program "$program" \
    --candle "$work/candle/release/candle-peer" "${options[@]}"
