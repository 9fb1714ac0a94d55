"""A training step of the PyTorch reference and of this engine, in turn, at the sizes of the paper's datasets.

    cargo build --release
    python3 -m pip install torch numpy
    python3 benches/peers/train_step.py [--preset wikidiverse] [--runs 5] [--threads 2] [--device cuda] [--json]

Both take 128 mentions of 10 candidates (100 with --preset wikimel) with features drawn at random: texts of up to 64
tokens with a mean of 20, images of 50 patches, widths 512 and 768, d = 100; forward, backward, AdamW. On the CPU both
compute in f32; on a GPU the reference runs under bf16 autocast and the engine in its mixed arithmetic, kernel by kernel
and as a graph. The reference runs as it is written and under torch.compile; it pads, as researchers write it, and both
keep the features in the device's memory.
"""
import contextlib
import sys

import torch

import turns

sys.path.insert(0, str(turns.ROOT / "reference"))
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
        return turns.timed(self.device, self.train)

    def train(self):
        self.optimizer.zero_grad()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu"):
            scores = self.model(self.mention, self.entity)
        loss(scores, self.gold).backward()
        self.optimizer.step()


@contextlib.contextmanager
def engine(args, *more):
    """A function that gives the seconds of a step of the engine."""
    command = ["step", "--mentions", args.mentions, "--candidates", CANDIDATES[args.preset], "--device", args.device]
    if args.device == "cpu":
        with turns.Process([args.program, *command, "--threads", args.threads, "--in-turns"]) as process:
            yield process.turn
        return
    # A GPU's steps are queued behind each other, so that one alone has no time; its memory is free between the turns.
    yield lambda: turns.engine(args, *command, *more, "--runs", 5)[0]["seconds"]["p50"]


def main():
    parser = turns.parser(__doc__)
    parser.add_argument("--preset", choices=list(CANDIDATES), default="wikidiverse")
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    args = parser.parse_args()
    if args.small:
        args.mentions, args.runs = 2, 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    place = {} if args.device == "cpu" else {"place": torch.cuda.get_device_name()}
    report = turns.Report(args, {"PyTorch": torch.__version__}, **place)
    reference = Reference(args.mentions, CANDIDATES[args.preset], args.device)
    what = f"training step, {args.preset}, {args.mentions} mentions x {CANDIDATES[args.preset]} candidates"
    ways = {"f32": ()} if args.device == "cpu" else {"kernel by kernel": (), "as a graph": ("--graph",)}
    for peer in ["PyTorch", "torch.compile"]:
        if peer == "torch.compile":
            reference.compile()
        for way, flags in ways.items():
            with engine(args, *flags) as ours:
                report.turns(f"{what}, {way}", peer, reference.step, ours, WARM_UP[args.device])
    report.print()


if __name__ == "__main__":
    main()
