"Time and peak memory of opening a checkpoint, ours and transformers' in turn:  python benchmarks/loading.py"
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def one(spec):
    "Open it, and read every weight once: what is mapped is in memory only when touched."
    import torch
    if spec["name"] == "make":
        from llama_course.model import create_llama3_1b
        create_llama3_1b(spec["config_type"]).save_pretrained(spec["folder"])
        return {}
    if spec["name"] == "custom": from llama_course.model import Llama3ForCausalLM as Model
    else: from transformers import LlamaForCausalLM as Model
    before, start = common.peak_memory_gb(), time.perf_counter()
    model = Model.from_pretrained(spec["folder"], dtype=getattr(torch, spec["dtype"]))
    seconds = time.perf_counter() - start
    with torch.no_grad(): sum(p.sum().item() for p in model.parameters())
    return {"seconds": seconds, "peak_gb": common.peak_memory_gb() - before, "weights_gb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_type", default="0.5B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(one(args.one)))
    with tempfile.TemporaryDirectory() as tmp:
        common.run_one(__file__, {"name": "make", "config_type": args.config_type, "folder": f"{tmp}/model"})
        contestants = [({"name": name, "dtype": dtype, "folder": f"{tmp}/model"}, {}) for dtype in ("float32", "bfloat16") for name in ("custom", "transformers")]
        common.in_turn(__file__, contestants, args.rounds, f"{tmp}/results", lambda r: f"{r['name']:<12} {r['dtype']} {r['seconds']:.2f} s, {r['peak_gb']:.2f} GB")
        results = common.read(f"{tmp}/results")
    get = lambda field, spec: common.median(results, field, name=spec["name"], dtype=spec["dtype"])
    rows = [[f"{s['name']}, fp32 on disk, read as {s['dtype']}", f"{get('seconds', s):.2f}", f"{get('peak_gb', s):.2f}", f"{get('weights_gb', s):.2f}"] for s, _ in contestants]
    print(f"{common.machine()}\n")
    print(common.markdown([f"opening {args.config_type}", "seconds", "memory it took, GB", "weights, GB"], rows))


if __name__ == "__main__": main()
