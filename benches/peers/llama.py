"""llama.cpp and this engine on the same GGUF files, in turn, on the CPU.

    cargo build --release
    python3 -m pip install gguf                                          # writes files
    python3 -m pip install --no-binary llama-cpp-python llama-cpp-python # builds llama.cpp for this processor
    scripts/models.sh                                                    # SmolLM2, which is left out where it is missing
    python3 benches/peers/llama.py [--layers 4] [--prompt 512] [--new 32] [--runs 3] [--threads 2] [--work DIR]
                                   [--model FILE.gguf]... [--json]

A few layers of a Llama-2-7B with random weights in F16, Q8_0 and the mixture of Q4_K_M, SmolLM2-135M, or the files that
are given. Times the prompt, and new tokens after a prompt of one, which memory bandwidth bounds: `fissfuse-bench` measures
that bandwidth in the same turns, and the notes say how much of it we read.
"""
import pathlib
import tempfile
import time

import gguf
import llama_cpp
import numpy

import turns

WIDTH, INNER, HEADS, VOCABULARY, CONTEXT = 4096, 11008, 32, 32000, 4096
KINDS = gguf.GGMLQuantizationType
SMOLLM = turns.ROOT / "weights/SmolLM2-135M-Instruct.Q4_1.gguf"


def blocks(generator, kind, outputs, inputs):
    """Random weights of a type: any codes, with scales that make the weights' deviation about 1 / sqrt(inputs)."""
    if kind == KINDS.F16:
        values = generator.random((outputs, inputs), dtype=numpy.float32) - numpy.float32(0.5)
        return (values * numpy.float32(12 / inputs) ** numpy.float32(0.5)).astype(numpy.float16)
    weights, length = gguf.GGML_QUANT_SIZES[kind]
    made = generator.integers(0, 256, (outputs * inputs // weights, length), dtype=numpy.uint8)
    # The deviation of codes times their scales of a block, by which its f16s are divided, and where those lie.
    deviation, places = {KINDS.Q8_0: (74, {0: 1}), KINDS.Q4_K: (190, {0: 1, 2: 7.5}), KINDS.Q6_K: (1370, {208: 1})}[kind]
    for at, times in places.items():
        scale = numpy.array([times / deviation / inputs ** 0.5], dtype=numpy.float16)
        made[:, at:at + 2] = scale.view(numpy.uint8)
    return made.reshape(outputs, -1)


def write_gguf(path, layers, kinds):
    """A random Llama of these layers; `kinds` gives the type of each matrix by its name and layer."""
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
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    others = [f"<{i}>" for i in range(VOCABULARY - 256)]
    writer.add_token_list([token.encode() for token in bytes_ + others])
    writer.add_token_scores([0.0] * VOCABULARY)
    types = gguf.TokenType
    writer.add_token_types([types.BYTE] * 256 + [types.NORMAL] * (VOCABULARY - 256))
    generator = numpy.random.default_rng(0)

    def matrix(name, outputs, inputs, layer=0):
        kind = kinds(name, layer)
        prefix = f"blk.{layer}." if "_" in name and name != "token_embd" else ""
        writer.add_tensor(f"{prefix}{name}.weight", blocks(generator, kind, outputs, inputs), raw_dtype=kind)

    def gains(name):
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    matrix("token_embd", VOCABULARY, WIDTH)
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(name, WIDTH, WIDTH, i)
        matrix("ffn_gate", INNER, WIDTH, i)
        matrix("ffn_up", INNER, WIDTH, i)
        matrix("ffn_down", WIDTH, INNER, i)
        gains(f"blk.{i}.attn_norm.weight")
        gains(f"blk.{i}.ffn_norm.weight")
    gains("output_norm.weight")
    matrix("output", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def q4_k_m(name, layer):
    """llama.cpp's mixture: the last layer, and of every other layer the values and what leads out of the MLP, in Q6_K."""
    wide = name == "output" or name in ("attn_v", "ffn_down") and layer % 2 == 0
    return KINDS.Q6_K if wide else KINDS.Q4_K


class Peer:
    def __init__(self, path, threads, prompt):
        self.llama = llama_cpp.Llama(str(path), n_ctx=prompt + 256, n_batch=prompt, n_ubatch=prompt, n_threads=threads,
                                     n_threads_batch=threads, logits_all=False, verbose=False)
        self.prompt = [i * 37 % self.llama.n_vocab() for i in range(prompt)]

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

    def __init__(self, args, model):
        self.args, self.read, self.memory = args, 0.0, 0.0
        self.command = ["llm", "--model", model, "--prompt", f"1,{args.prompt}", "--steps", args.new, "--warmup", 1,
                        "--runs", 1, "--ceilings"]

    def turn(self):
        """Seconds of the prompt, and of a new token."""
        found = turns.measurements(self.args, *self.command)
        short, long = found["results"]
        self.read = max(self.read, short["figures"]["weight_bytes_per_second"])
        self.memory = max(self.memory, found["ceilings"]["bytes_per_second"])
        return long["parts"]["prompt"]["p50"], short["parts"]["token"]["p50"]

    def notes(self):
        """How near the best turn of a new token came to the memory's bandwidth."""
        return ["", f"{self.read / self.memory:.0%} of {self.memory / 1e9:.1f} GB/s read"]


def main():
    parser = turns.parser(__doc__, runs=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--model", type=pathlib.Path, action="append", default=[], help="a GGUF file to time instead")
    parser.add_argument("--work", type=pathlib.Path, help="folder for the models, kept for the next run")
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("llama-cpp-python is built for the CPU")
    if args.small:
        args.layers, args.prompt, args.new, args.runs = 1, 16, 2, 1
    report = turns.Report(args, {"llama-cpp-python": llama_cpp.__version__})

    def measure(path, where):
        peer, engine = Peer(path, args.threads, args.prompt), Engine(args, path)
        report.parts([f"prompt of {args.prompt}, {where}", f"a new token, {where}"], "llama.cpp",
                     lambda: peer.turn(args.new), engine.turn, notes=engine.notes)

    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if SMOLLM.exists() and not args.model:
            measure(SMOLLM, "SmolLM2-135M, Q4_1")
        for path in args.model:
            measure(path, path.name)
        alike = lambda kind: lambda *_: kind
        kinds = {"Q4_K_M": q4_k_m, "Q8_0": alike(KINDS.Q8_0), "F16": alike(KINDS.F16)}
        for name, types in kinds.items() if not args.model else []:
            path = work / f"llama-{args.layers}-{name}.gguf"
            if not path.exists():
                write_gguf(path, args.layers, types)
            measure(path, f"{args.layers} layers of Llama-2-7B, {name}")
    report.print()


if __name__ == "__main__":
    main()
