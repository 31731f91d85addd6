"""Every run of this folder, made again:  python training_logs/make_runs.py --wikitext2 FOLDER [tiny seeds what-broke fp16 0.5B]

FOLDER holds WikiText-2 as train.txt and valid.txt (or .gz, .xz). Runs and checkpoints go to runs/logged; a run that was cut off goes on where it was.
`--pictures` draws the pictures and the table of README.md from the logs alone. On an idle core tiny takes about 15 minutes, seeds 3, what-broke 9, fp16 2; 0.5B on two cores an hour or two.
"""
import argparse
import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from unittest.mock import patch

from llama_course.config import CONFIGS, META_LLAMA
from llama_course.settings import TrainConfig
from llama_course.train_llama3 import log_path, prepare, train

HERE, CUSTOM = Path(__file__).resolve().parent, "custom-llama3"

# settings the runs of a group share; what is not named has train_llama3's default
TINY = dict(config_type="tiny", dataset="wikitext2-short", precision="fp32", block_size=128, batch_size=4, grad_accum_steps=2, learning_rate=3e-3,
            warmup_steps=50, num_epochs=1, eval_steps=250, save_steps=1000, early_stopping_patience=0)
SHORT = {**TINY, "max_steps": 500}
FP16 = {**TINY, "precision": "fp16", "block_size": 64, "batch_size": 2, "warmup_steps": 10, "max_steps": 30}
BIG = dict(config_type="0.5B", dataset="wikitext2-short", precision="bf16", block_size=128, learning_rate=3e-4, warmup_steps=20, num_epochs=1,
           max_steps=100, eval_steps=1000, save_steps=50, save_total_limit=1)

RUNS = {  # group/run: its settings
    "tiny/custom": TINY, "tiny/meta": {**TINY, "model_type": META_LLAMA},
    "seeds/43": {**SHORT, "model_type": META_LLAMA, "seed": 43}, "seeds/44": {**SHORT, "model_type": META_LLAMA, "seed": 44},
    "what-broke/eps": SHORT, "what-broke/theta": SHORT, "what-broke/split": {**SHORT, "dataset": "wikitext2-other"},
    "what-broke/order": {**SHORT, "seed": 43}, "what-broke/init": SHORT, "what-broke/default-init": SHORT, "what-broke/all": {**SHORT, "dataset": "wikitext2-other"},
    "fp16/custom": FP16, "fp16/meta": {**FP16, "model_type": META_LLAMA},
    "0.5B/custom": BIG, "0.5B/meta": {**BIG, "model_type": META_LLAMA},
}
CHANGED_CONFIG = {"what-broke/theta": dict(rope_theta=10_000.0), "what-broke/eps": dict(rms_norm_eps=1e-6),
                  "what-broke/all": dict(rope_theta=10_000.0, rms_norm_eps=1e-6)}


def change(name, run):  # a run's name; its Run, before the first step
    "What no flag can ask for."
    import torch
    from llama_course.model import init_weights
    fill = lambda seed: init_weights(run.model, generator=torch.Generator().manual_seed(seed))
    if name == "what-broke/order": fill(42)               # seed 43 deals the blocks, 42 the weights
    if name in ("what-broke/init", "what-broke/all"): fill(43)
    if name == "what-broke/default-init":                 # what PyTorch fills its layers with when nobody says
        torch.manual_seed(42)
        for m in run.model.modules():
            if hasattr(m, "reset_parameters"): m.reset_parameters()
    if name.startswith("fp16"):                           # a scale that is too large, and grows again soon: both can be seen in 30 steps
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, growth_interval=8)
        run.blocks.valid = run.blocks.valid[:16]          # fp16 is emulated here, and slow
        write = run.log.write
        run.log.write = lambda event, **fields: write(event, **fields, **({"loss_scale": run.scaler.get_scale()} if event == "step" else {}))


def settings(name):  # group/run
    "Its TrainConfig: folders of its own."
    group, run = name.split("/")
    return TrainConfig(**RUNS[name], wandb="disabled", resume=True, output_dir=f"runs/logged/{group}/checkpoints/{run}",
                       final_dir=f"runs/logged/{group}/models/{run}", log_dir=f"runs/logged/{group}/logs/{run}")


def make(name):  # group/run
    "Train it, in this process."
    with patch.dict(CONFIGS["tiny"], CHANGED_CONFIG.get(name, {})): run = prepare(settings(name))
    if run.progress.step == 0: change(name, run)
    if train(run) == "interrupted": sys.exit(128 + run.stop.received)


def cut_validation(wikitext2):  # a folder
    "wikitext2-short and wikitext2-other beside each other here: the training split of WikiText-2, and lines 1-300 or 301-600 of its validation split."
    from llama_course.text_files import open_binary
    train, valid = (next(wikitext2.glob(f"{split}.txt*"), None) for split in ("train", "valid"))
    if not (train and valid): raise FileNotFoundError(f"--wikitext2 {wikitext2}: expected train.txt and valid.txt (or .gz, .xz) there, found {'no ' + ('valid' if train else 'train') + '.txt'}")
    for name, first in (("wikitext2-short", 0), ("wikitext2-other", 300)):
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        if not (folder / train.name).exists(): (folder / train.name).symlink_to(train.resolve())
        with open_binary(valid) as f: (folder / "valid.txt").write_bytes(b"".join(islice(f, first, first + 300)))


def keep(name):  # group/run
    "Copy its log into this folder."
    to = HERE / f"{name}.jsonl"
    to.parent.mkdir(exist_ok=True)
    to.write_bytes(log_path(settings(name)).read_bytes())


def events(name):  # group/run
    "Its log, as kept here; None where it was not made."
    from llama_course.run_log import read_log
    path = HERE / f"{name}.jsonl"
    return read_log(path) if path.exists() else None


def floors():
    "Write tiny/floors.json: what models that only count tokens score on the blocks of the tiny runs."
    import numpy as np
    from llama_course.data import bigram_loss, choose_tokenizer, load_corpus, make_blocks, unigram_loss
    corpus = load_corpus(TINY["dataset"])
    blocks = make_blocks(corpus, choose_tokenizer(corpus, "tiny"), TINY["block_size"])
    train, valid, V = np.asarray(blocks.train).ravel(), np.asarray(blocks.valid).ravel(), blocks.info["vocab_size"]
    found = {"unigram": unigram_loss(train, valid, V), "bigram": min(bigram_loss(train, valid, V, k) for k in (10, 30, 100, 300)), "train_tokens": len(train), "valid_tokens": len(valid)}
    (HERE / "tiny/floors.json").write_text(json.dumps(found, indent=1) + "\n")


def until(run, step):  # events
    "Those up to a step."
    return [e for e in run if e.get("step", 0) <= step]


def comparisons():
    "[(run, against, events, events)] of everything that is kept here."
    meta = events("tiny/meta")
    rows = [(f"{g}/custom", f"{g}/meta", events(f"{g}/custom"), events(f"{g}/meta")) for g in ("tiny", "0.5B", "fp16")]
    rows += [(name, "tiny/meta", events(name), meta and until(meta, SHORT["max_steps"])) for name in RUNS if name.startswith(("seeds", "what-broke"))]
    return [row for row in rows if row[2] and row[3]]


def table():
    "The differences as Markdown."
    from llama_course.compare import apart, differences, tokens_per_second
    lines = ["| run | against | steps | training loss apart by: most | mean | at the end | validation loss, at the end | tokens/s |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for name, against, a, b in comparisons():
        most, mean, last = apart(a, b)
        held = list(differences(a, b, "eval", "eval_loss").values())[-1]
        lines.append(f"| `{name}` | `{against}` | {len(differences(a, b)):,} | {most:.1e} | {mean:.1e} | {last:.1e} | {held:+.1e} | {tokens_per_second(a):,.0f} |")
    return "\n".join(lines)


def draw():
    "The picture of each group, and the table in README.md."
    import matplotlib.style
    matplotlib.use("Agg")
    from llama_course.compare import plot_apart, plot_comparison
    matplotlib.style.use("llama_course.course")
    for group in ("tiny", "fp16", "0.5B"):
        custom, meta = events(f"{group}/custom"), events(f"{group}/meta")
        if not (custom and meta): continue
        fig = plot_comparison(custom, meta)
        if group == "0.5B":
            earlier = json.loads((HERE / "0.5B/earlier.json").read_text())["train"]
            for i, who in enumerate(("custom", "Meta")):
                fig.axes[0].plot([int(s) for s in earlier], [v[i] for v in earlier.values()], "x+"[i], color="C5", ms=7, label=f"earlier, {who}", zorder=0)
            fig.axes[0].set(xscale="log", xlim=(1, 1100))
            fig.axes[0].legend(fontsize=8, loc="lower left")
        fig.savefig(HERE / group / "loss_curves.png", dpi=150)
    if events("tiny/meta"):
        for group, title in (("seeds", "Meta against itself, with other seeds"), ("what-broke", "One change at a time")):
            runs = {name.split("/")[1]: events(name) for name in RUNS if name.startswith(group) and events(name)}
            if runs: plot_apart(runs, events("tiny/meta"), title, path=HERE / group / "apart.png")
    readme = HERE / "README.md"
    readme.write_text(re.sub(r"(?s)(<!-- table -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table()}\n{m[2]}", readme.read_text()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help="default: all")
    parser.add_argument("--wikitext2", type=Path, help="the folder of WikiText-2")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a run, in this process: its peak of memory is its own
    parser.add_argument("--pictures", action="store_true", help="train nothing; draw the pictures, and the table in README.md")
    args = parser.parse_args()
    known = list(dict.fromkeys(name.split("/")[0] for name in RUNS))
    for group in args.groups:
        if group not in known: parser.error(f"no group {group!r}: expected {', '.join(known)}")
    if args.one: return make(args.one)
    if not args.pictures:
        if args.wikitext2 is None: parser.error("--wikitext2 FOLDER is needed: train.txt and valid.txt of WikiText-2")
        try: cut_validation(args.wikitext2)
        except OSError as e: parser.error(str(e))
        for name in RUNS:
            if args.groups and name.split("/")[0] not in args.groups: continue
            path = log_path(settings(name))
            if not (path.exists() and '"event": "end"' in path.read_text()):
                one_thread = {"OMP_NUM_THREADS": "1"} if RUNS[name]["config_type"] == "tiny" else {}  # too small to share out
                status = subprocess.run([sys.executable, __file__, "--one", name], env={**os.environ, **one_thread}).returncode
                if status: parser.exit(status, f"{name} ended with status {status}; the same command goes on from there\n")
            keep(name)
            if name == "tiny/meta": floors()
    draw()


if __name__ == "__main__": main()
