"What the benchmarks share: every contestant in a process of its own, in turn (ABAB), medians, the machine's own limits, Markdown tables."
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

# glibc returns freed buffers of this size to the system and gets them back page by page; these settings make it keep them.
# train_llama3 asks for them itself (memory.keep_freed_memory); a peer gets them through the environment
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}


def machine():
    "{processor, threads, memory_gb, python, torch, transformers}: what a figure is worthless without."
    import torch, transformers
    try: names = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    except OSError: names = []
    return {"processor": (names or [platform.processor() or platform.machine()])[0], "threads": torch.get_num_threads(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def peak_memory_gb():
    "The most this process ever had in memory, in GB (1e9 bytes)."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def seconds(f, repeat):  # a function of nothing; how often
    "Median seconds of a call, after one that does not count."
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


# ---- the machine's limits

def gemm_peak(dtype, size=2048):
    "FLOP/s of the best square matrix product, operands and result reused."
    import torch
    a, b, out = (torch.rand(size, size, dtype=dtype) for _ in range(3))
    return 2 * size ** 3 / seconds(lambda: torch.mm(a, b, out=out), 5)


def linear_gemms(n, rows, columns, dtype, repeat=3):
    "Seconds of the three products of a linear layer (rows, columns) on n tokens: forward, input gradient, weight gradient."
    import torch
    x, w, y = torch.rand(n, columns, dtype=dtype), torch.rand(rows, columns, dtype=dtype), torch.rand(n, rows, dtype=dtype)
    dx, dw = torch.empty_like(x), torch.empty_like(w)
    products = (lambda: torch.mm(x, w.T, out=y)), (lambda: torch.mm(y, w, out=dx)), (lambda: torch.mm(y.T, x, out=dw))
    return sum(seconds(product, repeat) for product in products)


def read_bandwidth(gb=1.0):
    "Bytes a second that a plain reduction reads."
    import torch
    x = torch.ones(int(gb * 1e9) // 4)
    return 4 * len(x) / seconds(x.sum, 5)


# ---- running the contestants

def run_one(script, spec, env=None, timeout=1200):
    "What `python script --one SPEC` prints as its last line, as a dict; {'failed': why} where it ends badly."
    try: done = subprocess.run([sys.executable, script, "--one", json.dumps(spec)], env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired: return {**spec, "failed": f"took more than {timeout} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines: return {**spec, "failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return {**spec, **json.loads(lines[-1])}


def in_turn(script, contestants, rounds, out, show):
    "Run [(spec, env), ...] one after the other, `rounds` times over; append each result to the JSON lines file `out`; `show(result)` is its line of progress."
    gone = set()
    for round in range(rounds):
        for i, (spec, env) in enumerate(contestants):
            if i in gone: continue  # failed or not installed: said once
            result = run_one(script, spec, env)
            if "failed" in result: gone.add(i)
            else:
                with open(out, "a") as f: f.write(json.dumps(result) + "\n")
            print(f"round {round + 1}/{rounds}  " + (f"{spec} skipped: {result['failed']}" if "failed" in result else show(result)), file=sys.stderr, flush=True)


def read(path):
    "The results in a JSON lines file, [] where there is none."
    return [json.loads(l) for l in Path(path).read_text().splitlines()] if Path(path).exists() else []


def median(results, field, **where):
    "Median of a field over the results in which everything in `where` holds; None where there is none."
    found = [r[field] for r in results if all(r.get(k) == v for k, v in where.items()) and field in r]
    return statistics.median(found) if found else None


def markdown(header, rows):
    "A Markdown table; the first column to the left, the others to the right."
    line = lambda cells: "| " + " | ".join(str(c) for c in cells) + " |"
    return "\n".join([line(header), "|---|" + "---:|" * (len(header) - 1), *map(line, rows)])
