"One optimizer step, ours and the peers', each in its own process and in turn:  python benchmarks/train_step.py [--quick] [--peers FOLDER]"
import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CASES = {  # name: (config_type, batch, tokens a sequence, precision, timed steps)
    "tiny 4x128 fp32": ("tiny", 4, 128, "fp32", 40),
    "tiny 4x128 bf16": ("tiny", 4, 128, "bf16", 40),
    "0.5B 2x256 bf16": ("0.5B", 2, 256, "bf16", 3),
    "0.5B 2x256 fp32": ("0.5B", 2, 256, "fp32", 2),
    "0.5B 4x512 bf16": ("0.5B", 4, 512, "bf16", 2),
    "0.5B 4x512 fp32": ("0.5B", 4, 512, "fp32", 1),
}
OURS = ("custom", "custom --compile")
PEERS = ("transformers sdpa", "transformers eager", "litgpt", "llms-from-scratch")


# ---- the contestants: a function of (ids) that returns the loss, and the module whose weights are trained

def custom(config, flag=""):
    from llama_course.model import Llama3ForCausalLM
    model = Llama3ForCausalLM(config)
    if flag == "--compile": model.compile()
    return lambda ids: model(ids, labels=ids).loss, model


def transformers(config, attention):
    from transformers import LlamaForCausalLM
    hf = config.to_hf()
    hf._attn_implementation, hf.use_cache = attention, False
    model = LlamaForCausalLM(hf)
    return lambda ids: model(input_ids=ids, labels=ids).loss, model


def litgpt(config):
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy  # as its own pretraining does
    model = GPT(Config.from_name(
        "Llama-3.2-1B", n_layer=config.num_hidden_layers, n_embd=config.hidden_size, n_head=config.num_attention_heads, n_query_groups=config.num_key_value_heads,
        head_size=config.head_dim, intermediate_size=config.intermediate_size, padded_vocab_size=config.vocab_size, block_size=2048))
    return lambda ids: chunked_cross_entropy(model(ids)[:, :-1], ids[:, 1:]), model


def llms_from_scratch(config):
    import torch
    from llms_from_scratch.llama3 import LLAMA32_CONFIG_1B, Llama3Model
    model = Llama3Model({**LLAMA32_CONFIG_1B, "vocab_size": config.vocab_size, "context_length": 2048, "emb_dim": config.hidden_size, "n_heads": config.num_attention_heads,
                         "n_layers": config.num_hidden_layers, "hidden_dim": config.intermediate_size, "n_kv_groups": config.num_key_value_heads, "dtype": torch.float32})
    return lambda ids: torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()), model


def contestant(name, config):
    kind, _, option = name.partition(" ")
    return {"custom": custom, "transformers": transformers, "litgpt": litgpt, "llms-from-scratch": llms_from_scratch}[kind](config, *option.split())


# ---- what runs in a process of its own

def measure(name, config_type, batch, length, precision, steps):
    "Time `steps` optimizer steps after one that does not count."
    import torch
    from llama_course.config import make_config
    if name.startswith("custom"):
        from llama_course.memory import keep_freed_memory
        keep_freed_memory()
    torch.manual_seed(0)
    config = make_config(config_type)
    loss_of, model = contestant(name, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    times = []
    for _ in range(steps + 1):
        ids = torch.randint(0, config.vocab_size, (batch, length))
        start = time.perf_counter()
        with context: loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = loss.item()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times[1:]), "first_seconds": times[0], "loss": last, "peak_gb": common.peak_memory_gb()}


def limits(config_type, batch, length, precision, steps):
    "What the machine allows: the matrix products of the same step and nothing else (linear layers; attention's own products are left out)."
    import torch
    from llama_course.config import make_config
    c, n, dtype = make_config(config_type), batch * length, torch.bfloat16 if precision == "bf16" else torch.float32
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    layer = [(q, c.hidden_size, 1), (kv, c.hidden_size, 2), (c.hidden_size, q, 1), (c.intermediate_size, c.hidden_size, 2), (c.hidden_size, c.intermediate_size, 1)]
    repeat = 3 if config_type != "tiny" else 20
    a_layer = sum(times * common.linear_gemms(n, rows, columns, dtype, repeat) for rows, columns, times in layer)
    return {"seconds": c.num_hidden_layers * a_layer + common.linear_gemms(n, c.vocab_size, c.hidden_size, dtype, repeat),
            "gemm_flops": common.gemm_peak(dtype), "read_bytes": common.read_bandwidth()}


def one(spec):
    run = limits if spec["name"] == "GEMMs alone" else lambda *a: measure(spec["name"], *a)
    return run(*CASES[spec["case"]])


# ---- the tables

def table(results, case):
    "One case: medians, and what they are as ratios."
    from llama_course.config import flops_per_token, make_config
    config_type, batch, length, precision, _ = CASES[case]
    get = lambda field, name, allocator: common.median(results, field, case=case, name=name, allocator=allocator)
    names = [(name, allocator) for name in (*OURS, *PEERS) for allocator in (False, True) if get("seconds", name, allocator)]
    ours, gemms = get("seconds", "custom", False), get("seconds", "GEMMs alone", False)
    peak = get("gemm_flops", "GEMMs alone", False)
    flops = batch * length * flops_per_token(make_config(config_type), length)
    rows = []
    for name, allocator in [*names, *([("GEMMs alone", False)] if gemms else [])]:
        s, memory = get("seconds", name, allocator), get("peak_gb", name, allocator)
        rows.append([name + (" + allocator settings" if allocator else ""), f"{batch * length / s:,.0f}", f"{s:.3f}", f"{s / ours:.2f}" if ours else "",
                     f"{gemms / s:.0%}" if gemms else "", f"{flops / s / peak:.0%}" if peak and memory else "", f"{memory:.2f}" if memory else ""])
    header = [case, "tokens/s", "s/step", "time / custom's", "GEMMs' share", "of GEMM peak", "peak GB"]
    notes = [f"GEMM peak {peak / 1e9:,.0f} GFLOP/s, memory read at {get('read_bytes', 'GEMMs alone', False) / 1e9:.0f} GB/s"] if peak else []
    return "\n\n".join([common.markdown(header, rows), *notes])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny alone, one round: three minutes")
    parser.add_argument("--peers", help="folder with litgpt and llms-from-scratch: see requirements.txt beside this file; without it they are skipped")
    parser.add_argument("--case", action="append", choices=CASES, help="one of them; may be given several times")
    parser.add_argument("--only", action="append", choices=("GEMMs alone", *OURS, *PEERS), help="one contestant; may be given several times")
    parser.add_argument("--allocator", choices=("off", "on", "both"), default="both", help="peers as installed, with custom's allocator settings, or both")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", default="train_step.jsonl", help="results are appended here, and the tables are made of all it holds")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the tables of --out")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(one(args.one)))
    cases = args.case or [c for c in CASES if not args.quick or c.startswith("tiny")]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), args.peers]))}
    for case in [] if args.table else cases:
        contestants = [({"case": case, "name": n, "allocator": False}, path) for n in ("GEMMs alone", *OURS)]
        contestants += [({"case": case, "name": n, "allocator": on}, {**path, **(common.ALLOCATOR if on else {})})
                        for on in (False, True) for n in PEERS if args.allocator in ("both", "on" if on else "off")]
        contestants = [c for c in contestants if not args.only or c[0]["name"] in args.only]
        common.in_turn(__file__, contestants, 1 if args.quick else args.rounds, args.out,
                       lambda r: f"{case}: {r['name']:<20} {'with allocator settings ' if r['allocator'] else ''}{r['seconds']:.3f} s/step")
    print(f"{common.machine()}\n")
    print("\n\n".join(table(common.read(args.out), case) for case in cases))


if __name__ == "__main__": main()
