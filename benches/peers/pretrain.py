"""A step of CLIP's contrastive training by transformers on PyTorch and by this engine, in turn.

    cargo build --release
    python3 -m pip install torch transformers
    python3 benches/peers/pretrain.py [--pairs 64] [--runs 5] [--threads 2] [--device cuda] [--json]

Both train CLIP ViT-B/32 in f32 (on a GPU the peer under bf16 autocast, the engine in its mixed arithmetic) from random
weights on 64 pairs drawn at random: forward, backward, gradients clipped to a length of 1, AdamW. Texts have 16 tokens,
so that nothing is padded, and once more 77, to which CLIP's own tokenizer pads whatever is shorter. A row's note has
the most memory that each process held; the peer's of 77 tokens holds for both.
"""
import resource
import sys

import torch
from transformers import CLIPConfig, CLIPModel, __version__

import turns

TOKENS = [16, 77]
# Transformers' default, whose end of a text is its largest number.
END = 49407


class Peer:
    def __init__(self, pairs, tokens, device):
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randint(1, END, shape, generator=generator)
        self.texts = torch.cat([draw(pairs, tokens - 1), torch.full((pairs, 1), END)], dim=1).to(device)
        self.images = torch.randn(pairs, 3, 224, 224, generator=generator).to(device)
        self.model, self.device = CLIPModel(CLIPConfig()).to(device).train(), device
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)

    def step(self):
        return turns.timed(self.device, self.train)

    def train(self):
        self.optimizer.zero_grad()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu"):
            loss = self.model(input_ids=self.texts, pixel_values=self.images, return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def peak(pid):
    """The most bytes that a process held (Linux)."""
    with open(f"/proc/{pid}/status") as status:
        held = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    return int(held[0]) * 1024


def main():
    parser = turns.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    args = parser.parse_args()
    if args.small:
        args.pairs, args.runs = 2, 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    place = {} if args.device == "cpu" else {"place": torch.cuda.get_device_name()}
    report = turns.Report(args, {"PyTorch": torch.__version__, "transformers": __version__}, **place)
    for tokens in TOKENS:
        what = f"pre-training step, CLIP ViT-B/32, {args.pairs} pairs, {tokens} tokens"
        command = [args.program, "pretrain", "--pairs", args.pairs, "--tokens", tokens, "--device", args.device,
                   "--threads", args.threads, "--in-turns"]
        with turns.Process(command) as ours:
            peer = Peer(args.pairs, tokens, args.device)
            theirs = lambda: (peer.step(),)
            most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            note = lambda: [f"memory: {most() / 1e9:.1f} GB, FissFuse {peak(ours.process.pid) / 1e9:.1f} GB"]
            report.parts([what], "PyTorch", theirs, lambda: (ours.turn(),), 1, note if args.device == "cpu" else list)
            del peer
    report.print()


if __name__ == "__main__":
    sys.exit(main())
