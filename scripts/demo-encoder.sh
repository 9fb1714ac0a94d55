#!/usr/bin/env bash
# Trains the demo's encoder anew (docs/pretraining.md) and puts it under weights/demo-clip. What is there already of
# demo-encoder-run goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} build --release
fissfuse=${CARGO_TARGET_DIR:-target}/release/fissfuse
run=demo-encoder-run
mkdir -p "$run"
# Three rounds of pictures, each with paths that begin with its number.
for round in 0 1 2; do
    [ -e "$run/$round" ] || "$fissfuse" demo --pairs "$run/$round" --round "$round" >&2
    sed "s#^{\"image\":\"#&$round/images/#" "$run/$round/pairs.jsonl"
done > "$run/pairs.jsonl"
sed "s#^{\"image\":\"#&0/images/#" "$run/0/held-out.jsonl" > "$run/held-out.jsonl"
if [ ! -e "$run/training/encoder" ]; then
    resume=()
    [ ! -e "$run/training/last.safetensors" ] || resume=(--resume)
    "$fissfuse" pretrain --config configs/demo-encoder.toml --pairs "$run/pairs.jsonl" --images "$run" \
        --valid "$run/held-out.jsonl" --precision bf16 --out "$run/training" "${resume[@]}"
fi
cp "$run"/training/encoder/* "$run/training/pretrain.jsonl" weights/demo-clip
