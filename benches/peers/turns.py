"""Turns of a peer and of the engine, and what they say of each other. The scripts beside this one share it.

A turn is one run of each, one right after the other, so that what else the machine does falls on both. Of each turn
there is a ratio, peer's seconds over ours; the median of them is the ratio of a row, from their smallest to their
largest its spread.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# After this many seconds the threads of whoever ran before wait without spinning.
REST = 0.05


def parser(doc, runs=5):
    """The arguments that all of the scripts take."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=runs, help="turns of each")
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--small", action="store_true", help="one turn of something small, to try this script")
    arguments.add_argument("--without", nargs="+", default=[], metavar="PEER", help="peers that are left out, by name")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    arguments.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/fissfuse-bench")
    return arguments


def measurements(args, *command):
    """What one run of `fissfuse-bench` measured, and where."""
    command = [args.program, *command, "--threads", args.threads, "--output", "json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[1]} of {args.program}: {first_line(done.stderr)}")
    return json.loads(done.stdout)


def engine(args, *command):
    """Results of one run of `fissfuse-bench`."""
    return measurements(args, *command)["results"]


class Process:
    """A program that runs when standard input asks it to (`fissfuse-bench --in-turns`, candle-peer), warm all the time."""

    def __init__(self, command, **environment):
        self.name, self.errors = pathlib.Path(command[0]).name, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=os.environ | environment)
        self.parameters = self.answer("ready")[1]

    def answer(self, kind):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(f"{self.name}: {first_line(self.errors.read())}")
        return json.loads(line)[kind]

    def turn(self):
        """Seconds of one run."""
        self.process.stdin.write('{"run": 0}\n')
        self.process.stdin.flush()
        return self.answer("seconds")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def timed(device, work):
    """Seconds that PyTorch's work takes on a device, from when that is idle until it is idle again."""
    import torch
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def first_line(text):
    """The line of an error that says what went wrong."""
    lines = [line.strip() for line in str(text).strip().splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[0] if lines else "it says nothing")


def in_turn(theirs, ours, runs):
    """What each of two functions gives in so many turns; each goes first in half of them."""
    found = {theirs: [], ours: []}
    for turn in range(runs):
        for side in [theirs, ours] if turn % 2 == 0 else [ours, theirs]:
            time.sleep(REST)
            found[side].append(side())
    return found[theirs], found[ours]


def head(name, peer):
    """What is measured, by itself and with the peer, as a table of two engines needs it."""
    return {"what": f"{name}; {peer}", "name": name, "peer": peer}


def row(name, peer, theirs, ours):
    """A row of the table, of the seconds of each turn."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {**head(name, peer), "theirs": statistics.median(theirs), "ours": statistics.median(ours),
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "their_turns": theirs,
            "our_turns": ours}


def hole(name, peer, why):
    """A row of what could not be measured."""
    return {**head(name, peer), "why": first_line(why)[:200]}


def faster(found):
    """Who is faster in every turn."""
    return "FissFuse" if found["low"] > 1 else found["peer"] if found["high"] < 1 else "undecided"


def cells(found):
    """A row or a hole in words: what, peer, its ms, our ms, ratio with spread, who is faster."""
    if "why" in found:
        return [found["name"], found["peer"], "-", "-", "-", f"missing: {found['why']}"]
    digits = lambda seconds: f"{1e3 * seconds:.4g}" if seconds < 1 else f"{1e3 * seconds:.0f}"
    ratio = f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    return [found["name"], found["peer"], digits(found["theirs"]), digits(found["ours"]), ratio, faster(found)]


HEADER = ["what", "peer", "peer, ms", "FissFuse, ms", "peer / FissFuse (spread)", "faster"]


def table(found):
    """Rows and holes as text."""
    return columns([HEADER, *map(cells, found)])


def columns(lines):
    """Lines of cells, one below the other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


class Report:
    """Rows as they are measured, and holes: what could not be measured, and why."""

    def __init__(self, args, versions, **more):
        self.args, self.versions, self.more, self.rows, self.missing = args, versions, more, [], []

    def turns(self, what, peer, theirs, ours, warm=1):
        """Measures a row of two functions that give seconds, after runs of the peer that do not count."""
        self.parts([what], peer, lambda: (theirs(),), lambda: (ours(),), warm)

    def parts(self, whats, peer, theirs, ours, warm=1, notes=lambda: []):
        """Measures a row of each of the seconds that two functions give; `notes` has a remark for each at the end.

        A peer that cannot run is a hole.
        """
        try:
            self.refuse(peer)
            for _ in range(warm):
                theirs()
        except Exception as error:
            for what in whats:
                self.hole(what, peer, error)
            return
        found = in_turn(theirs, ours, self.args.runs)
        for i, what in enumerate(whats):
            self.rows.append(row(what, peer, *([turn[i] for turn in side] for side in found)))
            self.rows[-1] |= {"note": note for note in notes()[i:i + 1] if note}
            print(f"  {' | '.join(cells(self.rows[-1]))}", file=sys.stderr, flush=True)

    def refuse(self, peer):
        """Fails if a peer is to be left out."""
        if peer in self.args.without:
            raise RuntimeError("left out by --without")

    def hole(self, what, peer, why):
        self.missing.append(hole(what, peer, why))
        print(f"  {' | '.join(cells(self.missing[-1]))}", file=sys.stderr, flush=True)

    def print(self):
        """All of it, as JSON or as text."""
        head = {"versions": self.versions, "device": self.args.device, "threads": self.args.threads, **self.more}
        if self.args.json:
            print(json.dumps({**head, "peers": self.rows, "missing": self.missing}))
            return
        print(", ".join(f"{name} {value}" for name, value in {**self.versions, **self.more}.items()))
        print(f"on {self.args.device}, {self.args.threads} threads; medians of {self.args.runs} turns")
        print(table(self.rows + self.missing))
        for found in self.rows:
            if "note" in found:
                print(f"{found['name']}: {found['note']}")
