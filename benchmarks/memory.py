"Measure the peak memory that llama3_memory predicts, each configuration in a process of its own:  python benchmarks/memory.py [--only 0.5B]"
import argparse
import json
import sys
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
RESULTS = Path(__file__).with_name("memory.json")
FIELDS = ("config_type", "batch_size", "block_size", "grad_accum_steps", "precision", "optimizer", "gradient_checkpointing")
RUNS = [dict(zip(FIELDS, run)) for run in (
    ("tiny", 4, 128, 4, "fp32", "adamw", False),
    ("0.5B", 2, 256, 1, "bf16", "adamw", False),
    ("0.5B", 4, 512, 2, "bf16", "adamw", False),
    ("0.5B", 4, 512, 2, "bf16", "adamw", True),
    ("0.5B", 4, 512, 2, "bf16", "adafactor", True),
    ("0.5B", 4, 512, 2, "bf16", "adamw8bit", True),
    ("0.5B", 4, 256, 2, "fp32", "adamw", False),
    ("1B", 4, 512, 2, "bf16", "adamw8bit", True),
    ("1B", 4, 512, 2, "bf16", "adafactor", True),
    ("1.5B", 4, 512, 2, "bf16", "adafactor", True),
)]
# what ours is compared with: transformers' model and plain AdamW, as installed
META = {**RUNS[2], "model_type": "meta-llama/Llama-3.2-1B"}


def one(run):
    "Two optimizer steps with the functions that train_llama3 uses; one where the optimizer's state is too small to matter."
    import torch
    from llama_course.memory import keep_freed_memory
    from llama_course.model import create_llama3_1b, loadLlamaModelWithoutWeights
    from llama_course.settings import TrainConfig
    from llama_course.training import autocast, make_optimizer, train_step
    import transformers, datasets, tokenizers  # what train_llama3 has in memory as well
    cfg, cpu = TrainConfig(**run), torch.device("cpu")
    if "model_type" in run:
        model = loadLlamaModelWithoutWeights(cfg.model_type, cfg.config_type)
        model.config.use_cache = False
    else:
        if not cfg.gradient_checkpointing: keep_freed_memory()  # as train_llama3 does
        model = create_llama3_1b(cfg.config_type)
    if cfg.gradient_checkpointing: model.gradient_checkpointing_enable()
    optimizer = make_optimizer(model, cfg)
    for _ in range(1 if cfg.optimizer == "adafactor" else 2):
        ids = torch.randint(0, model.config.vocab_size, (cfg.grad_accum_steps, cfg.batch_size, cfg.block_size))
        train_step(model, [(i, i) for i in ids], ids.numel() - ids[:, :, 0].numel(), optimizer, torch.amp.GradScaler("cpu", enabled=False), autocast(cfg.precision, cpu), 1.0)
    return {"peak_gb": round(common.peak_memory_gb(), 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="configurations that start so: tiny, 0.5B, 1B or 1.5B")
    parser.add_argument("--number", type=int, help="the n-th run alone, counted from 0; the last one is transformers")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(one(args.one)))
    from llama_course.config import make_config
    from llama_course.memory import training_memory
    chosen = [r for i, r in enumerate([*RUNS, META]) if (not args.only or r["config_type"] == args.only) and args.number in (None, i)]
    results = {json.dumps({k: v for k, v in r.items() if k != "peak_gb"}): r for r in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    for run in chosen:
        result = common.run_one(__file__, run)
        if "failed" in result: print(f"{run} skipped: {result['failed']}", file=sys.stderr); continue
        results[json.dumps(run)] = result
        rows = [results[k] for k in map(json.dumps, [*RUNS, META]) if k in results]
        RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
        flags = {f: run[f] for f in FIELDS[1:]}
        if "model_type" in run: print(f"{list(run.values())}: measured {result['peak_gb']:.2f} GB", flush=True); continue
        said = training_memory(make_config(run["config_type"]), **flags)["total"] / 1e9
        print(f"{list(run.values())}: measured {result['peak_gb']:.2f} GB, predicted {said:.2f} GB ({said / result['peak_gb'] - 1:+.0%})", flush=True)


if __name__ == "__main__": main()
