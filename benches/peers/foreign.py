"""Encoders outside PyTorch for encode.py: ONNX Runtime and candle, in f32 on the CPU.

Each is a context that gives a function of the seconds of one run over all batches, after its features of the first
batch were compared with PyTorch's.
"""
import contextlib
import importlib.metadata
import re
import time

import torch
from safetensors.torch import save_file

import turns

# Sums in f32 in another order differ by far less, another model by far more.
TOLERANCE = 1e-3


class Features(torch.nn.Module):
    """The function that is timed, of inputs by their position, as an export needs it."""

    def __init__(self, model, forward, names):
        super().__init__()
        self.model, self.forward_of, self.names = model, forward, names

    def forward(self, *inputs):
        return self.forward_of(self.model, dict(zip(self.names, inputs, strict=True)))


def features(model, batch):
    """PyTorch's."""
    with torch.inference_mode():
        return model.forward(model.model, batch)


def agree(away):
    """Fails unless features are at most this share of their size away from PyTorch's."""
    if not away <= TOLERANCE:
        raise RuntimeError(f"it computes other features: {away:.1e} of their size away from PyTorch's")


@contextlib.contextmanager
def onnx_runtime(args, model, batches, folder):
    import onnxruntime

    names = list(batches[0])
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in range(2)}
    shapes = (tuple(dynamic for _ in names),) if model.kind == "text" else None
    path = folder / f"{model.kind}.onnx"
    with torch.inference_mode():
        torch.onnx.export(Features(model.model, model.forward, names), tuple(batches[0].values()), path, dynamo=True,
                          input_names=names, dynamic_shapes=shapes, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {found.name for found in session.get_inputs()}
    inputs = [{name: x.numpy() for name, x in batch.items() if name in wanted} for batch in batches]
    found, right = torch.from_numpy(session.run(None, inputs[0])[0]), features(model, batches[0])
    agree(((found - right).norm() / right.norm()).item())

    def turn():
        start = time.perf_counter()
        for batch in inputs:
            session.run(None, batch)
        return time.perf_counter() - start

    yield turn


@contextlib.contextmanager
def candle(args, model, batches, folder):
    if model.candle is None:
        raise RuntimeError(f"candle-peer has no {model.name}")
    if not args.candle.exists():
        raise RuntimeError(f"{args.candle.name} is not built (benches/peers/candle)")
    inputs = folder / "inputs.safetensors"
    save_file({f"{i}.{name}": x.contiguous() for i, batch in enumerate(batches) for name, x in batch.items()}, inputs)
    command = [args.candle, model.candle, model.folder / "model.safetensors", inputs]
    with turns.Process(command, RAYON_NUM_THREADS=str(args.threads)) as process:
        right = features(model, batches[0]).abs().mean().item()
        agree(abs(process.parameters["magnitude"] / right - 1))
        yield process.turn


def versions():
    """Of those that are installed."""
    found = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["ONNX Runtime"] = importlib.metadata.version("onnxruntime")
    manifest = (turns.ROOT / "benches/peers/candle/Cargo.toml").read_text()
    return found | {"candle": re.search(r'candle-core = "=(.*)"', manifest)[1]}


PEERS = {"ONNX Runtime": onnx_runtime, "candle": candle}
