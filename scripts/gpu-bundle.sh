#!/usr/bin/env bash
# Packs what a machine with a GPU needs to check and time this engine: no Rust there, no network (docs/gpu.md).
#
#   scripts/gpu-bundle.sh [--profile release|dev] [--out FILE]
#   scripts/gpu-bundle.sh --built FISSFUSE FISSFUSE-BENCH INTEGRATION [--out FILE]
#
# Builds the programs and the integration tests with cargo, or takes them as they are, strips them, and writes one archive
# [default: <target>/fissfuse-gpu.tar.gz]. Counts that cusim wrote (<target>/counts*.json) go along.
set -euo pipefail

say() { echo "gpu-bundle: $*" >&2; }
die() { say "error: $*"; exit 1; }
needs() { [ "$2" -gt "$1" ] || die "$3 needs $1 more"; }

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
profile=release out=$target/fissfuse-gpu.tar.gz built=()
while [ $# -gt 0 ]; do
    case $1 in
        --profile) needs 1 $# "$1"; profile=$2; shift 2 ;;
        --out) needs 1 $# "$1"; out=$2; shift 2 ;;
        --built) needs 3 $# "$1"; built=("$2" "$3" "$4"); shift 4 ;;
        *) die "$1: no such option; see the head of $0" ;;
    esac
done
[ "$(uname -sm)" = "Linux x86_64" ] || die "packs on x86-64 Linux, not on $(uname -sm)"
for tool in strip tar gzip; do command -v "$tool" > /dev/null || die "$tool is needed"; done

work=$(mktemp -d)
trap 'rm -rf "$work" "$out.tmp"' EXIT
if [ ${#built[@]} = 0 ]; then
    cargo=${CARGO:-cargo}
    (cd "$root" && "$cargo" build --profile "$profile" --bins)
    # cargo says on stderr where it put the tests' binary.
    (cd "$root" && "$cargo" test --profile "$profile" --no-run --test integration 2>&1) | tee "$work/log" >&2
    tests=$(sed -n 's/.*Executable tests\/main.rs (\(.*\))$/\1/p' "$work/log")
    folder=$profile
    [ "$profile" != dev ] || folder=debug
    case $tests in /*) ;; *) tests=$root/$tests ;; esac
    built=("$target/$folder/fissfuse" "$target/$folder/fissfuse-bench" "$tests")
fi

bundle=$work/fissfuse-gpu
mkdir -p "$bundle/bin" "$bundle/tests" "$bundle/benches"
names=(fissfuse fissfuse-bench integration)
for i in 0 1 2; do
    [ -f "${built[$i]}" ] || die "${built[$i]}: no such file"
    strip -o "$bundle/bin/${names[$i]}" "${built[$i]}"
done
cp -r "$root/tests/fixtures" "$bundle/tests/fixtures"
cp -r "$root/benches/peers" "$bundle/benches/peers"
cp -r "$root/reference" "$bundle/reference"
find "$bundle" -name __pycache__ -prune -exec rm -r {} +
cp "$root/scripts/gpu-bundle/run.sh" "$root/scripts/gpu-bundle/predictions.tsv" "$root/docs/gpu.md" "$bundle"
for counts in "$target"/counts*.json; do
    [ ! -f "$counts" ] || { mkdir -p "$bundle/counts"; cp "$counts" "$bundle/counts"; }
done
(cd "$root" && git rev-parse HEAD 2> /dev/null && { git diff --quiet HEAD || echo "with changes"; }) \
    | paste -sd ' ' > "$bundle/commit" || true
[ -s "$bundle/commit" ] || echo unknown > "$bundle/commit"

# Tests that compute on the device at hand: those whose body goes through `on_device`.
(cd "$root/tests" && find . -name '*.rs' ! -path './support/*' | sort | while read -r file; do
    module=${file#./}
    module=${module%.rs}
    module=${module%/mod}
    awk -v module="${module//\//::}" -v file="tests/${file#./}" '
        /^#\[test\]/ { test = 1; next }
        /^fn / { name = $2; sub(/[(<].*/, "", name); if (!test) name = ""; test = 0 }
        /^}/ { name = "" }
        /^ +(support::)?(on_device|on_every_model)\(/ {
            if (name != "") print module "::" name
            else if ($0 !~ /format!/) { print file ":" NR ": on_device is called outside a test" > "/dev/stderr"; exit 1 }
        }' "$file" || exit 1
done) > "$bundle/device-tests.txt" || die "cannot tell which tests compute on a device"
[ -s "$bundle/device-tests.txt" ] || die "no test computes on a device"

tar -C "$work" --owner=0 --group=0 -cf - fissfuse-gpu | gzip -9 > "$out.tmp"
mv "$out.tmp" "$out"
say "$out: $(($(wc -c < "$out") / 1000000)) MB, $(wc -l < "$bundle/device-tests.txt") tests on the device"
echo "$out"
