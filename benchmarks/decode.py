"Prefill and decoding, ours and the peers', each in its own process and in turn:  python benchmarks/decode.py [--quick] [--peers FOLDER]"
import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# name: (config_type, precision, batch, prompt, new tokens): enough of them to stand out against the noise of the prefill
CASES = {f"{size} {precision} batch {batch} prompt {prompt}": (size, precision, batch, prompt, 100 if size == "tiny" else 16 if prompt == 128 else 64)
         for size, precision, batch, prompt in itertools.product(("tiny", "0.5B"), ("bf16", "fp32"), (1, 8), (128, 1024))}
OURS = ("custom FastLlama", "custom")
PEERS = ("transformers dynamic", "transformers static", "litgpt", "llms-from-scratch")


# ---- the contestants: a function (ids, n) that adds n tokens greedily

def custom(config, dtype, kind=""):
    from llama_course.generation import generate
    from llama_course.model import Llama3ForCausalLM
    model = Llama3ForCausalLM(config).to(dtype)
    if kind == "FastLlama":
        from llama_course.fast_decoding import FastLlama
        model = FastLlama(model)
    return lambda ids, n: generate(model, ids, n)


def transformers(config, dtype, cache):
    from transformers import LlamaForCausalLM
    model = LlamaForCausalLM(config.to_hf()).to(dtype).eval()
    options = {"cache_implementation": "static"} if cache == "static" else {}
    import torch
    return lambda ids, n: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0, **options)


def greedy_loop(prefill, step):
    "What both peers' own generation does at temperature 0, for a batch."
    import torch
    def run(ids, n):
        with torch.inference_mode():
            token = prefill(ids, n)[:, -1:].argmax(-1)
            for i in range(n - 1): token = step(token, ids.shape[1] + i)[:, -1:].argmax(-1)
    return run


def litgpt(config, dtype):
    import torch
    from litgpt import GPT, Config
    model = GPT(Config.from_name(
        "Llama-3.2-1B", n_layer=config.num_hidden_layers, n_embd=config.hidden_size, n_head=config.num_attention_heads, n_query_groups=config.num_key_value_heads,
        head_size=config.head_dim, intermediate_size=config.intermediate_size, padded_vocab_size=config.vocab_size, block_size=2048)).to(dtype).eval()
    def prefill(ids, n):
        model.max_seq_length = ids.shape[1] + n
        model.set_kv_cache(batch_size=ids.shape[0], max_seq_length=ids.shape[1] + n, dtype=dtype)
        return model(ids, torch.arange(ids.shape[1]))
    return greedy_loop(prefill, lambda token, at: model(token, torch.tensor([at])))


def llms_from_scratch(config, dtype):
    from llms_from_scratch.kv_cache.llama3 import LLAMA32_CONFIG_1B, Llama3Model
    from llms_from_scratch.kv_cache.utils import KVCache
    model = Llama3Model({**LLAMA32_CONFIG_1B, "vocab_size": config.vocab_size, "context_length": 2048, "emb_dim": config.hidden_size, "n_heads": config.num_attention_heads,
                         "n_layers": config.num_hidden_layers, "hidden_dim": config.intermediate_size, "n_kv_groups": config.num_key_value_heads, "dtype": dtype}).eval()
    cache = [None]
    def prefill(ids, n):
        model.reset_kv_cache()
        cache[0] = KVCache(n_layers=config.num_hidden_layers)
        return model(ids, cache=cache[0])
    return greedy_loop(prefill, lambda token, at: model(token, cache=cache[0]))


def contestant(name, config, dtype):
    kind, _, option = name.partition(" ")
    return {"custom": custom, "transformers": transformers, "litgpt": litgpt, "llms-from-scratch": llms_from_scratch}[kind](config, dtype, *option.split())


# ---- what runs in a process of its own

def one(spec):
    "Seconds of the prefill (one new token) and of each token after it."
    if spec["name"] == "memory": return {"read_bytes": common.read_bandwidth()}
    import torch
    from llama_course.config import make_config
    size, precision, batch, prompt, n = CASES[spec["case"]]
    config = make_config(size)
    run = contestant(spec["name"], config, {"bf16": torch.bfloat16, "fp32": torch.float32}[precision])
    ids = torch.randint(0, config.vocab_size, (batch, prompt), generator=torch.Generator().manual_seed(0))
    run(ids, 2)  # what is done once does not count
    prefill, decode, began = [], [], time.perf_counter()
    while len(prefill) < 3 and (not prefill or time.perf_counter() - began < 20):  # the longest cases once
        start = time.perf_counter(); run(ids, 1)
        middle = time.perf_counter(); run(ids, n + 1)
        prefill.append(middle - start)
        decode.append((time.perf_counter() - middle - prefill[-1]) / n)
    return {"prefill": statistics.median(prefill), "decode": statistics.median(decode), "peak_gb": common.peak_memory_gb()}


# ---- the tables

def weight_bytes(case):
    "Bytes of weights that one decoding step reads: all but the embedding table, of which it looks up a row."
    from llama_course.config import make_config, num_parameters
    n = num_parameters(make_config(CASES[case][0]))
    return (n["total"] - n["embedding"]) * (2 if CASES[case][1] == "bf16" else 4)


def table(results, case):
    "One case: medians, and what they are as ratios."
    _, _, batch, prompt, _ = CASES[case]
    get = lambda field, name: common.median(results, field, case=case, name=name)
    read, ours = get("read_bytes", "memory"), get("decode", OURS[0])
    rows = []
    for name in (*OURS, *PEERS):
        decode, prefill = get("decode", name), get("prefill", name)
        if decode is None: continue
        speed = weight_bytes(case) / decode
        rows.append([name, f"{batch / decode:,.1f}", f"{decode / ours:.2f}" if ours else "", f"{batch * prompt / prefill:,.0f}", f"{speed / 1e9:.1f}",
                     f"{speed / read:.0%}" if read else "", f"{get('peak_gb', name):.2f}"])
    header = [case, "decode tokens/s", "time / FastLlama's", "prefill tokens/s", "weights read GB/s", "of memory's speed", "peak GB"]
    return common.markdown(header, rows) + (f"\n\nA plain reduction reads memory at {read / 1e9:.1f} GB/s." if read else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny, batch 1, prompt 128, one round: under a minute")
    parser.add_argument("--peers", help="folder with litgpt and llms-from-scratch: see requirements.txt beside this file; without it they are skipped")
    parser.add_argument("--case", action="append", choices=CASES, help="one of them; may be given several times")
    parser.add_argument("--only", action="append", help="contestants whose name starts so; may be given several times")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", default="decode.jsonl", help="results are appended here, and the tables are made of all it holds")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the tables of --out")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(one(args.one)))
    quick = [c for c in CASES if c.startswith("tiny") and c.endswith("batch 1 prompt 128")]
    cases = [c for c in CASES if c in (args.case or (quick if args.quick else CASES))]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), args.peers]))}
    for case in [] if args.table else cases:
        contestants = [({"case": case, "name": n}, path) for n in ("memory", *OURS, *PEERS) if not args.only or n.startswith(("memory", *args.only))]
        show = lambda r: f"{case}: " + (f"memory {r['read_bytes'] / 1e9:.1f} GB/s" if "read_bytes" in r else f"{r['name']:<22} {1 / r['decode']:.1f} steps/s, prefill {r['prefill'] * 1e3:.0f} ms")
        common.in_turn(__file__, contestants, 1 if args.quick else args.rounds, args.out, show)
    print(f"{common.machine()}\n")
    print("\n\n".join(table(common.read(args.out), case) for case in cases))


if __name__ == "__main__": main()
