#!/usr/bin/env bash
# Checks and times FissFuse on the GPU of this machine. Needs a CUDA driver; the peers need Python with PyTorch besides.
#
#   ./run.sh [--out DIR] [--rehearse DIR] [PART...]
#
# Parts, each under ten minutes, all of them by default, in this order:
#   correct   every kernel and model against the CPU; the tests on the device
#   times     a first start, ceilings, training steps, link, encoder layers, decoder, KAR
#   peers     PyTorch in turn with ours
#   profile   ncu over a step, link, prefill and decoding
#   sanitize  compute-sanitizer: memcheck and racecheck
#
# What is lacking is skipped with its reason. Results go to DIR/<date>-<card> [default: results beside this script], each as
# soon as it is there; table.md is the page for docs/results/. --rehearse runs small sizes on the driver in software in DIR
# (libcuda.so.1), which proves the script, not a card.
set -uo pipefail
# Numbers in JSON have points.
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
say() { echo "run.sh: $*" >&2; }
die() { say "error: $*"; exit 2; }

base=$here/results rehearse='' parts=()
while [ $# -gt 0 ]; do
    case $1 in
        --out) [ $# -gt 1 ] || die "--out needs a folder"; base=$2; shift 2 ;;
        --rehearse) [ $# -gt 1 ] || die "--rehearse needs a folder"; rehearse=$2; shift 2 ;;
        correct | times | peers | profile | sanitize) parts+=("$1"); shift ;;
        *) die "$1: no such part or option; correct, times, peers, profile, sanitize, --out DIR, --rehearse DIR" ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(correct times peers profile sanitize)
if [ -n "$rehearse" ]; then
    [ -e "$rehearse/libcuda.so.1" ] || die "$rehearse has no libcuda.so.1"
    LD_LIBRARY_PATH=$(cd "$rehearse" && pwd)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi

# One folder for each run; none is written twice.
smi() { command -v nvidia-smi > /dev/null && timeout 30 nvidia-smi "$@" 2> /dev/null; }
asked() { smi --query-gpu="$1" --format=csv,noheader | head -1; }
card=$(asked name)
[ -z "$rehearse" ] || card=cusim
card=${card:-no card}
mkdir -p "$base" 2> /dev/null && [ -w "$base" ] || die "$base cannot be written; --out DIR names another place"
name=$(date +%Y-%m-%d)-$(echo "$card" | tr -cs '[:alnum:]\n' '-' | sed 's/^-*//; s/-*$//' | tr '[:upper:]' '[:lower:]')
results=$base/$name
for ((n = 2; ; n++)); do
    mkdir "$results" 2> /dev/null && break
    [ -e "$results" ] || die "$results cannot be created"
    results=$base/$name-$n
done
results=$(cd "$results" && pwd)
scratch=$(mktemp -d "$results/scratch.XXXXXX") || die "$results cannot be written"
runs=$results/runs.jsonl
: > "$runs"

# Compiled kernels and temporary files stay here: HOME may be read-only, or have a cache that hides a first start.
export CUDA_CACHE_PATH=$scratch/cuda-cache TMPDIR=$scratch FISSFUSE_TEST_ROOT=$here PYTHONDONTWRITEBYTECODE=1
mkdir "$CUDA_CACHE_PATH"
fissfuse=$here/bin/fissfuse bench=$here/bin/fissfuse-bench
PATH=$PATH:/usr/local/cuda/bin

page() {
    "$bench" results "$results" --predictions "$here/predictions.tsv" > "$scratch/table" 2>> "$results/table.err" \
        && mv "$scratch/table" "$results/table.md"
    [ -s "$results/table.err" ] || rm -f "$results/table.err"
}
child=''
finish() {
    local status=$?
    trap - EXIT INT TERM HUP
    # timeout passes the signal on to all that it started.
    [ -z "$child" ] || { kill "$child" 2> /dev/null; wait "$child" 2> /dev/null; }
    page
    rm -rf "$scratch"
    say "results are in $results"
    exit "$status"
}
trap finish EXIT
trap 'say "interrupted; what was finished stays"; exit 130' INT TERM HUP

{
    echo "card: $card"
    echo "date: $(date -u +%Y-%m-%dT%H:%MZ)"
    echo "commit: $(cat "$here/commit")"
    [ -z "$rehearse" ] || echo "rehearsal: small sizes on a driver in software; no figure here says anything about a card"
    echo "driver: $(asked driver_version)"
    echo "clocks, now and at most (graphics, memory): $(asked clocks.gr,clocks.mem,clocks.max.gr,clocks.max.mem)"
    echo "power limit: $(asked power.limit)"
    echo "processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) threads"
    echo "glibc: $(getconf GNU_LIBC_VERSION 2> /dev/null)"
    echo
    smi
    smi -q -d CLOCK,POWER,TEMPERATURE
    uname -a
} > "$results/env.txt"
[ ! -d "$here/counts" ] || cp -r "$here/counts" "$results/counts"

# Text as a JSON string can hold it.
plain() { tr -d '"\\' | tr -c '[:print:]' ' ' | cut -c1-300 | sed 's/ *$//'; }
record() { printf '{"part":"%s","name":"%s",%s}\n' "$part" "$1" "$2" >> "$runs"; }
failures=() part='' part_ends=0
skip() {
    say "  $1: skipped: $2"
    record "$1" "\"skipped\":\"$(echo "$2" | plain)\""
}
fail() {
    say "  $1: FAILED: $2"
    failures+=("$1")
    record "$1" "\"failed\":\"$(echo "$2" | plain)\",\"wall_seconds\":$3"
}

# attempt NAME SECONDS COMMAND...: output to NAME.txt, NAME.json if it is JSON; false if it failed or had no time. Sets $wall.
attempt() {
    local name=$1 limit=$(($2 * patience)) left=$((part_ends - SECONDS)) status start=${EPOCHREALTIME/,/.}
    shift 2
    [ "$left" -ge "$limit" ] || limit=$left
    if [ "$limit" -lt 1 ]; then
        skip "$name" "the time of this part is used up"
        return 1
    fi
    say "  $name"
    timeout -k 5 "$limit" "$@" > "$results/$name.txt" 2> "$results/$name.err" < /dev/null &
    child=$!
    wait "$child"
    status=$?
    child=''
    wall=$(awk -v a="$start" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.3f", b - a }')
    [ -s "$results/$name.err" ] || rm -f "$results/$name.err"
    [ "$status" -ne 0 ] || return 0
    local last
    last=$(cat "$results/$name.err" "$results/$name.txt" 2> /dev/null)
    last=$(grep -m1 '^error: ' <<< "$last" || grep -v '^ *$' <<< "$last" | tail -1)
    case $status in 124 | 137) last="it ran past its limit of $limit s" ;; esac
    why="exit $status: ${last:-it printed nothing}"
    return 1
}
# Runs what prints text.
text() {
    why=''
    if attempt "$@"; then record "$1" "\"wall_seconds\":$wall"; return 0; fi
    [ -z "$why" ] || fail "$1" "$why" "$wall"
    return 1
}
# Runs what prints JSON.
json() {
    why=''
    if attempt "$@"; then
        mv "$results/$1.txt" "$results/$1.json"
        record "$1" "\"wall_seconds\":$wall,\"result\":$(tr -d '\n' < "$results/$1.json")"
        return 0
    fi
    [ -z "$why" ] || fail "$1" "$why" "$wall"
    return 1
}

# Sizes: as given, or small ones for a rehearsal.
sized() { if [ -n "$rehearse" ]; then echo "$2"; else echo "$1"; fi; }
tiny='--mentions 2 --candidates 3 --mean-tokens 4 --max-tokens 8 --patches 4 --d 16'
# Times the whole of a program that does a small step.
# shellcheck disable=SC2086
start_step() {
    attempt "$1" "$2" "$bench" --output json step $tiny --device cuda --runs 1 --warmup 0 || return 1
    rm -f "$results/$1.txt"
    record "$1" "\"wall_seconds\":$wall,\"result\":{\"seconds\":$wall}"
}
device_missing=''
# Starts the device once, with nothing compiled yet; what it says is the reason to skip all that needs it.
find_device() {
    why=''
    if ! start_step first-start 200; then
        device_missing=${why:-no device}
        device_missing=${device_missing#exit 1: error: }
        skip first-start "$device_missing"
    fi
}
on_device() {
    [ -n "$device_missing" ] || return 0
    skip "$part" "$device_missing"
    return 1
}

# A dataset of one mention and a run of it.
small_data() {
    mkdir -p "$1/data" "$1/eval"
    printf '{"qid":"Q%d","name":"ball %d","description":"a ball"}\n' 1 1 2 2 > "$1/data/entities.jsonl"
    local split
    for split in train valid test; do
        printf '{"mention_id":"%s","mention":"ball","sentence":"A ball.","candidates":["Q1","Q2"],"gold":"Q1"}\n' "$split" \
            > "$1/data/$split.jsonl"
    done
    echo '{"mention_id":"test","candidates":["Q2","Q1"],"scores":[0.6,0.5]}' > "$1/eval/run.jsonl"
}

correct() {
    on_device || return
    local tests count
    if "$fissfuse" doctor --help | grep -q -- --json; then
        text doctor 280 "$fissfuse" doctor --json "$results/doctor.json"
    else
        text doctor 280 "$fissfuse" doctor
    fi
    mapfile -t tests < <(grep -E "$(sized . 'replay_on|are_refused')" "$here/device-tests.txt")
    count=${#tests[@]}
    if [ "$count" = 0 ]; then fail tests "device-tests.txt names none of them" 0; return; fi
    why=''
    if attempt tests 290 "$here/bin/integration" --exact "${tests[@]}" --test-threads=4; then
        # A name that matches nothing would pass without a word.
        if grep -q "^test result: ok. $count passed" "$results/tests.txt"; then
            record tests "\"wall_seconds\":$wall,\"result\":{\"passed\":$count}"
        else
            fail tests "not all of $count tests ran: $(grep '^test result' "$results/tests.txt")" "$wall"
        fi
    elif [ -n "$why" ]; then
        fail tests "$why" "$wall"
    fi
}

# Arguments are split at spaces on purpose.
# shellcheck disable=SC2086,SC2046
times() {
    on_device || return
    local preset n kind device='--device cuda'
    # What first-start compiled is cached by now.
    why=''
    start_step second-start 60 || [ -z "$why" ] || fail second-start "$why" "$wall"
    if [ -n "$rehearse" ]; then skip ceilings "a driver in software has none"; else
        json ceilings 30 "$bench" --output json ceiling $device
    fi
    for preset in wikidiverse wikimel; do
        for kind in '' --graph; do
            json "step-$preset${kind:+-graph}" 45 "$bench" --output json step --preset $preset $device \
                $(sized '--runs 50 --warmup 5' "$tiny --runs 2 --warmup 1") $kind
        done
    done
    json link 45 "$bench" --output json latency --half --prepared $device \
        $(sized '--preset wikimel' "${tiny#--mentions 2 } --entities 8 --runs 1") --mentions 1,8,64
    json link-resident 45 "$bench" --output json latency --half --prepared --resident $device \
        $(sized '--preset wikimel' "${tiny#--mentions 2 } --entities 8 --runs 1") --mentions 1
    for n in 1 8 64 256; do
        json "layers-$n" 30 "$bench" --output json layer $device \
            $(sized "--layers 12 --images $n" '--layers 1 --images 1 --runs 1 --warmup 0')
    done
    decode=$(sized '--preset 7b --prompt 512 --steps 64' '--preset tiny --prompt 8 --steps 1 --runs 1 --warmup 0')
    json decode-2-layers 40 "$bench" --output json decode $decode --layers 2 $device
    for kind in bf16 int8 int4; do
        json "decode-$kind" 40 "$bench" --output json decode $decode --layers $(sized 4 1) --precision $kind $device
    done
    # The same without kernels that begin early, where a card has them.
    json decode-int4-in-turn 40 env FISSFUSE_EARLY_LAUNCH=off \
        "$bench" --output json decode $decode --layers $(sized 4 1) --precision int4 $device
    # The data of the demo and a run of it, for what KAR re-ranks.
    if [ -n "$rehearse" ]; then
        skip demo "it takes minutes without a card"
        small_data "$scratch/demo"
    elif ! text demo 100 "$fissfuse" demo --out "$scratch/demo" --mentions 500 --epochs 1 --device cuda; then
        skip kar "it needs the demo"
        return
    fi
    json kar 60 "$bench" --output json kar --data "$scratch/demo/data" --ranking "$scratch/demo/eval/run.jsonl" $device \
        $(sized '--mentions 100 --preset 7b --layers 4' '--mentions 1 --preset tiny --max-new-tokens 1')
}

peers() {
    local python=${PYTHON:-python3} lack device=cuda
    if ! command -v "$python" > /dev/null; then skip peers "no $python; PYTHON names another"; return; fi
    if ! lack=$(timeout 120 "$python" -c 'import torch' 2>&1); then
        skip peers "$python cannot import torch: $(tail -1 <<< "$lack")"
        return
    fi
    if [ -n "$rehearse" ]; then device=cpu
    else
        on_device || return
        if ! timeout 120 "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' > /dev/null 2>&1; then
            skip peers "PyTorch of $python sees no CUDA device"
            return
        fi
    fi
    local flags=(--device "$device" --program "$bench" --json)
    [ -z "$rehearse" ] || flags+=(--small)
    json peer-train-wikidiverse 150 "$python" "$here/benches/peers/train_step.py" "${flags[@]}"
    json peer-train-wikimel 150 "$python" "$here/benches/peers/train_step.py" "${flags[@]}" --preset wikimel
    json peer-decode 120 "$python" "$here/benches/peers/decode.py" "${flags[@]}"
    if ! lack=$(timeout 120 "$python" -c 'import transformers, tokenizers' 2>&1); then
        skip peer-encode "$python cannot import transformers and tokenizers: $(tail -1 <<< "$lack")"
        return
    fi
    json peer-encode 150 "$python" "$here/benches/peers/encode.py" "${flags[@]}"
}

# Arguments are split at spaces on purpose.
# shellcheck disable=SC2086,SC2046
profile() {
    if ! command -v ncu > /dev/null; then skip profile "no ncu in PATH or /usr/local/cuda/bin"; return; fi
    on_device || return
    if [ -n "$rehearse" ]; then skip profile "ncu needs a card"; return; fi
    if [ "$(id -u)" != 0 ] && grep -qs 'RmProfilingAdminOnly: 1' /proc/driver/nvidia/params; then
        skip profile "the driver lets only root read counters (RmProfilingAdminOnly)"
        return
    fi
    local sections='--section SpeedOfLight --section LaunchStats --section Occupancy --section MemoryWorkloadAnalysis'
    # What `fissfuse-bench compare-ncu` holds against cusim's counts.
    sections="$sections --metrics $("$bench" compare-ncu --list)"
    local table='--clock-control none --csv --page raw'
    counters ncu-step 280 $table $sections -c 260 "$bench" step --preset wikimel --device cuda --runs 1 --warmup 0 || return
    counters ncu-prefill 100 $table $sections -k regex:'llama_(gemm|prefill)' -c 20 \
        "$bench" decode --preset 7b --layers 2 --prompt 512 --steps 1 --runs 1 --warmup 0 --device cuda
    counters ncu-decode 100 $table $sections -k regex:'llama_(gemv|decode)' -c 40 \
        "$bench" decode --preset 7b --layers 2 --prompt 512 --steps 2 --runs 1 --warmup 0 --device cuda
    counters ncu-link 60 --clock-control none --set full -k regex:link -c 2 \
        "$bench" latency --preset wikimel --half --device cuda --mentions 1 --warmup 0 --runs 3
}
# text of ncu, but where it may not read counters: then it and what follows is skipped.
counters() {
    local name=$1 limit=$2
    shift 2
    why=''
    attempt "$name" "$limit" ncu --target-processes all "$@"
    local status=$?
    if grep -qs ERR_NVGPUCTRPERM "$results/$name.txt" "$results/$name.err"; then
        skip "$name" "the driver does not let this user read counters (ERR_NVGPUCTRPERM)"
        return 1
    fi
    if [ $status = 0 ]; then record "$name" "\"wall_seconds\":$wall"; return 0; fi
    [ -z "$why" ] || fail "$name" "$why" "$wall"
}

sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then
        skip sanitize "no compute-sanitizer in PATH or /usr/local/cuda/bin"
        return
    fi
    on_device || return
    if [ -n "$rehearse" ]; then skip sanitize "compute-sanitizer needs a card"; return; fi
    local tests
    mapfile -t tests < <(grep -E '^cuda::operations_agree|^llama_kernels::|^encoder_layers::' "$here/device-tests.txt")
    # Each array has memory of its own, so that the tool sees where it ends.
    text memcheck 280 env FISSFUSE_MEMORY_CACHE=off compute-sanitizer --tool memcheck --error-exitcode 1 "$fissfuse" doctor
    if [ ${#tests[@]} = 0 ]; then fail racecheck "device-tests.txt names no test of kernels" 0; return; fi
    text racecheck 280 compute-sanitizer --tool racecheck --error-exitcode 1 \
        "$here/bin/integration" --exact "${tests[@]}" --test-threads=1
}

# A rehearsal runs in software, on machines of any speed, and must not fail on a slow day.
patience=1
[ -z "$rehearse" ] || patience=6
part=start part_ends=$((SECONDS + 200))
find_device
for part in "${parts[@]}"; do
    say "$part"
    part_ends=$((SECONDS + 570 * patience))
    "$part"
    page
done
if [ ${#failures[@]} -gt 0 ]; then
    say "FAILED: ${failures[*]}"
    exit 1
fi
