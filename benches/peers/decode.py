"""Layers of a Llama-2-7B in plain PyTorch and in this engine, in turn, with random weights in bf16.

    cargo build --release
    python3 -m pip install torch
    python3 benches/peers/decode.py [--layers 4] [--prompt 512] [--steps 64] [--runs 5] [--device cuda] [--json]

PyTorch computes the same products and attention (torch's scaled_dot_product_attention) over a cache that is allocated
once; rotary positions are left out there, to its advantage. Times a prompt, and one token after it.
"""
import time

import torch
import torch.nn.functional as F

import turns

SIZES = {"7b": (4096, 11008, 32, 32000)}


class Llama:
    """Blocks of attention and SwiGLU behind RMS norms, for one sequence."""

    def __init__(self, sizes, layers, context, device):
        self.width, inner, self.heads, vocabulary = sizes
        draw = lambda *shape: torch.randn(*shape, device=device, dtype=torch.bfloat16) * shape[-1] ** -0.5
        self.embedding, self.output = draw(vocabulary, self.width), draw(vocabulary, self.width)
        # Joined as serving engines join them: query, key and value; gate and up.
        self.layers = [(draw(3 * self.width, self.width), draw(self.width, self.width), draw(2 * inner, self.width),
                        draw(self.width, inner)) for _ in range(layers)]
        shape = (layers, 2, self.heads, context, self.width // self.heads)
        self.cache = torch.zeros(shape, device=device, dtype=torch.bfloat16)

    def forward(self, tokens, past):
        """Logits of the last of the tokens, which stand behind `past` others."""
        norm = lambda x: F.rms_norm(x, (self.width,), eps=1e-5)
        x, end = self.embedding[tokens], past + len(tokens)
        for cache, (qkv, out, gate_up, down) in zip(self.cache, self.layers):
            parts = F.linear(norm(x), qkv).view(len(tokens), 3, self.heads, -1).permute(1, 2, 0, 3)
            cache[:, :, past:end] = parts[1:]
            attended = F.scaled_dot_product_attention(parts[0][None], cache[0, :, :end][None], cache[1, :, :end][None],
                                                      is_causal=past == 0 and len(tokens) > 1)[0]
            x = x + F.linear(attended.transpose(0, 1).reshape(len(tokens), -1), out)
            gate, up = F.linear(norm(x), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.linear(norm(x[-1:]), self.output)


def turn(llama, prompt, steps, device):
    """Seconds of the prompt, and of one token after it."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    with torch.inference_mode():
        wait()
        start = time.perf_counter()
        token = llama.forward(prompt, 0).argmax(-1)
        wait()
        middle = time.perf_counter()
        for i in range(steps):
            token = llama.forward(token, len(prompt) + i).argmax(-1)
        wait()
    return middle - start, (time.perf_counter() - middle) / steps


def engine(args):
    """Our seconds of the same."""
    parts = turns.engine(args, "decode", "--preset", "7b", "--layers", args.layers, "--prompt", args.prompt, "--steps",
                         args.steps, "--precision", "bf16", "--device", args.device, "--runs", 3)[0]["parts"]
    return parts["prompt"]["p50"], parts["token"]["p50"]


def main():
    parser = turns.parser(__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    if args.small:
        args.layers, args.prompt, args.steps, args.runs = 1, 4, 1, 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    report = turns.Report(args, {"PyTorch": torch.__version__})
    llama = Llama(SIZES["7b"], args.layers, args.prompt + args.steps, args.device)
    prompt = torch.randint(0, SIZES["7b"][-1], (args.prompt,), device=args.device)
    where = f"{args.layers} layers of Llama-2-7B, bf16"
    report.parts([f"prompt of {args.prompt}, {where}", f"a token after {args.prompt}, {where}"], "PyTorch, SDPA",
                 lambda: turn(llama, prompt, args.steps, args.device), lambda: engine(args), warm=2)
    report.print()


if __name__ == "__main__":
    main()
