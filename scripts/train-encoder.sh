#!/usr/bin/env bash
# What it gains to train the demo's encoder along (docs/pretraining.md): FissFuse on frozen features, with LoRA and with all of the
# encoder trained, of the same mentions, settings and seeds, and mention by mention how far each is from frozen features. Prints a page;
# what is there already of OUT is not computed again.
#   [MENTIONS=1000] [SEEDS="0 1 2"] scripts/train-encoder.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
fissfuse=${FISSFUSE:-${CARGO_TARGET_DIR:-target}/release/fissfuse}
[ -n "${FISSFUSE:-}" ] || ${CARGO:-cargo} build --release >&2
out=${1:-train-encoder-run}
mentions=${MENTIONS:-1000}
seeds=${SEEDS:-0 1 2}
mkdir -p "$out"
[ -e "$out/demo/features" ] || "$fissfuse" demo --out "$out/demo" --mentions "$mentions" --epochs 1 --device cpu >&2
data=(--data "$out/demo/data")
config=(--config configs/emoji.toml)
timed() { local start=$SECONDS; "${@:2}" >&2; echo $((SECONDS - start)) > "$1"; }

for seed in $seeds; do
    of=(--encoder "$out/demo/encoder")
    for way in frozen lora full; do
        run="$out/$way-$seed"
        [ ! -e "$run-eval/metrics.json" ] || continue
        rm -rf "$run" "$run-features" "$run-eval"
        features="$run-features"
        case $way in
            frozen) from=(--features "$out/demo/features") ;;
            lora) from=(--train-encoder "${of[1]}" --lora-rank 8 --encoder-learning-rate 1e-3) ;;
            full) from=(--train-encoder "${of[1]}" --encoder-learning-rate 1e-4) ;;
        esac
        timed "$out/$way-$seed.seconds" \
            "$fissfuse" train "${data[@]}" "${from[@]}" "${config[@]}" --seed "$seed" --device cpu --out "$run"
        if [ "$way" = frozen ]; then
            features="$out/demo/features"
        else
            "$fissfuse" encode "${data[@]}" --encoder "$run/encoder" "${config[@]}" --precision f32 --device cpu \
                --out "$features" >&2
        fi
        "$fissfuse" eval "${data[@]}" --features "$features" --model "$run" --device cpu --out "$run-eval" >&2
    done
    for way in lora full; do
        "$fissfuse" eval "${data[@]}" --ranking "$out/$way-$seed-eval/run.jsonl" \
            --against "$out/frozen-$seed-eval/run.jsonl" --out "$out/$way-$seed-against-frozen" >&2
    done
done

python3 - "$out" "$mentions" $seeds <<'PYTHON'
import json, statistics, sys

out, mentions, *seeds = sys.argv[1:]
print(f"FissFuse on the demo's {mentions} training mentions, 3 epochs of configs/emoji.toml; test mentions of seed 0.\n")
print("| encoder | seed | H@1 % | MRR % | MRR above frozen (95 %) | ranked better, worse | validation MRR % | training, s |")
print("|---|---:|---:|---:|---:|---:|---:|---:|")
means = []
for way, name in [("frozen", "frozen"), ("lora", "LoRA, rank 8, 1e-3"), ("full", "all of it, 1e-4")]:
    rows = []
    for seed in seeds:
        mean = json.load(open(f"{out}/{way}-{seed}-eval/metrics.json"))["mean"]
        records = [json.loads(line) for line in open(f"{out}/{way}-{seed}/train.jsonl")]
        valid = max(record["valid"]["MRR"] for record in records)
        seconds = int(open(f"{out}/{way}-{seed}.seconds").read())
        rows.append([100 * mean["H@1"], 100 * mean["MRR"], 100 * valid])
        above, moved = "", ""
        if way != "frozen":
            found = json.load(open(f"{out}/{way}-{seed}-against-frozen/metrics.json"))["comparison"]
            ends = found["difference"], found["interval"]["low"], found["interval"]["high"]
            above = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * end for end in ends))
            moved = f"{found['better']}, {found['worse']}"
        hits, mrr, valid = rows[-1]
        print(f"| {name} | {seed} | {hits:.2f} | {mrr:.2f} | {above} | {moved} | {valid:.2f} | {seconds} |")
    means.append((name, [statistics.mean(column) for column in zip(*rows)]))
for name, values in means:
    hits, mrr, valid = values
    print(f"| {name} | mean | {hits:.2f} | {mrr:.2f} | | | {valid:.2f} | |")
PYTHON
