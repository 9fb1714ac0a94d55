"""A training step of the PyTorch reference and of this engine, in turn, at the sizes of the paper's datasets.

    cargo build --release
    python3 -m pip install torch numpy
    python3 benches/peers/train_step.py [--preset wikidiverse] [--runs 5] [--threads 2] [--device cuda] [--json]

Both take 128 mentions of 10 candidates (100 with --preset wikimel) with features drawn at random: texts of up to 64 tokens
with a mean of 20, images of 50 patches, widths 512 and 768, d = 100; forward, backward, AdamW. On the CPU both compute in
f32; on a GPU the reference runs under bf16 autocast, as it is written and once more under torch.compile, and the engine in
its mixed arithmetic, kernel by kernel and as a graph. The reference pads, as researchers write it, and both keep the features
in the device's memory. Prints the median of each and their ratio.
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

MENTIONS, LENGTH, MEAN, PATCHES = 128, 64, 20, 50
CANDIDATES = {"wikidiverse": 10, "wikimel": 100}
WARM_UP = {"cpu": 1, "cuda": 10}


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
    def __init__(self, mentions, candidates, device):
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self.mention = moved(side(mentions, generator=generator), device)
        self.entity = moved(side(mentions, candidates, generator=generator), device)
        self.gold = torch.randint(0, candidates, (mentions,), generator=generator).to(device)
        self.model = FissFuse(Config()).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-5)

    def compile(self):
        self.model = torch.compile(self.model)

    def step(self):
        on_gpu = self.device != "cpu"
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=on_gpu):
            scores = self.model(self.mention, self.entity)
        loss(scores, self.gold).backward()
        self.optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def engine(args, candidates, *more):
    """Median of a few of the engine's steps."""
    command = [args.program, "step", "--runs", 5, "--threads", args.threads, "--device", args.device, "--mentions",
               args.mentions, "--candidates", candidates, *more, "--output", "json"]
    return json.loads(subprocess.run([str(x) for x in command], check=True, capture_output=True).stdout)["results"][0]["seconds"]["p50"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(CANDIDATES), default="wikidiverse")
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    parser.add_argument("--small", action="store_true", help="a few mentions, to try this script")
    parser.add_argument("--runs", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--program", default=ROOT / "target/release/fissfuse-bench")
    args = parser.parse_args()
    if args.small:
        args.mentions, args.runs = 2, 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    candidates = CANDIDATES[args.preset]
    reference = Reference(args.mentions, candidates, args.device)
    ours = {"": ()} if args.device == "cpu" else {"": (), "as a graph": ("--graph",)}
    ours = {how: (flags, []) for how, flags in ours.items()}
    theirs = {}
    # One after the other, since both would not fit beside each other on a small card.
    for how in ["as written"] if args.device == "cpu" else ["as written", "torch.compile"]:
        try:
            if how == "torch.compile":
                reference.compile()
            for _ in range(WARM_UP[args.device]):
                reference.step()
        except Exception as error:  # torch.compile needs a C compiler and Triton
            if how != "torch.compile":
                raise
            print(f"{how}: left out: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            break
        theirs[how] = []
        for _ in range(args.runs):
            theirs[how].append(reference.step())
            for flags, times in ours.values():
                times.append(engine(args, candidates, *flags))
    median = {how: statistics.median(times) for how, (_, times) in ours.items()}
    place = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    pairs = [(f"step, {args.preset}: PyTorch {how}; FissFuse {way or 'kernel by kernel'}", times, median[way])
             for how, times in theirs.items() for way in median]
    if args.json:
        rows = [{"what": what, "theirs": statistics.median(times), "ours": own} for what, times, own in pairs]
        print(json.dumps({"torch": torch.__version__, "device": args.device, "place": place, "peers": rows}))
        return
    spread = lambda times: f"{statistics.median(times):.4f} s (from {min(times):.4f} to {max(times):.4f})"
    for how, times in theirs.items():
        print(f"PyTorch {torch.__version__}, {how}: {spread(times)}")
    for how, (_, times) in ours.items():
        print(f"fissfuse-bench step {how}: {spread(times)}")
    print(f"on {args.device}, {place}")
    for what, times, own in pairs:
        print(f"ratio of the medians, {what}: {statistics.median(times) / own:.1f}")


if __name__ == "__main__":
    main()
