"""How far this engine's quantiser and llama.cpp's lead a model astray, type by type, and what a calibration text is worth.

    cargo build --release
    python3 -m pip install numpy gguf llama-cpp-python
    scripts/models.sh                                       # SmolLM2
    python3 benches/peers/quantisers.py [--program FISSFUSE] [--model PATH] [--text FILE] [--calibrate FILE...] [--work DIR]

The published weights of SmolLM2 are Q4_1: types that are like it would hold them almost as they are. So its columns are put
into another order first, in all matrices alike, which leaves the function what it was and moves each weight to other
neighbours. Prints perplexity, the mean Kullback-Leibler divergence of the next token, and the bytes of a token: of our
types, of llama.cpp's files, and of our types rounded by a text. What is measured has to be another text than that.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import llama_cpp
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMOLLM = ROOT / "weights/SmolLM2-135M-Instruct.Q4_1.gguf"
# Our names, and llama.cpp's of the same mixtures.
TYPES = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k": "Q5_K_M", "q4_k": "Q4_K_M", "q4_0": "Q4_0"}
WEIGHTS = "model.safetensors"


def read(path):
    """Tensors of a safetensors file of f32."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            if entry["dtype"] != "F32":
                raise SystemExit(f"quantisers.py: {path}: {name} is {entry['dtype']}, not F32")
            start, end = (8 + length + at for at in entry["data_offsets"])
            tensors[name] = numpy.frombuffer(data[start:end], dtype=numpy.float32).reshape(entry["shape"])
    return tensors


def write(path, tensors):
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(numpy.ascontiguousarray(values).tobytes())


def shuffled(tensors, config, seed=0):
    """The same function with the columns of its matrices in another order."""
    draw = numpy.random.default_rng(seed).permutation
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    hidden, made = draw(config["hidden_size"]), {}
    inner = [draw(config["intermediate_size"]) for _ in range(config["num_hidden_layers"])]
    # Within a head, values come in any order if the next matrix takes them so; queries and keys turn by theirs.
    values = [numpy.concatenate([group * width + draw(width) for group in range(groups)]) for _ in inner]
    for name, tensor in tensors.items():
        part, block = name.split(".")[-2], int(name.split(".")[2]) if ".layers." in name else 0
        if part in ("embed_tokens", "lm_head", "q_proj", "k_proj"):
            tensor = tensor[:, hidden]
        elif part == "v_proj":
            tensor = tensor[values[block]][:, hidden]
        elif part == "o_proj":
            of = lambda head: values[block].reshape(groups, width)[head * groups // heads] % width + head * width
            tensor = tensor[hidden][:, numpy.concatenate([of(head) for head in range(heads)])]
        elif part in ("gate_proj", "up_proj"):
            tensor = tensor[inner[block]][:, hidden]
        elif part == "down_proj":
            tensor = tensor[hidden][:, inner[block]]
        elif part in ("input_layernorm", "post_attention_layernorm", "norm"):
            tensor = tensor[hidden]
        else:
            raise SystemExit(f"quantisers.py: no order is known for {name}")
        made[name] = tensor
    return made


def quantise(source, out, kind):
    """llama.cpp's file of a type."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), params) != 0:
        raise SystemExit(f"quantisers.py: llama.cpp could not write {out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/fissfuse")
    parser.add_argument("--model", type=pathlib.Path, default=SMOLLM, help="a GGUF file of a Llama")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "README.md", help="what is foretold")
    parser.add_argument("--calibrate", type=pathlib.Path, nargs="+", default=[ROOT / "docs/data.md", ROOT / "docs/kernels.md"],
                        help="texts by which weights are rounded")
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--work", type=pathlib.Path, help="folder of the models, kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or pathlib.Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        # In the folder of the models, so that the table names files alone.
        program = args.program.resolve()
        run = lambda *command: subprocess.run([str(part) for part in (program, *command)], check=True, cwd=work)
        plain, model, exact = work / "plain", work / "model", work / "exact.gguf"
        if not exact.exists():
            for folder in (plain, model):
                shutil.rmtree(folder, ignore_errors=True)
            run("llm", "convert", "--model", args.model.resolve(), "--out", plain, "--precision", "f32")
            shutil.copytree(plain, model, ignore=shutil.ignore_patterns(WEIGHTS))
            config = json.loads((plain / "config.json").read_text())
            write(model / WEIGHTS, shuffled(read(plain / WEIGHTS), config))
            run("llm", "convert", "--model", model, "--out", exact, "--precision", "f32")
        text = work / "calibration.txt"
        text.write_text("\n".join(path.read_text() for path in args.calibrate))
        files = [work / f"llama.cpp-{TYPES[kind]}.gguf" for kind in args.types]
        for kind, file in zip(args.types, files, strict=True):
            quantise(exact, file, TYPES[kind])
        of = ["llm", "perplexity", "--model", model, "--text", args.text.resolve(), "--device", "cpu"]
        print("In the order of the published file:", flush=True)
        run("llm", "perplexity", "--model", plain, "--text", args.text.resolve(), "--device", "cpu")
        print("Our types and llama.cpp's:", flush=True)
        run(*of, "--compare", ",".join(args.types), "--compare-with", ",".join(file.name for file in files))
        by_text = [kind for kind in args.types if kind != "q8_0"]
        if by_text:
            print("Our types, rounded by a text:", flush=True)
            run(*of, "--compare", ",".join(by_text), "--calibrate", text)


if __name__ == "__main__":
    main()
