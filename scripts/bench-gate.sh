#!/usr/bin/env bash
# Whether this tree is slower than the one it is based on: both are built, and run in turn.
#
#   scripts/bench-gate.sh [--small]
#
# BASE names the commit to compare with; otherwise it is where this branch left origin/main, or the commit before this one.
# --small takes the tests' profile and one small row: it proves the gate, and finds only what is much slower.
# Exits with 3 if something became slower.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "bench-gate: $*" >&2; }
cargo=${CARGO:-cargo} target=${CARGO_TARGET_DIR:-target} small=''
case ${1:-} in
    '') ;;
    --small) small=1 ;;
    *) say "error: $1: no such option; --small"; exit 2 ;;
esac

head=$(git rev-parse HEAD)
base=${BASE:-$(git merge-base HEAD origin/main 2> /dev/null || true)}
# On the main branch itself a commit is compared with the one before it.
if [ -z "$base" ] || [ "$(git rev-parse "$base^{commit}")" = "$head" ]; then
    base=$(git rev-parse --verify --quiet HEAD^) || { say "this clone has no commit to compare with; BASE names one"; exit 0; }
fi
base=$(git rev-parse "$base^{commit}")
if ! git grep -q -e '--interleave' "$base" -- src/bin/fissfuse-bench; then
    say "$(git log -1 --format='%h %s' "$base") cannot be run in turn yet; nothing to compare with"
    exit 0
fi

profile=() folder=debug
[ -n "$small" ] || { profile=(--release) folder=release; }
mkdir -p "$target"
target=$(cd "$target" && pwd)
tree=$target/bench-gate/$base old=$target/bench-gate/$base-$folder
if [ ! -x "$old" ]; then
    say "building $(git log -1 --format='%h %s' "$base")"
    # What a run left that was killed may be half of it.
    git worktree remove --force "$tree" 2> /dev/null || rm -rf "$tree"
    git worktree prune
    trap 'git worktree remove --force "$tree"' EXIT
    git worktree add --quiet --detach "$tree" "$base"
    # In the same folder, so that the libraries are built once.
    (cd "$tree" && CARGO_TARGET_DIR=$target "$cargo" build "${profile[@]}" --quiet --bin fissfuse-bench)
    cp "$target/$folder/fissfuse-bench" "$old.new"
    mv "$old.new" "$old"
fi
say "building this tree"
"$cargo" build "${profile[@]}" --quiet --bin fissfuse-bench
new=$target/$folder/fissfuse-bench

# Every comparison is made; the worst code is the script's.
code=0
compare() {
    local status=0
    "$new" "$@" --device cpu --interleave "$old" --explain || status=$?
    [ "$status" -le "$code" ] || code=$status
}
if [ -n "$small" ]; then
    compare step --mentions 2 --d 20
else
    compare step --mentions 16
    compare latency --mentions 1,8
    compare layer
    compare decode --preset 7b --prompt 32 --steps 8
fi
exit "$code"
