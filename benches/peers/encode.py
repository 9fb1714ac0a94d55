"""Encoding images and texts by transformers on PyTorch and by this engine, in turn, at the published models' sizes.

    cargo build --release
    python3 -m pip install torch transformers tokenizers
    python3 benches/peers/encode.py [--models clip bert resnet] [--runs 5] [--threads 2] [--f32] [--device cuda] [--json]

The models are CLIP ViT-B/32, bert-base-uncased and ResNet-101 with random weights, which the engine reads as transformers
wrote them. Images are prepared and texts are cut into tokens before anything is timed. A run is a batch of 32 images or of
256 texts of 3 to 29 tokens, 16 in the mean; PyTorch takes the texts in batches of 32, padded to 77 tokens (CLIP) or 64
(BERT) as their users do, and once more padded only to the longest of the batch after sorting them by length. On a GPU the
inputs are there before anything is timed, and PyTorch is timed by attention as written (eager), as one operation (SDPA),
and under torch.compile. Prints medians and their ratios.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, ResNetConfig, ResNetModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES, TEXTS, BATCH, WORDS = 32, 256, 32, 1000
# With the two special tokens 3 to 29.
LENGTHS = [1 + i * 27 // TEXTS for i in range(TEXTS)]


class Model:
    """One model on both engines. `kind` is the side that is timed."""

    def __init__(self, name, kind, folder, torch_model, forward, pad=None, first=0, last=0):
        self.name, self.kind, self.folder, self.model, self.forward = name, kind, folder, torch_model, forward
        self.pad, self.first, self.last = pad, first, last
        torch_model.save_pretrained(folder)
        if kind == "image":
            processor = {"size": 224, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            (folder / "preprocessor_config.json").write_text(json.dumps(processor))

    def texts(self, folder):
        """Sentences of numbered words, and the tokenizer that numbers them."""
        draw = random.Random(0)
        lengths = draw.sample(LENGTHS, TEXTS)
        ids = [[draw.randrange(WORDS) + 10 for _ in range(n)] for n in lengths]
        vocab = {f"w{i}": i for i in range(10, WORDS + 10)} | {"<s>": self.first, "</s>": self.last}
        tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w10"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", self.first), ("</s>", self.last)])
        tokenizer.save(str(self.folder / "tokenizer.json"))
        (folder / "texts.txt").write_text("".join(" ".join(f"w{i}" for i in text) + "\n" for text in ids))
        return [[self.first, *text, self.last] for text in ids]


def batches(ids, pad, last):
    """Token numbers and masks; `pad` None pads to the longest of each batch after sorting by length."""
    ids = ids if pad else sorted(ids, key=len)
    for start in range(0, len(ids), BATCH):
        texts = ids[start:start + BATCH]
        length = pad or max(map(len, texts))
        padded = torch.tensor([text + [last] * (length - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts])
        yield {"input_ids": padded, "attention_mask": mask}


def timed(forward, inputs):
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in inputs:
            forward(batch)
    wait()
    return time.perf_counter() - start


def moved(batch, device):
    return {name: x.to(device) for name, x in batch.items()} if isinstance(batch, dict) else batch.to(device)


def engine(args, model, folder):
    """Median seconds of a few of the engine's runs."""
    side = {"image": ["--image-encoder", model.folder, "--images", IMAGES],
            "text": ["--text-encoder", model.folder, "--texts", folder / "texts.txt", "--max-tokens", 77]}[model.kind]
    command = [args.program, "encode", *side, "--precision", "f32" if args.f32 else "bf16", "--runs", 3,
               "--threads", args.threads, "--device", args.device, "--output", "json"]
    out = subprocess.run([str(x) for x in command], check=True, capture_output=True).stdout
    return json.loads(out)["results"][0]["seconds"]["p50"]


def ways(args, model):
    """PyTorch's ways to compute the model."""
    if args.device == "cpu":
        yield "", model.model
        return
    for attention in ["eager", "sdpa"]:
        try:
            model.model.set_attn_implementation(attention)
        except Exception:  # ResNets attend to nothing, and older releases of transformers cannot change it
            yield "its own attention", model.model
            break
        yield attention, model.model
    yield "torch.compile", torch.compile(model.model)


def compare(args, model, folder):
    dtype = torch.float32 if args.f32 else torch.bfloat16
    model.model = model.model.to(args.device, dtype).eval()
    if model.kind == "image":
        count, variants = IMAGES, {"batch of 32": [torch.randn(IMAGES, 3, 224, 224, dtype=dtype)]}
    else:
        ids, count = model.texts(folder), TEXTS
        variants = {f"padded to {model.pad}": list(batches(ids, model.pad, model.last)),
                    "padded to the longest": list(batches(ids, None, model.last))}
    variants = {variant: [moved(batch, args.device) for batch in inputs] for variant, inputs in variants.items()}
    theirs, ours = {}, []
    for way, torch_model in ways(args, model):
        forward = lambda batch: model.forward(torch_model, batch)
        for variant, inputs in variants.items():
            name = ", ".join(filter(None, [variant, way]))
            try:
                for _ in range(1 if args.device == "cpu" else 3):
                    timed(forward, inputs)
            except Exception as error:  # torch.compile needs a C compiler and Triton
                print(f"{model.name}, {name}: left out: {str(error).strip().splitlines()[0]}", file=sys.stderr)
                continue
            theirs[name] = []
            for _ in range(args.runs):
                theirs[name].append(timed(forward, inputs))
                ours.append(engine(args, model, folder))
    if args.json:
        return [{"what": f"{model.name}, {count} {model.kind}s, {variant}", "theirs": statistics.median(times),
                 "ours": statistics.median(ours)} for variant, times in theirs.items()]
    rate = lambda times: count / statistics.median(times)
    spread = lambda times: f"{rate(times):8.1f}/s (from {count / max(times):.1f} to {count / min(times):.1f})"
    print(f"{model.name}, {model.kind}s")
    print(f"  fissfuse-bench encode           {spread(ours)}")
    for variant, times in theirs.items():
        print(f"  PyTorch, {variant:22} {spread(times)}  ratio {rate(ours) / rate(times):.2f}", flush=True)
    return []


def clip(folder):
    config = CLIPConfig(text_config={"eos_token_id": 49407}, vision_config={})
    vision = lambda m, x: m.visual_projection(m.vision_model(x).pooler_output)
    text = lambda m, x: m.text_projection(m.text_model(**x).pooler_output)
    yield Model("CLIP ViT-B/32", "image", folder / "clip", CLIPModel(config), vision)
    yield Model("CLIP ViT-B/32", "text", folder / "clip", CLIPModel(config), text, 77, 49406, 49407)


def bert(folder):
    mean = lambda m, x: m(**x).last_hidden_state
    yield Model("bert-base-uncased", "text", folder / "bert", BertModel(BertConfig()), mean, 64, 1, 2)


def resnet(folder):
    config = ResNetConfig(depths=[3, 4, 23, 3])
    yield Model("ResNet-101", "image", folder / "resnet", ResNetModel(config), lambda m, x: m(x).last_hidden_state)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["clip", "bert", "resnet"], default=["clip", "bert", "resnet"])
    parser.add_argument("--runs", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--f32", action="store_true", help="both in f32 instead of bf16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--small", action="store_true", help="one turn of one model, to try this script")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--program", default=ROOT / "target/release/fissfuse-bench")
    args = parser.parse_args()
    if args.small:
        args.models, args.runs = ["clip"], 1
    torch.set_num_threads(args.threads)
    if not args.json:
        print(f"PyTorch {torch.__version__}, {args.threads} threads, {'f32' if args.f32 else 'bf16'}, {args.device}")
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for model in {"clip": clip, "bert": bert, "resnet": resnet}[name](pathlib.Path(folder)):
                rows += compare(args, model, pathlib.Path(folder))
    if args.json:
        print(json.dumps({"torch": torch.__version__, "device": args.device, "peers": rows}))


if __name__ == "__main__":
    main()
