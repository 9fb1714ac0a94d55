#!/usr/bin/env bash
# Trains the demo's encoder anew (docs/pretraining.md) and puts it under weights/demo-clip. What is there already of
# demo-encoder-run goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} build --release
fissfuse=${CARGO_TARGET_DIR:-target}/release/fissfuse
run=demo-encoder-run
from=()
# Each round has other scenes; the second goes on from the weights of the first.
epochs=(8 7)
precision=(f32 bf16)
for round in 0 1; do
    pairs=$run/pairs-$round
    training=$run/training-$round
    [ -e "$pairs" ] || "$fissfuse" demo --pairs "$pairs" --round "$round"
    if [ ! -e "$training/encoder" ]; then
        resume=()
        [ ! -e "$training/last.safetensors" ] || resume=(--resume)
        "$fissfuse" pretrain --config configs/demo-encoder.toml --pairs "$pairs/pairs.jsonl" --images "$pairs/images" \
            --valid "$pairs/held-out.jsonl" --epochs "${epochs[round]}" --precision "${precision[round]}" --out "$training" \
            "${from[@]}" "${resume[@]}"
    fi
    from=(--from "$training/encoder")
    cp "$training/pretrain.jsonl" "weights/demo-clip/pretrain-$round.jsonl"
done
cp "$training"/encoder/* weights/demo-clip
