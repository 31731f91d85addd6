"The loss alone, in chunks and plain: time and memory, in turn:  python benchmarks/loss.py"
import argparse
import json
import sys
import threading
import time
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
V, D = 128_256, 1024  # the 0.5B model's output layer
CASES = {f"{batch}x{length} {precision}": (batch, length, precision) for precision in ("bf16", "fp32") for batch, length in ((2, 256), (4, 512))}


def plain(hidden, weight, ids):
    "What a Llama does without chunks: all logits, in fp32 for the cross entropy."
    import torch.nn.functional as F
    return F.cross_entropy(F.linear(hidden, weight)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def chunked(hidden, weight, ids):
    from llama_course.loss import causal_lm_loss
    return causal_lm_loss(hidden, weight, ids)


def resident():
    "Bytes of this process that are in memory now."
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    "The most memory that a `with` block had, beyond what was there before: looked at every millisecond."
    def __enter__(self):
        self.before, self.most, self.over = resident(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch); self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(0.001): self.most = max(self.most, resident() - self.before)

    def __exit__(self, *_):
        self.over.set(); self.thread.join()


def one(spec):
    "Memory of a first forward and backward, gradients included; then median seconds of five, with freed memory kept."
    import torch
    from llama_course.memory import keep_freed_memory
    torch.manual_seed(0)
    batch, length, precision = CASES[spec["case"]]
    loss_of = {"chunked": chunked, "plain": plain}[spec["name"]]
    hidden, weight = torch.randn(batch, length, D).requires_grad_(), (torch.randn(V, D) * 0.02).requires_grad_()
    ids = torch.randint(0, V, (batch, length))
    def step(h=hidden, i=ids):
        h.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"): loss = loss_of(h, weight, i)
        loss.backward()
        return loss.item()
    step(hidden[:1, :8].detach().requires_grad_(), ids[:1, :8])  # what is loaded once does not count
    weight.grad = None
    with Peak() as peak: loss = step()
    keep_freed_memory()
    return {"seconds": common.seconds(step, 5), "peak_gb": peak.most / 1e9, "loss": loss}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--out", default="loss.jsonl", help="results are appended here, and the table is made of all it holds")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(one(args.one)))
    for case in args.case or CASES:
        common.in_turn(__file__, [({"case": case, "name": name}, {}) for name in ("chunked", "plain")], args.rounds, args.out,
                       lambda r: f"{case}: {r['name']:<8} {r['seconds']:.2f} s, {r['peak_gb']:.2f} GB")
    rows, results = [], common.read(args.out)
    for case in CASES:
        s, plain_s, gb, plain_gb = (common.median(results, field, case=case, name=name) for field in ("seconds", "peak_gb") for name in ("chunked", "plain"))
        if s and plain_s: rows.append([case, f"{s:.2f}", f"{plain_s:.2f}", f"{s / plain_s:.2f}", f"{gb:.2f}", f"{plain_gb:.2f}", f"{gb / plain_gb:.0%}"])
    print(f"{common.machine()}\n")
    print(common.markdown(["loss, forward and backward", "chunked s", "plain s", "ratio", "chunked GB", "plain GB", "ratio"], rows))


if __name__ == "__main__": main()
