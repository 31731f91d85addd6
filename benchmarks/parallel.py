"Memory of each rank under --parallel ddp and fsdp, two gloo processes on this machine:  python benchmarks/parallel.py [--config_type 0.5B]"
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def one(config_type, parallel, batch, length, steps=2):
    "Optimizer steps with the functions that train_llama3 uses; the peak of every rank."
    import torch
    from llama_course.memory import keep_freed_memory
    from llama_course.model import create_llama3_1b
    from llama_course.parallel import rank, start_parallel, stop_parallel, total, world_size, wrap
    from llama_course.settings import TrainConfig
    from llama_course.training import autocast, make_optimizer, train_step
    if parallel != "fsdp": keep_freed_memory()  # as train_llama3 does
    device = start_parallel(parallel)
    torch.manual_seed(0)
    model = wrap(create_llama3_1b(config_type).to(device), parallel)
    optimizer = make_optimizer(model, TrainConfig(parallel=parallel))
    for _ in range(steps):
        ids = torch.randint(0, 1000, (batch, length))
        train_step(model, [(ids, ids)], world_size() * batch * (length - 1), optimizer, torch.amp.GradScaler("cpu", enabled=False), autocast("bf16", device), 1.0)
    peaks = [total(torch.tensor(common.peak_memory_gb() if rank() == r else 0.0)).item() for r in range(world_size())]
    if rank() == 0: print(json.dumps({"peaks": peaks}), flush=True)
    stop_parallel()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_type", default="0.5B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="sequences on each rank")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return one(args.config_type, args.one, args.batch, args.length)
    rows = []
    for parallel in ("none", "ddp", "fsdp"):
        launcher = [] if parallel == "none" else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(args.ranks)]
        command = [sys.executable, *launcher, __file__, *sys.argv[1:], "--one", parallel]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1200)
        if done.returncode: print(done.stderr.strip().splitlines()[-1], file=sys.stderr); continue
        rows.append([parallel, ", ".join(f"{gb:.2f}" for gb in json.loads(done.stdout.strip().splitlines()[-1])["peaks"])])
    print(f"{common.machine()}\n")
    print(common.markdown([f"{args.config_type}, {args.batch} x {args.length} a rank, bf16", "peak GB of each rank"], rows))


if __name__ == "__main__": main()
