"""Runs every pair of a peer and this engine in turn and makes one table of them; scripts/peers.sh calls it.

    python3 benches/peers/peers.py --out DIR [--only PAIR...] [--without PEER...] [--small] [--compare FILE]

Pairs: train-wikidiverse, train-wikimel, encode-f32, encode-bf16, pretrain, decode, llama. What cannot run is a row that
says why.
DIR gets peers.json, measurements as `fissfuse-bench --save` writes them, and table.md, a page for docs/results.
"""
import datetime
import json
import math
import os
import pathlib
import subprocess
import sys

import turns

HERE = pathlib.Path(__file__).resolve().parent
ENCODERS = ["PyTorch", "torch.compile", "ONNX Runtime", "candle"]
# Name, what it measures, its script, and the peers whose rows are holes where the script cannot run.
PAIRS = {
    "train-wikidiverse": ("training step, wikidiverse", ["train_step.py"], ENCODERS[:2]),
    "train-wikimel": ("training step, wikimel", ["train_step.py", "--preset", "wikimel"], ENCODERS[:2]),
    "encode-f32": ("encoders, f32", ["encode.py", "--f32"], ENCODERS),
    "encode-bf16": ("encoders, bf16", ["encode.py"], ENCODERS[:2]),
    "pretrain": ("pre-training step, CLIP ViT-B/32", ["pretrain.py"], ENCODERS[:1]),
    "decode": ("layers of Llama-2-7B, bf16", ["decode.py"], ["PyTorch, SDPA"]),
    "llama": ("GGUF files", ["llama.py"], ["llama.cpp"]),
}
TINY = "--mentions 2 --candidates 3 --mean-tokens 4 --max-tokens 8 --patches 4 --d 16".split()


def arguments():
    parser = turns.parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--candle", type=pathlib.Path, help="candle's program (encode.py)")
    parser.add_argument("--compare", type=pathlib.Path, metavar="FILE", help="an earlier peers.json, to compare with")
    parser.add_argument("--only", nargs="+", choices=list(PAIRS), default=list(PAIRS), metavar="PAIR")
    return parser.parse_args()


def read(path):
    """An earlier run."""
    try:
        earlier = json.loads(path.read_text())
        if (earlier["schema"], earlier["command"]) != (1, "peers"):
            raise ValueError("it is of another schema or command")
        return earlier
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"peers.py: {path} is no peers.json of an earlier run: {error}")


def run(args, name):
    """What the script of a pair printed; where it failed, a hole for each of its peers."""
    what, script, peers = PAIRS[name]
    shared = ["--json", "--runs", args.runs, "--threads", args.threads, "--device", args.device]
    shared += ["--program", args.program]
    shared += ["--small"] * args.small + (["--without", *args.without] if args.without else [])
    if "candle" in peers and args.candle:
        shared += ["--candle", args.candle]
    command = [sys.executable, HERE / script[0], *script[1:], *shared]
    print(f"{name}: {what}", file=sys.stderr, flush=True)
    errors = args.out / f"{name}.err"
    with errors.open("w") as file:
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=file, text=True)
    if done.returncode == 0:
        found = json.loads(done.stdout)
    else:
        why = last_line(errors.read_text()) or f"it ended with {done.returncode}"
        found = {"peers": [], "missing": [turns.hole(what, peer, why) for peer in peers]}
    (args.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(turns.table(found["peers"] + found["missing"]), file=sys.stderr, flush=True)
    return found


def last_line(text):
    """Where Python says what it failed of."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def timing(samples):
    """Times as measurements have them, with quantiles by nearest rank."""
    ascending = sorted(samples)
    quantile = lambda share: ascending[max(math.ceil(share * len(samples)), 1) - 1]
    spread = quantile(0.75) - quantile(0.25)
    named = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {"runs": len(samples), **{name: quantile(share) for name, share in named.items()},
            "noise": spread / quantile(0.5) if spread else 0.0, "samples": samples}


def measurements(found):
    """A row as two results: our seconds with the ratio, and the peer's. Of a hole, the peer's with a warning."""
    of = lambda engine: {"name": found["name"], "parameters": {"peer": found["peer"], "engine": engine}}
    result = lambda engine, **more: {**of(engine), **more}
    if "why" in found:
        return [result(found["peer"], seconds=None, warnings=[f"{found['peer']} is missing: {found['why']}"])]
    figures = {"ratio": found["ratio"], "ratio_low": found["low"], "ratio_high": found["high"]}
    return [result("FissFuse", seconds=timing(found["our_turns"]), figures=figures),
            result(found["peer"], seconds=timing(found["their_turns"]))]


def compared(document, earlier):
    """Ratios of two runs beside each other, and whether their spreads tell them apart; rows of only one of them too."""
    where = lambda run: (run["machine"]["processor"], run["machine"]["threads"], run["settings"]["device"])
    then, now = {}, {}
    for found, run in [(then, earlier), (now, document)]:
        for result in run["results"]:
            found.setdefault((result["name"], result["parameters"]["peer"]), {}).update(result.get("figures") or {})
    lines = [["what", "peer", f"ratio of {earlier['date'][:10]}", "now", "FissFuse beside the peer"]]
    ratio = lambda row: f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if row else "-"
    for what in then | now:
        old, new = then.get(what), now.get(what)
        verdict = "not measured in both"
        if old and new:
            faster, slower = new["ratio_low"] > old["ratio_high"], new["ratio_high"] < old["ratio_low"]
            verdict = "faster" if faster else "slower" if slower else "no difference that the spreads tell"
        lines.append([*what, ratio(old), ratio(new), verdict])
    other = "" if where(earlier) == where(document) else "On another machine, device or number of threads:\n"
    return other + turns.columns(lines)


def page(document, rows):
    """The results as Markdown."""
    machine, settings = document["machine"], document["settings"]
    escaped = lambda line: "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
    gpu = f"{machine['gpu']['name']}, on " if machine["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    notes = [f"- {row['name']}: {row['note']}" for row in rows if "note" in row]
    return "\n".join([
        f"# Peers in turn, {document['date'][:10]}", "",
        f"- machine: {gpu}{machine['processor']}, {settings['threads']} threads on {machine['cores']} cores, "
        f"{' '.join(machine['instructions'])}, {machine['memory_bytes'] / 2**30:.0f} GiB",
        f"- FissFuse {document['version']}, commit {document['commit']}",
        f"- peers: {versions or 'none of them could run'}",
        f"- turns: {settings['turns']}; pairs: {', '.join(settings['pairs'])}"
        + ("; **small sizes, which say nothing about speed**" if settings["small"] else ""),
        f"- other load (mean number of processes that wanted to run, on {machine['cores']} cores): "
        f"{settings['load_before']:.1f} before, {settings['load_after']:.1f} after", "",
        "Milliseconds are medians of the turns. A turn is a run of each, one after the other; of each there is a",
        "ratio, and a row has their median and, from the least to the greatest, their spread. Faster is who was it in",
        "all turns.", "",
        escaped(turns.HEADER), "|---|---|---:|---:|---|---|", *(escaped(turns.cells(row)) for row in rows), "", *notes,
    ]).rstrip() + "\n"


def main():
    args = arguments()
    earlier = read(args.compare) if args.compare else None
    args.out.mkdir(parents=True, exist_ok=True)
    before, date = os.getloadavg()[1], datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    # The engine says where it runs and what it is.
    try:
        document = turns.measurements(args, "step", *TINY, "--runs", 1, "--device", args.device)
    except (OSError, RuntimeError) as error:
        sys.exit(f"peers.py: {error}")
    found = {name: run(args, name) for name in PAIRS if name in args.only}
    rows = [row for pair in found.values() for row in pair["peers"] + pair["missing"]]
    versions = {name: version for pair in found.values() for name, version in pair.get("versions", {}).items()}
    settings = {"device": args.device, "threads": args.threads, "turns": 1 if args.small else args.runs,
                "small": args.small, "pairs": list(found), "versions": versions, "load_before": before,
                "load_after": os.getloadavg()[1]}
    document |= {"command": "peers", "date": date, "settings": settings, "ceilings": None, "advice": [],
                 "results": [result for row in rows for result in measurements(row)]}
    (args.out / "peers.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "table.md").write_text(page(document, rows))
    print(turns.table(rows))
    if args.compare:
        print(compared(document, earlier))
    print(f"{args.out}/peers.json has every turn, {args.out}/table.md is a page for docs/results", file=sys.stderr)


if __name__ == "__main__":
    main()
