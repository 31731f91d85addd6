"""Put into one folder, and one zip, all that a GPU machine without this project's packages, and without a network, needs:

    python gpu/bundle.py [--data FOLDER] [--config_type 0.5B] [--out runs/gpu_bundle]

There: unzip, `python run_gpu.py`. It asks for torch, transformers, safetensors, einops, tokenizers and matplotlib."""
import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 60
sys.path.insert(0, str(ROOT))


def write_texts(corpus, folder):  # a Corpus; where train.txt and valid.txt go
    "The splits as text files, read back as the same corpus on any machine."
    from llama_course.text_files import parts
    folder.mkdir(parents=True)
    for split in ("train", "valid"):
        with open(folder / f"{split}.txt", "w", encoding="utf-8", newline="") as f:
            for starts, text in parts(getattr(corpus, split)): f.write(text + "\n" * (not text.endswith("\n")))


def bundle(data, config_type, out):  # as in --dataset; which tokenizer; the folder to make
    "The zip's path; ValueError or OSError in one line where there is no such data."
    out = Path(out)
    if out.exists() and not (out / "run_gpu.py").exists(): raise ValueError(f"--out {out} is no bundle of before; give an empty name")
    if (out / "results").exists(): raise ValueError(f"{out / 'results'} holds results; move them away, or give another --out")
    from llama_course.corpora import load_corpus
    corpus = load_corpus(data)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "llama_course", out / "llama_course", ignore=shutil.ignore_patterns("__pycache__", "_modidx.py"))
    shutil.copy(ROOT / "gpu" / "run_gpu.py", out)
    write_texts(corpus, out / "data" / corpus.name.split()[0])
    os.environ["LLAMA_COURSE_CACHE"] = str(out / "cache")  # tokenized here, so that nobody waits for it there
    from llama_course.token_cache import cached_tokens
    from llama_course.tokenization import choose_tokenizer, open_tokenizer
    corpus = load_corpus(str(out / "data" / corpus.name.split()[0]))
    choose_tokenizer(corpus, config_type).save_pretrained(out / "tokenizer")
    folder, info = cached_tokens(corpus, open_tokenizer(str(out / "tokenizer")))
    for extra in (out / "cache").rglob("*"):
        if extra.is_file() and extra.parent != folder: extra.unlink()
    zipped = Path(shutil.make_archive(str(out), "zip", out.parent, out.name))
    size = zipped.stat().st_size / 1e6
    print(f"{zipped}: {size:.1f} MB, {corpus.name}, {info['train']['tokens']:,} training tokens. On the GPU machine: unzip it, then python run_gpu.py")
    if size > LIMIT_MB: raise ValueError(f"{zipped} has {size:.0f} MB, expected at most {LIMIT_MB}: give --data a smaller folder")
    return zipped


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help="a folder with train.txt and valid.txt, or as in train_llama3 --dataset; auto: WikiText-2 where it is to be had, else python-docs")
    parser.add_argument("--config_type", default="0.5B", help="whose tokenizer: tiny, or a larger one for Llama 3's (default 0.5B)")
    parser.add_argument("--out", default="runs/gpu_bundle", help="the folder; the zip stands beside it (default runs/gpu_bundle)")
    args = parser.parse_args()
    try: bundle(args.data, args.config_type, args.out)
    except (ValueError, OSError) as e: sys.exit(f"bundle.py: error: {str(e).splitlines()[0]}")
