"""A training step of the PyTorch reference and of this engine, in turn, at the paper's WikiDiverse size.

    cargo build --release
    python3 -m pip install torch numpy
    python3 benches/peers/train_step.py [--runs 5] [--threads 2]

Both take 128 mentions of 10 candidates with features drawn at random: texts of up to 64 tokens with a mean of 20,
images of 50 patches, widths 512 and 768, d = 100; forward, backward, AdamW, in f32. The reference pads, as researchers
write it, and both keep the features in memory. Prints the median of each and their ratio.
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


class Reference:
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.mention = side(MENTIONS, generator=generator)
        self.entity = side(MENTIONS, CANDIDATES, generator=generator)
        self.gold = torch.randint(0, CANDIDATES, (MENTIONS,), generator=generator)
        self.model = FissFuse(Config())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-5)

    def step(self):
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss(self.model(self.mention, self.entity), self.gold).backward()
        self.optimizer.step()
        return time.perf_counter() - start


def engine(program, threads):
    """Median of a few of the engine's steps."""
    command = [program, "step", "--runs", "5", "--threads", str(threads), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["seconds"]["p50"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--program", default=ROOT / "target/release/fissfuse-bench")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reference = Reference()
    reference.step()
    theirs, ours = [], []
    for _ in range(args.runs):
        theirs.append(reference.step())
        ours.append(engine(args.program, args.threads))
    spread = lambda times: f"{statistics.median(times):.3f} s (from {min(times):.3f} to {max(times):.3f})"
    print(f"PyTorch {torch.__version__}, {args.threads} threads: {spread(theirs)}")
    print(f"fissfuse-bench step:{' ' * 15}{spread(ours)}")
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.1f}")


if __name__ == "__main__":
    main()
