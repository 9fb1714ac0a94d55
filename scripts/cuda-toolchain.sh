#!/usr/bin/env bash
# Finds nvcc, or puts one in <target>/cuda-toolchain from NVIDIA's Python wheels (about 100 MB).
#
# Looks, in this order, at $FISSFUSE_NVCC, $CUDA_HOME/bin, $PATH and <target>/cuda-toolchain/bin, and fetches
# only when none of them has an nvcc that runs. <target> is $CARGO_TARGET_DIR, else ./target of the repository.
# Prints the nvcc it settled on as the last line of stdout.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
home=$target/cuda-toolchain

# One release of the toolkit: the packages must agree in major and minor version.
packages=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
)

say() { echo "cuda-toolchain: $*" >&2; }
die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

# Reports an nvcc and ends the script.
found() {
    local nvcc=$1 origin=$2 version ptxas
    version=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    case $version in
        12.* | 13.*) ;;
        *) die "$nvcc ($origin) is release ${version:-unknown}; nvcc 12 or 13 is needed" \
            "point FISSFUSE_NVCC at a newer nvcc, or unset $origin and run this script again" ;;
    esac
    ptxas=$(dirname "$nvcc")/ptxas
    say "nvcc $version at $nvcc (from $origin)"
    if [ -x "$ptxas" ]; then say "ptxas at $ptxas"; else say "no ptxas beside it: kernels are not assembled in tests"; fi
    command -v "${NVCC_CCBIN:-g++}" >/dev/null ||
        die "nvcc needs a host C++ compiler and found no ${NVCC_CCBIN:-g++}" \
            "install one (Debian: apt-get install g++), or name one in NVCC_CCBIN"
    echo "$nvcc"
    exit 0
}

if [ -n "${FISSFUSE_NVCC:-}" ]; then
    [ -x "$FISSFUSE_NVCC" ] || die "FISSFUSE_NVCC=$FISSFUSE_NVCC is not an executable file" \
        "set it to the full path of nvcc, or unset it"
    found "$FISSFUSE_NVCC" FISSFUSE_NVCC
fi
if [ -n "${CUDA_HOME:-}" ]; then
    [ -x "$CUDA_HOME/bin/nvcc" ] && found "$CUDA_HOME/bin/nvcc" CUDA_HOME
    say "CUDA_HOME=$CUDA_HOME has no bin/nvcc; looking further"
fi
if nvcc=$(command -v nvcc); then found "$nvcc" PATH; fi
if [ -x "$home/bin/nvcc" ]; then found "$home/bin/nvcc" "$home"; fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "the wheels used here are for x86-64 Linux" \
    "install the CUDA toolkit (12 or 13) and set CUDA_HOME"
command -v python3 >/dev/null || die "python3 is needed to fetch nvcc" \
    "install python3 and pip, or the CUDA toolkit and set CUDA_HOME"
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip" \
    "install it (Debian: apt-get install python3-pip), or the CUDA toolkit and set CUDA_HOME"

mkdir -p "$target"
fetched=$(mktemp -d "$target/cuda-toolchain.XXXXXX")
trap 'rm -rf "$fetched"' EXIT
say "fetching ${packages[*]}"
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
    --target "$fetched" "${packages[@]}" >&2 ||
    die "pip could not fetch the wheels (see above)" \
        "check the network and try again, or install the CUDA toolkit and set CUDA_HOME"
tree=$fetched/nvidia/cu13
[ -f "$tree/bin/nvcc" ] || die "the wheels hold no nvidia/cu13/bin/nvcc" \
    "their layout has changed; pin the versions in $0 to ones that have it"
chmod +x "$tree"/bin/* "$tree"/nvvm/bin/*
# nvcc.profile points at lib64; the wheels call it lib.
[ -e "$tree/lib64" ] || ln -s lib "$tree/lib64"
# Put in place in one step, so that a run cut short leaves nothing that looks finished. Another run may have won.
mv -T "$tree" "$home" 2>/dev/null || [ -x "$home/bin/nvcc" ] || die "cannot move $tree to $home" \
    "remove $home and run this script again"
found "$home/bin/nvcc" "Python wheels"
