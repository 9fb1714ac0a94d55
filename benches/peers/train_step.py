"""A training step of the PyTorch reference and of this engine, in turn, at the paper's WikiDiverse size.

    cargo build --release
    python3 -m pip install torch numpy
    python3 benches/peers/train_step.py [--runs 5] [--threads 2] [--device cuda]

Both take 128 mentions of 10 candidates with features drawn at random: texts of up to 64 tokens with a mean of 20,
images of 50 patches, widths 512 and 768, d = 100; forward, backward, AdamW. On the CPU both compute in f32; on a GPU the
reference runs under bf16 autocast and the engine in its mixed arithmetic. The reference pads, as researchers write it, and
both keep the features in the device's memory. Prints the median of each and their ratio.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reference"))
from fissfuse_reference import Config, FissFuse, loss  # noqa: E402

MENTIONS, CANDIDATES, LENGTH, MEAN, PATCHES = 128, 10, 64, 20, 50


def side(*shape, generator):
    """Padded random features of mentions or entities."""
    lengths = torch.randint(1, 2 * MEAN, shape, generator=generator)
    rows = lambda *more: torch.randn(*shape, *more, generator=generator)
    return {
        "text": rows(LENGTH, 512),
        "text_mask": torch.arange(LENGTH) < lengths.unsqueeze(-1),
        "text_global": rows(512),
        "image": rows(PATCHES, 768),
        "image_mask": torch.ones(*shape, PATCHES, dtype=torch.bool),
        "image_global": rows(512),
    }


def moved(features, device):
    return {name: tensor.to(device) for name, tensor in features.items()}


class Reference:
    def __init__(self, device):
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self.mention = moved(side(MENTIONS, generator=generator), device)
        self.entity = moved(side(MENTIONS, CANDIDATES, generator=generator), device)
        self.gold = torch.randint(0, CANDIDATES, (MENTIONS,), generator=generator).to(device)
        self.model = FissFuse(Config()).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-5)

    def step(self):
        on_gpu = self.device != "cpu"
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=on_gpu):
            scores = self.model(self.mention, self.entity)
        loss(scores, self.gold).backward()
        self.optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def engine(program, threads, device):
    """Median of a few of the engine's steps."""
    command = [program, "step", "--runs", "5", "--threads", str(threads), "--device", device, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["seconds"]["p50"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--program", default=ROOT / "target/release/fissfuse-bench")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reference = Reference(args.device)
    for _ in range(1 if args.device == "cpu" else 10):
        reference.step()
    theirs, ours = [], []
    for _ in range(args.runs):
        theirs.append(reference.step())
        ours.append(engine(args.program, args.threads, args.device))
    spread = lambda times: f"{statistics.median(times):.3f} s (from {min(times):.3f} to {max(times):.3f})"
    place = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"PyTorch {torch.__version__}: {spread(theirs)}")
    print(f"fissfuse-bench step: {spread(ours)}")
    print(f"on {args.device}, {place}")
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.1f}")


if __name__ == "__main__":
    main()
