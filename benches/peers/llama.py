"""llama.cpp and this engine on the same shapes, in turn: a Llama-2-7B's layers, a few of them, with random weights.

    cargo build --release
    python3 -m pip install gguf                                          # writes llama.cpp's files
    python3 -m pip install --no-binary llama-cpp-python llama-cpp-python # builds llama.cpp for this processor
    python3 benches/peers/llama.py [--layers 4] [--prompt 512] [--new 32] [--runs 3] [--threads 2] [--work DIR] [--json]

Both read the same numbers of weights in bf16 and in 8 bits (llama.cpp's q8_0, with a scale for 32 weights; ours has one
for 128), on the CPU. Times the prompt, and new tokens one after the other, which memory bandwidth bounds;
`fissfuse-bench` measures that bandwidth in the same turns, and the notes say how much of it we read.
"""
import pathlib
import subprocess
import tempfile
import time

import gguf
import llama_cpp
import numpy

import turns

WIDTH, INNER, HEADS, VOCABULARY, CONTEXT = 4096, 11008, 32, 32000, 4096


def write_gguf(path, layers, kind):
    """A random Llama of these layers; `kind` is a quantization type of gguf."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>".encode() for i in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
    generator = numpy.random.default_rng(0)

    def matrix(name, outputs, inputs):
        values = generator.random((outputs, inputs), dtype=numpy.float32) - numpy.float32(0.5)
        values *= numpy.float32(12 / inputs) ** numpy.float32(0.5)
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    def gains(name):
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}.weight", WIDTH, WIDTH)
        matrix(f"blk.{i}.ffn_gate.weight", INNER, WIDTH)
        matrix(f"blk.{i}.ffn_up.weight", INNER, WIDTH)
        matrix(f"blk.{i}.ffn_down.weight", WIDTH, INNER)
        gains(f"blk.{i}.attn_norm.weight")
        gains(f"blk.{i}.ffn_norm.weight")
    gains("output_norm.weight")
    matrix("output.weight", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    def __init__(self, path, threads, prompt):
        self.llama = llama_cpp.Llama(str(path), n_ctx=prompt + 256, n_batch=prompt, n_ubatch=prompt, n_threads=threads,
                                     n_threads_batch=threads, logits_all=False, verbose=False)
        self.prompt = [i * 37 % VOCABULARY for i in range(prompt)]

    def turn(self, new):
        """Seconds of the prompt, and of a new token after its first one."""
        self.llama.reset()
        start = time.perf_counter()
        self.llama.eval(self.prompt)
        prefill = time.perf_counter() - start
        self.llama.reset()
        self.llama.eval(self.prompt[:1])
        start = time.perf_counter()
        for token in self.prompt[1:new + 1]:
            self.llama.eval([token])
        return prefill, (time.perf_counter() - start) / new


class Engine:
    """Our side of it; keeps what it measured of the machine."""

    def __init__(self, args, model, precision):
        self.args, self.figures = args, []
        self.command = ["llm", "--model", model, "--precision", precision, "--prompt", args.prompt, "--new",
                        args.new + 1, "--turns", 1]

    def turn(self):
        """Seconds of the prompt, and of a new token."""
        figures = turns.engine(self.args, *self.command)[0]["figures"]
        self.figures.append(figures)
        return self.args.prompt / figures["prompt_tokens_per_second"], 1 / figures["tokens_per_second"]

    def notes(self):
        """How near the best turns came to what the machine does at most: of the prompt, and of a new token."""
        best = lambda name: max(figures.get(name) or 0.0 for figures in self.figures)
        flops, ceiling = best("prompt_flops_per_second"), best("bf16_flops_per_second")
        read, memory = best("weight_bytes_per_second"), best("memory_bytes_per_second")
        return [f"{flops / ceiling:.0%} of {ceiling / 1e9:.0f} GFLOP/s in bf16" if ceiling else "",
                f"{read / memory:.0%} of {memory / 1e9:.1f} GB/s read" if memory else ""]


def main():
    parser = turns.parser(__doc__, runs=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--work", type=pathlib.Path, help="folder for the models, kept for the next run")
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("llama-cpp-python is built for the CPU")
    if args.small:
        args.layers, args.prompt, args.new, args.runs = 1, 16, 2, 1
    report = turns.Report(args, {"llama-cpp-python": llama_cpp.__version__})
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        ours = work / f"ours-{args.layers}"
        if not (ours / "config.json").exists():
            subprocess.run([args.program.with_name("fissfuse"), "llm", "random", "--preset", "7b", "--layers",
                            str(args.layers), "--out", ours], check=True, stdout=subprocess.DEVNULL)
        kinds = {"bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0}
        for precision, kind in kinds.items():
            path = work / f"peer-{args.layers}-{precision}.gguf"
            if not path.exists():
                write_gguf(path, args.layers, kind)
            where = f"{args.layers} layers of Llama-2-7B, {precision}"
            peer, engine = Peer(path, args.threads, args.prompt), Engine(args, ours, precision)
            name = "llama.cpp" if precision == "bf16" else "llama.cpp, q8_0"
            report.parts([f"prompt of {args.prompt}, {where}", f"a new token, {where}"], name,
                         lambda: peer.turn(args.new), engine.turn, notes=engine.notes)
            del peer
    report.print()


if __name__ == "__main__":
    main()
