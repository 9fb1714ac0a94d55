"""Encoding images and texts by transformers on PyTorch, ONNX Runtime and candle, and by this engine, in turn.

    cargo build --release
    python3 -m pip install torch transformers tokenizers [onnx onnxscript onnxruntime]
    python3 benches/peers/encode.py [--models clip bert resnet] [--runs 5] [--threads 2] [--f32] [--device cuda]

The models are CLIP ViT-B/32, bert-base-uncased and ResNet-101 with random weights, which all engines read as
transformers wrote them. Images are prepared and texts are cut into tokens before anything is timed. A run is a batch of
32 images or of 256 texts of 3 to 29 tokens, 16 in the mean, which the peers take in batches of 32: padded only to the
longest of the batch after sorting them by length, and PyTorch once more padded to 77 tokens (CLIP) or 64 (BERT) as its
users do. On a GPU the inputs are there before anything is timed, and PyTorch is timed by attention as written (eager)
and as one operation (SDPA). ONNX Runtime and candle take f32 on the CPU; before they are timed, their features of the
first batch are compared with PyTorch's. --candle names candle's program, which scripts/peers.sh builds from
benches/peers/candle.
"""
import contextlib
import json
import pathlib
import random
import tempfile
import time

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, __version__

import foreign
import turns

IMAGES, TEXTS, BATCH, WORDS = 32, 256, 32, 1000
# With the two special tokens 3 to 29.
LENGTHS = [1 + i * 27 // TEXTS for i in range(TEXTS)]


class Model:
    """One model on all engines. `kind` is the side that is timed."""

    def __init__(self, name, kind, folder, torch_model, forward, candle=None, pad=None, first=0, last=0):
        self.name, self.kind, self.folder, self.model, self.forward = name, kind, folder, torch_model, forward
        self.candle, self.pad, self.first, self.last = candle, pad, first, last
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

    def engine(self, args, folder):
        """The arguments of `fissfuse-bench` for the same."""
        side = {"image": ["--image-encoder", self.folder, "--images", IMAGES],
                "text": ["--text-encoder", self.folder, "--texts", folder / "texts.txt", "--max-tokens", 77]}[self.kind]
        return ["encode", *side, "--precision", "f32" if args.f32 else "bf16",
                "--device", args.device]


def batches(ids, pad):
    """Token numbers and masks; `pad` None pads to the longest of each batch after sorting by length."""
    ids = ids if pad else sorted(ids, key=len)
    for start in range(0, len(ids), BATCH):
        texts = ids[start:start + BATCH]
        length = pad or max(map(len, texts))
        # What stands behind a text is masked; CLIP looks for its end by the number, so it may not stand there again.
        padded = torch.tensor([text + [0] * (length - len(text)) for text in texts])
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
    return {name: x.to(device) for name, x in batch.items()}


def ways(args, model):
    """PyTorch's ways to compute the model."""
    if args.device == "cpu":
        yield "PyTorch", model.model
    else:
        for attention in ["eager", "sdpa"]:
            try:
                model.model.set_attn_implementation(attention)
            except Exception:  # ResNets attend to nothing, and older releases of transformers cannot change it
                yield "PyTorch", model.model
                break
            yield f"PyTorch, {attention}", model.model
    yield "torch.compile", torch.compile(model.model)


@contextlib.contextmanager
def engine(args, command):
    """A function that gives the seconds of a run of the engine."""
    if args.device == "cpu":
        with turns.Process([args.program, *command, "--threads", args.threads, "--in-turns"]) as process:
            yield process.turn
        return
    # A process for each turn, so that the GPU's memory is free between them.
    yield lambda: turns.engine(args, *command, "--runs", 3)[0]["seconds"]["p50"]


def compare(args, report, model, folder):
    dtype = torch.float32 if args.f32 else torch.bfloat16
    model.model = model.model.to(args.device, dtype).eval()
    if model.kind == "image":
        count, variants = IMAGES, {"": [{"pixel_values": torch.randn(IMAGES, 3, 224, 224, dtype=dtype)}]}
    else:
        ids, count = model.texts(folder), TEXTS
        variants = {f", padded to {pad or 'the longest'}": list(batches(ids, pad)) for pad in [model.pad, None]}
    what = f"{model.name}, {count} {model.kind}s, {'f32' if args.f32 else 'bf16'}"
    best, inputs = list(variants.items())[-1]
    with engine(args, model.engine(args, folder)) as ours:
        for peer, torch_model in ways(args, model):
            for variant, padded in variants.items():
                there = [moved(batch, args.device) for batch in padded]
                forward = lambda batch: model.forward(torch_model, batch)
                # torch.compile needs a C++ compiler, on a GPU Triton: without, it is a hole.
                warm = 1 if args.device == "cpu" else 3
                report.turns(what + variant, peer, lambda: timed(forward, there), ours, warm)
        if args.device == "cpu" and args.f32:
            for peer, open_peer in foreign.PEERS.items():
                try:
                    report.refuse(peer)
                    with open_peer(args, model, inputs, folder) as theirs:
                        report.turns(what + best, peer, theirs, ours)
                except Exception as error:
                    report.hole(what + best, peer, error)


def clip(folder):
    config = CLIPConfig(text_config={"eos_token_id": 49407}, vision_config={})
    vision = lambda m, x: m.visual_projection(m.vision_model(**x).pooler_output)
    text = lambda m, x: m.text_projection(m.text_model(**x).pooler_output)
    yield Model("CLIP ViT-B/32", "image", folder / "clip", CLIPModel(config), vision, "clip-image")
    yield Model("CLIP ViT-B/32", "text", folder / "clip", CLIPModel(config), text, "clip-text", 77, 49406, 49407)


def bert(folder):
    states = lambda m, x: m(**x).last_hidden_state
    yield Model("bert-base-uncased", "text", folder / "bert", BertModel(BertConfig()), states, "bert", 64, 1, 2)


def resnet(folder):
    config = ResNetConfig(depths=[3, 4, 23, 3])
    yield Model("ResNet-101", "image", folder / "resnet", ResNetModel(config), lambda m, x: m(**x).last_hidden_state)


def main():
    parser = turns.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=["clip", "bert", "resnet"], default=["clip", "bert", "resnet"])
    parser.add_argument("--f32", action="store_true", help="all in f32 instead of bf16")
    parser.add_argument("--candle", type=pathlib.Path, default=turns.ROOT / "target/peers/candle/release/candle-peer")
    args = parser.parse_args()
    if args.small:
        args.models, args.runs = ["clip"], 1
    torch.set_num_threads(args.threads)
    versions = {"PyTorch": torch.__version__, "transformers": __version__}
    if args.device == "cpu" and args.f32:
        versions |= foreign.versions()
    report = turns.Report(args, versions)
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for model in {"clip": clip, "bert": bert, "resnet": resnet}[name](pathlib.Path(folder)):
                compare(args, report, model, pathlib.Path(folder))
    report.print()


if __name__ == "__main__":
    main()
