"""What a CUDA machine shall prove, in one go: checks, a fp16 run of our model beside Meta's, benchmarks, and one summary of it all.

    python run_gpu.py [--minutes 8] [--out results]       inside the bundle that `make gpu-bundle` makes
    python run_gpu.py --toy                               the same script at toy size on any processor

Needs torch, transformers, safetensors, einops, tokenizers and matplotlib, and no network. Free disk space: about 15 GB, given back at the end."""
import argparse
import copy
import gc
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", LLAMA_COURSE_CACHE=str(HERE / "cache"), PYTHONPATH=os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from llama_course.config import META_LLAMA  # noqa: E402
from llama_course.model import create_llama3_1b, loadLlamaModelWithoutWeights  # noqa: E402
from llama_course.settings import TrainConfig  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


class NotHere(Exception):
    "A check that this machine cannot make."


def need_cuda():
    if not CUDA: raise NotHere("needs CUDA")


def free():
    "Give back what earlier models held."
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def shape(toy, layers=4):
    "The size the checks use: 0.5B's, fewer layers; `tiny` with a small vocabulary as a toy."
    return ("tiny", {"vocab_size": 512, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}) if toy else ("0.5B", {"num_hidden_layers": layers})


def twins(toy, dtype=torch.float32):
    "(custom, Meta's) with the same weights, on the device, for inference."
    size = shape(toy)
    custom, meta = create_llama3_1b(*size), loadLlamaModelWithoutWeights(META_LLAMA, *size)
    meta.load_state_dict(custom.state_dict())
    return custom.to(DEVICE, dtype).eval(), meta.to(DEVICE, dtype).eval()


def tokens(model, batch, length):
    return torch.randint(2, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0)).to(DEVICE)


# ---- the checks: each returns what it measured, in a few words, and fails by an assertion

@torch.no_grad()
def logits_equal_fp32(toy):
    custom, meta = twins(toy)
    ids = tokens(custom, 2, 64 if toy else 512)
    apart = (custom(ids).logits - meta(ids).logits).abs().max().item()
    assert apart < 1e-4, f"{apart:.1e} apart, expected less than 1e-4"
    return f"at most {apart:.1e} apart"


@torch.no_grad()
def logits_fp16_no_worse_than_meta(toy):
    custom, meta = twins(toy)
    ids = tokens(custom, 2, 32 if toy else 512)
    exact = meta(ids).logits.double()
    error = [(m.half()(ids).logits.double() - exact).abs().mean().item() for m in (custom, meta)]
    assert error[0] <= 1.25 * error[1] + 1e-6, f"mean error {error[0]:.2e}, Meta's is {error[1]:.2e}"
    return f"mean error {error[0]:.2e}, Meta's {error[1]:.2e}"


def flash_kernel_takes_attention(toy):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    custom = twins(toy)[0].train()
    ids = tokens(custom, 2, 64 if toy else 512)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.autocast(DEVICE.type, torch.float16 if CUDA else torch.bfloat16):
        loss = custom(ids, labels=ids).loss  # an error where that kernel cannot take it: a mask, or a wrong layout
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in custom.parameters())
    return "forward and backward with every other kernel switched off"


def fp16_overflow_skips_the_step(toy):
    from llama_course.training import train_step
    model = twins(toy)[0].train()
    before = copy.deepcopy(model.state_dict())
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0 ** 40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids, scales, skipped = tokens(model, 2, 16), [scaler.get_scale()], []
    for n in range(60):
        skipped.append(train_step(model, [(ids, ids)], ids.numel() - len(ids), optimizer, scaler, torch.autocast(DEVICE.type, torch.float16), 1.0)[2])
        scales.append(scaler.get_scale())
        same = all(torch.equal(a, before[k]) for k, a in model.state_dict().items())
        assert same == skipped[-1], f"step {n + 1}: skipped {skipped[-1]}, weights unchanged {same}"
        if not same: break
    assert skipped[0] and not skipped[-1], f"skipped: {skipped}"
    return f"{sum(skipped)} steps dropped while the scale fell from {scales[0]:.0e} to {scales[-1]:.0e}, then an update"


def compiled_whole_and_same(toy):
    model = twins(toy)[0].train()
    ids = tokens(model, 2, 32 if toy else 256)
    eager = model(ids, labels=ids).loss
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager" if toy else "inductor")
    loss = compiled(ids, labels=ids).loss
    loss.backward()
    apart = abs(loss.item() - eager.item())
    assert apart < 1e-4, f"{apart:.1e} apart"
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    return f"losses {apart:.1e} apart, {breaks} graph breaks"


def no_host_sync_in_micro_batches(toy):
    "The processor waits for the GPU as often for eight micro-batches as for one."
    need_cuda()
    from llama_course.training import train_step
    model = twins(toy)[0].train()
    ids = tokens(model, 1, 64)
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True), torch.amp.GradScaler("cuda")

    def waits(n):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try: train_step(model, [(ids, ids)] * n, n * (ids.numel() - 1), optimizer, scaler, torch.autocast("cuda", torch.float16), 1.0)
            finally: torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(w.message) for w in seen)
    waits(1)  # the first step sets things up
    one, eight = waits(1), waits(8)
    assert 0 < one == eight, f"{one} waits with one micro-batch, {eight} with eight"
    return f"{one} waits a step, with one micro-batch and with eight"


def loss_memory(toy):
    "The loss of 2048 tokens over Llama 3's vocabulary, forward and backward, against plain cross entropy; gradients against fp32."
    from llama_course.loss import causal_lm_loss
    T, D, V = (64, 32, 500) if toy else (2048, 1024, 128_256)
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(1, T, D, generator=g).to(DEVICE), (0.02 * torch.randn(V, D, generator=g)).to(DEVICE)
    labels = torch.randint(0, V, (1, T), generator=g).to(DEVICE)

    def plain(h, w, labels): return F.cross_entropy(F.linear(h, w)[0, :-1].float(), labels[0, 1:])

    def run(f, half):
        h, w = (t.clone().requires_grad_() for t in (hidden, weight))
        free()
        start = torch.cuda.memory_allocated() if CUDA else 0
        with torch.autocast(DEVICE.type, half, enabled=half is not None): loss = f(h, w, labels)
        (loss * 1024).backward()  # scaled, as under the scaler
        extra = torch.cuda.max_memory_allocated() - start if CUDA else 0
        return h.grad.double() / 1024, extra
    exact, _ = run(plain, None)
    half = torch.float16 if CUDA else torch.bfloat16
    (ours, our_gb), (theirs, their_gb) = run(causal_lm_loss, half), run(plain, half)
    error = [((g - exact).norm() / exact.norm()).item() for g in (ours, theirs)]
    assert error[0] <= 1.25 * error[1], f"gradient error {error[0]:.1e}, plain {error[1]:.1e}"
    if not CUDA: return f"gradient error {error[0]:.1e}, plain {error[1]:.1e}; memory is measured on CUDA"
    assert our_gb <= 0.5 * their_gb, f"{our_gb / 1e9:.2f} GB, plain {their_gb / 1e9:.2f} GB"
    return f"{our_gb / 1e9:.2f} GB extra, plain {their_gb / 1e9:.2f} GB ({our_gb / their_gb:.0%}); gradient error {error[0]:.1e}, plain {error[1]:.1e}"


@torch.no_grad()
def cache_generates_the_same(toy):
    custom, meta = twins(toy)
    ids = tokens(custom, 2, 12)
    new = 8 if toy else 48
    cached, plain = (custom.generate(ids, new, use_cache=c) for c in (True, False))
    theirs = meta.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0)
    assert torch.equal(cached, plain), "with and without the cache differ"
    same = (cached == theirs).float().mean().item()
    assert same == 1, f"{same:.0%} of the tokens as Meta's"
    return f"{2 * new} tokens: with the cache, without it, and Meta's"


CHECKS = (logits_equal_fp32, logits_fp16_no_worse_than_meta, flash_kernel_takes_attention, fp16_overflow_skips_the_step, compiled_whole_and_same,
          no_host_sync_in_micro_batches, loss_memory, cache_generates_the_same)


def run_checks(toy):
    "[(name, ok / FAIL / skipped, what was measured)]."
    rows = []
    for check in CHECKS:
        free()
        torch.manual_seed(0)
        try: verdict = "ok", check(toy)
        except NotHere as e: verdict = "skipped", str(e)
        except Exception as e:
            traceback.print_exc()
            verdict = "FAIL", f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        rows.append((check.__name__, *verdict))
        print(f"{verdict[0]:<8}{check.__name__}: {verdict[1]}", flush=True)
    return rows


# ---- the benchmarks

def seconds(f, repeat):
    "Median seconds of a call, after two that do not count; the GPU has finished each."
    times = []
    for _ in range(repeat + 2):
        start = time.perf_counter()
        f()
        if CUDA: torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeat // 2]


def models(toy, size):
    "(name, a function that makes the model) of ours and Meta's."
    return (("custom", lambda: create_llama3_1b(*size)), ("Meta (transformers, sdpa)", lambda: loadLlamaModelWithoutWeights(META_LLAMA, *size)))


def bench_train(toy):
    "{name: (seconds a micro-batch step, tokens/s, peak GB)}: forward, backward, clip, AdamW."
    from llama_course.training import peak_memory_gb, train_step
    size, (batch, length), repeat = (shape(True), (2, 32), 1) if toy else (("0.5B", {}), (4, 512), 10)
    half, found = torch.float16 if CUDA else torch.bfloat16, {}
    contestants = dict(models(toy, size))
    if CUDA: contestants["custom --compile"] = contestants["custom"]
    for name, make in contestants.items():
        free()
        try:
            torch.manual_seed(0)
            model = make().to(DEVICE).train()
            model.config.use_cache = False
            if "compile" in name: model.compile()
            ids = tokens(model, batch, length)
            optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True), torch.amp.GradScaler(DEVICE.type, enabled=CUDA)
            step = lambda: train_step(model, [(ids, ids)], batch * (length - 1), optimizer, scaler, torch.autocast(DEVICE.type, half), 1.0)
            s = seconds(step, repeat)
            found[name] = (s, batch * length / s, peak_memory_gb(DEVICE))
        except torch.OutOfMemoryError: print(f"{name}: out of memory", flush=True)
        model = optimizer = None
        if name in found: print(f"train   {name}: {found[name][1]:,.0f} tokens/s, peak {found[name][2]:.2f} GB", flush=True)
    return found


@torch.no_grad()
def bench_decode(toy):
    "{name: (tokens/s of decoding, tokens/s of prefill)}, batch 1, half precision, greedy."
    size, prompt, new = (shape(True), 16, 4) if toy else (("0.5B", {}), 128, 128)
    half, found = torch.float16 if CUDA else torch.bfloat16, {}
    for name, make in models(toy, size):
        free()
        model = make().to(DEVICE, half).eval()
        ids = tokens(model, 1, prompt)
        if name == "custom": generate = lambda n: model.generate(ids, n)
        else: generate = lambda n: model.generate(ids, max_new_tokens=n, min_new_tokens=n, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0)
        first, all_of_it = seconds(lambda: generate(1), 1 if toy else 5), seconds(lambda: generate(1 + new), 1 if toy else 3)
        found[name] = (new / max(all_of_it - first, 1e-9), prompt / first)
        print(f"decode  {name}: {found[name][0]:,.1f} tokens/s", flush=True)
        model = None
    return found


# ---- our model beside Meta's, from the command line

def a_little_of(data, folder):
    "The first lines of a data folder, for toys: evaluating takes all there is."
    folder.mkdir()
    for split, size in (("train", 100_000), ("valid", 2_000)):
        with open(data / f"{split}.txt", encoding="utf-8") as f: (folder / f"{split}.txt").write_text(f.read(size), encoding="utf-8")
    return folder


def train_pair(toy, minutes, out, data, step_seconds):
    "(custom events, Meta events): each for half of the minutes, on the same blocks from the same weights; the recipe is the course's."
    from llama_course.compare import command, pair
    from llama_course.run_log import read_log
    from llama_course.train_llama3 import log_path
    if toy: data = a_little_of(data, out / "data")
    common = dict(dataset=os.path.relpath(data), output_dir=f"{out}/checkpoints", final_dir=f"{out}/models", log_dir=f"{out}/logs", wandb="disabled", save_steps=10 ** 9, precision="fp16")
    if toy: cfg = TrainConfig(config_type="tiny", max_steps=2, eval_steps=2, block_size=32, batch_size=2, grad_accum_steps=2, warmup_steps=2, learning_rate=1e-3, **common)
    else:
        steps = max(10, int(0.75 * 60 * minutes / (4 * sum(step_seconds))))  # a quarter of the time for evaluations and for saving
        cfg = TrainConfig(config_type="0.5B", tokenizer=os.path.relpath(HERE / "tokenizer"), max_steps=steps, eval_steps=max(100, steps // 4), **common)
    events = []
    for name, run in pair(cfg).items():
        child = subprocess.Popen(command(run))
        try: child.wait(60 * minutes / 2)
        except subprocess.TimeoutExpired:  # it saves, closes its log and ends
            child.send_signal(signal.SIGTERM)
            try: child.wait(180)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.returncode not in (0, 143, -signal.SIGTERM, -signal.SIGKILL): raise RuntimeError(f"the training of {name} ended with status {child.returncode}")
        for folder in (run.output_dir, run.final_dir): shutil.rmtree(folder, ignore_errors=True)
        events.append(read_log(log_path(run)))
    for folder in ("checkpoints", "models", "data"): shutil.rmtree(out / folder, ignore_errors=True)
    return tuple(events)


def summary(args, checks, train, decode, events, failure):
    "The text of summary.md."
    from llama_course.compare import comparison_table
    import transformers
    gpu = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}" if CUDA else f"no CUDA: {platform.machine()} processor"
    lines = ["# GPU kit: what was found", "", f"{gpu}. torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}."
             + (" Toy size: the figures say nothing about speed." if args.toy else ""), "", "## Checks", "", "| check | | measured |", "|---|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {verdict} | {detail} |" for name, verdict, detail in checks]
    half = "fp16" if CUDA else "bf16"
    lines += ["", f"## Training step, {'toy size' if args.toy else '0.5B, 4 blocks of 512'}, {half}", "", "| | tokens/s | peak GB |", "|---|---:|---:|"]
    lines += [f"| {name} | {rate:,.0f} | {gb:.2f} |" for name, (_, rate, gb) in train.items()]
    lines += ["", f"## Decoding, batch 1, {half}", "", "| | decode tokens/s | prefill tokens/s |", "|---|---:|---:|"]
    lines += [f"| {name} | {rate:,.1f} | {prefill:,.0f} |" for name, (rate, prefill) in decode.items()]
    lines += ["", "## Custom beside Meta", ""]
    if events: lines += [f"{'tiny' if args.toy else '0.5B'}, fp16 with loss scaling, {events[0][0].get('dataset_name')}. Logs in logs/, picture in loss_curves.png.", "", "```", comparison_table(*events), "```"]
    else: lines.append(f"FAIL: {failure}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="for the two training runs together (default 8)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where logs, picture and summary.md go (default results)")
    parser.add_argument("--data", type=Path, help="a folder with train.txt and valid.txt (default: the bundle's)")
    parser.add_argument("--toy", action="store_true", help="a few steps at toy size, on any processor")
    args = parser.parse_args()
    data = args.data or next((p for p in sorted((HERE / "data").glob("*")) if p.is_dir()), None)
    if not CUDA and not args.toy: parser.exit(2, "run_gpu.py: error: no CUDA device found by torch; on another machine try --toy\n")
    if args.minutes <= 0: parser.exit(2, f"run_gpu.py: error: --minutes {args.minutes}: expected a number above 0\n")
    if data is None or not data.is_dir(): parser.exit(2, f"run_gpu.py: error: no data in {HERE / 'data'}; make the bundle with `make gpu-bundle`, or give --data FOLDER\n")
    if args.out.exists() and any(args.out.iterdir()): parser.exit(2, f"run_gpu.py: error: {args.out} holds results already; give another --out\n")
    args.out.mkdir(parents=True, exist_ok=True)
    checks, train, decode = run_checks(args.toy), bench_train(args.toy), bench_decode(args.toy)
    free()
    events, failure = None, ""
    try:
        events = train_pair(args.toy, args.minutes, args.out, data, [s for s, _, _ in list(train.values())[:2]])
        from llama_course.compare import plot_comparison
        import matplotlib
        matplotlib.use("Agg")
        plot_comparison(*events, args.out / "loss_curves.png")
    except Exception as e:
        traceback.print_exc()
        failure = f"{type(e).__name__}: {e}"
    (args.out / "summary.md").write_text(summary(args, checks, train, decode, events, failure), encoding="utf-8")
    print(f"\n{(args.out / 'summary.md').read_text(encoding='utf-8')}\nsummary: {args.out / 'summary.md'}")
    sys.exit(bool(failure) or any(verdict == "FAIL" for _, verdict, _ in checks))


if __name__ == "__main__": main()
