"The data path against a hub that is present, absent, silent, stalling or gated, through the real client libraries; and the cache of tokens between processes."
import json
import os
import resource
import subprocess
import sys
import time

import pytest
from fakehub import fakehub

TINY = ["--config_type", "tiny", "--block_size", "32", "--batch_size", "2", "--grad_accum_steps", "1", "--max_steps", "2", "--num_epochs", "1", "--warmup_steps", "1",
        "--precision", "fp32", "--wandb", "disabled"]
WIKITEXT = "".join(f" = Title {i} = \n \n The {i} th article is well @-@ known , and says nothing else than that . \n" for i in range(400))


def env(tmp_path, address="http://127.0.0.1:9", **more):
    "The environment of a process that knows this hub only, and starts with empty caches."
    cleared = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {**cleared, "OMP_NUM_THREADS": "1", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "LLAMA_COURSE_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def train(cwd, *flags, timeout=240, preexec_fn=None, **environment):
    "A finished train_llama3, run in a folder of its own."
    cwd.mkdir(exist_ok=True)
    return subprocess.run([sys.executable, "-m", "llama_course.train_llama3", *map(str, flags)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
                          env=environment or env(cwd.parent), preexec_fn=preexec_fn)


def python(code, timeout=240, **environment):
    "The finished process that ran this code."
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=environment)


def one_line(done, *words):
    "The process ended with status 2 and one line on stderr that says all this."
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and all(w in done.stderr for w in words), done.stderr


def log_of(folder, event):
    "The log's lines of that kind."
    lines = (folder / "training_logs" / "custom-tiny.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == event]


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory):
    "What the stand-in serves: WikiText-2, a tokenizer.model, a tokenizer.json, a model, and a gated model."
    import pandas
    from llama_course.corpora import load_corpus
    from llama_course.model import create_llama3_1b
    from llama_course.tokenization import train_bpe, train_sentencepiece
    root = tmp_path_factory.mktemp("hub")
    data = root / "datasets" / "Salesforce" / "wikitext"
    (data / "wikitext-2-raw-v1").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = ["", *WIKITEXT.splitlines(keepends=True)]
        pandas.DataFrame({"text": rows if split == "train" else rows[:400]}).to_parquet(data / "wikitext-2-raw-v1" / f"{split}.parquet")
    splits = "".join(f"  - split: {s}\n    path: wikitext-2-raw-v1/{s}.parquet\n" for s in ("train", "validation", "test"))
    (data / "README.md").write_text(f"---\nconfigs:\n- config_name: wikitext-2-raw-v1\n  data_files:\n{splits}---\n")
    corpus = load_corpus("python-docs")
    old, new, gated = (root / "models" / name for name in ("hf-internal-testing/llama-tokenizer", "someone/llama", "meta-llama/Llama-3.2-1B"))
    for folder in (old, new, gated): folder.mkdir(parents=True)
    train_sentencepiece(corpus.train[:30], old / "tokenizer.model", 1000)
    tokenizer = train_bpe(corpus.train[:30], 600)
    for folder in (new, gated):
        tokenizer.save_pretrained(folder)
        create_llama3_1b("tiny", {"vocab_size": 600, "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 96}).save_pretrained(folder)
    (gated / "GATED").touch()
    return root


def test_wikitext_from_the_hub_and_then_without_it(hub_files, tmp_path):
    with fakehub(hub_files) as (address, asked):
        done = train(tmp_path / "one", *TINY, **env(tmp_path, address))
        assert done.returncode == 0, done.stderr
        assert any("wikitext" in a for a in asked)
    first, last = log_of(tmp_path / "one", "run")[0], log_of(tmp_path / "one", "eval")[-1]
    assert (first["dataset_name"], first["dataset_version"]) == ("wikitext-2-raw-v1", "raw")
    assert first["train_words"] == len(WIKITEXT.split()) + WIKITEXT.count("\n") and first["train_tokens"] > 0
    assert last["word_perplexity"] > last["perplexity"] > 1
    done = train(tmp_path / "two", *TINY, **env(tmp_path))  # the hub is gone; what was downloaded is still here
    assert done.returncode == 0, done.stderr
    assert [e["loss"] for e in log_of(tmp_path / "two", "step")] == [e["loss"] for e in log_of(tmp_path / "one", "step")]


def test_the_32k_tokenizer_from_the_hub(hub_files, text, tmp_path):
    flags = [*TINY, "--dataset", text, "--use_llama2_tokenizer", "True"]
    with fakehub(hub_files) as (address, _):
        done = train(tmp_path / "one", *flags, **env(tmp_path, address))
        assert done.returncode == 0, done.stderr
    run = log_of(tmp_path / "one", "run")[0]
    assert run["vocab_size"] == run["model_config"]["vocab_size"] == 1001  # the pad token made it grow
    assert run["model_config"]["pad_token_id"] == 1000
    assert train(tmp_path / "two", *flags, **env(tmp_path)).returncode == 0  # from the local cache
    one_line(train(tmp_path / "three", *flags, **env(tmp_path / "three")), "--tokenizer PATH/tokenizer.model")
    local = [*TINY, "--dataset", text, "--tokenizer", hub_files / "models" / "hf-internal-testing" / "llama-tokenizer" / "tokenizer.model"]
    assert train(tmp_path / "four", *local).returncode == 0
    assert log_of(tmp_path / "four", "run")[0]["tokenizer_fingerprint"] == run["tokenizer_fingerprint"]


def test_tokenizer_config_and_weights_through_the_libraries(hub_files, tmp_path):
    code = """
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from llama_course.model import Llama3ForCausalLM
from llama_course.tokenization import open_tokenizer
repo = "someone/llama"
assert AutoConfig.from_pretrained(repo).hidden_size == 64
text = "Return the index."
ids = open_tokenizer(repo)(text).input_ids
assert ids == AutoTokenizer.from_pretrained(repo)(text).input_ids and len(ids) > 3
ids = torch.tensor([ids])
with torch.no_grad(): ours, theirs = Llama3ForCausalLM.from_pretrained(repo)(ids).logits, AutoModelForCausalLM.from_pretrained(repo)(ids).logits
torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
print("the same")
"""
    with fakehub(hub_files) as (address, _): done = python(code, **env(tmp_path, address))
    assert "the same" in done.stdout, done.stderr


def test_a_gated_repository_with_and_without_login(hub_files, text, tmp_path):
    flags = [*TINY, "--dataset", text, "--tokenizer", "meta-llama/Llama-3.2-1B"]
    with fakehub(hub_files) as (address, _):
        for name, login in (("nobody", {}), ("somebody", {"HF_TOKEN": "hf_without_access"})):
            start = time.time()
            one_line(train(tmp_path / name, *flags, **env(tmp_path, address, **login)), "it is gated", "huggingface-cli login", "--tokenizer auto", "llama_course[tokenizers]")
            assert time.time() - start < 5
        done = train(tmp_path / "friend", *flags, **env(tmp_path, address, HF_TOKEN="hf_letmein"))
        assert done.returncode == 0, done.stderr
    assert log_of(tmp_path / "friend", "run")[0]["vocab_size"] == 600


ABSENT = {
    "dataset": (["--dataset", "wikitext-2"], ["--dataset python-docs", "--dataset FOLDER"]),
    "tokenizer": (["--dataset", "text.txt", "--tokenizer", "nobody/nothing"], ["--tokenizer PATH"]),
    "config": (["--dataset", "text.txt", "--model_type", "nobody/nothing"], ["huggingface-cli login"]),
}


@pytest.mark.parametrize("what", ABSENT)
@pytest.mark.parametrize("hub", ["empty", "silent", "refusing"])
def test_what_is_not_there_is_said_in_five_seconds(what, hub, text, tmp_path):
    flags, words = ABSENT[what]
    flags = [text if f == "text.txt" else f for f in flags]
    (tmp_path / "nothing").mkdir()
    with fakehub(tmp_path / "nothing", mood="silent" if hub == "silent" else "well") as (address, _):
        start = time.time()
        done = train(tmp_path / "run", *TINY, *flags, **env(tmp_path, "http://127.0.0.1:9" if hub == "refusing" else address))
        seconds = time.time() - start
    one_line(done, *words)
    assert seconds < 5, f"{seconds:.1f} s"
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("flags", [["--dataset", "wikitext-2"], ["--tokenizer", "someone/llama", "--dataset"]])
def test_a_download_that_stalls_ends(flags, hub_files, text, tmp_path):
    flags = flags + [text] * (flags[-1] == "--dataset")
    with fakehub(hub_files, mood="stalls") as (address, _):
        start = time.time()
        done = train(tmp_path / "run", *TINY, *flags, **env(tmp_path, address, HF_HUB_DOWNLOAD_TIMEOUT="1"))
        seconds = time.time() - start
    assert done.returncode == 2 and "the download failed" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, done.stderr
    assert seconds < 60 and list((tmp_path / "run").iterdir()) == [], f"{seconds:.0f} s"


@pytest.fixture
def text(tmp_path):
    "A text file, long enough for a few blocks in every split."
    path = tmp_path / "text.txt"
    path.write_text("".join(f"The number {i} comes before {i + 1} and after {i - 1}.\n" for i in range(3000)))
    return path


def test_two_processes_fill_one_cache(text, tmp_path):
    code = f"""
from llama_course.data import choose_tokenizer, load_corpus, make_blocks
corpus = load_corpus({str(text)!r})
blocks = make_blocks(corpus, choose_tokenizer(corpus, "tiny"), 32)
print(blocks.train.shape, int(blocks.train.sum()))
"""
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env(tmp_path)) for _ in range(3)]
    said = [c.communicate(timeout=120) for c in children]
    assert len({out for out, _ in said}) == 1 and said[0][0], said
    made = [p.name for p in (tmp_path / "cache" / "tokens").iterdir() if not p.name.endswith(".lock")]
    assert len(made) == 1 and ".part-" not in made[0]


def test_a_killed_process_leaves_no_half_cache(text, tmp_path):
    slow = f"""
import time, llama_course.token_cache as cache
from llama_course.data import choose_tokenizer, load_corpus, make_blocks
real = cache.token_chunks
def chunks(*args):
    for chunk in real(*args):
        yield chunk
        print("one", flush=True); time.sleep(60)
cache.token_chunks = chunks
corpus = load_corpus({str(text)!r})
make_blocks(corpus, choose_tokenizer(corpus, "tiny"), 32)
"""
    child = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, env=env(tmp_path))
    assert child.stdout.readline() == b"one\n"
    child.kill()
    child.wait(timeout=60)
    assert train(tmp_path / "run", *TINY, "--dataset", text).returncode == 0
    made = [p.name for p in (tmp_path / "cache" / "tokens").iterdir() if not p.name.endswith(".lock")]
    assert len(made) == 1 and ".part-" not in made[0]


def test_a_damaged_cache_is_made_again_with_a_note(text, tmp_path):
    assert train(tmp_path / "one", *TINY, "--dataset", text).returncode == 0
    for path in (tmp_path / "cache").rglob("train.int32"): path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\x00")
    done = train(tmp_path / "two", *TINY, "--dataset", text)
    assert done.returncode == 0 and "are damaged; they are made again" in done.stderr
    assert [e["loss"] for e in log_of(tmp_path / "two", "step")] == [e["loss"] for e in log_of(tmp_path / "one", "step")]


def test_no_room_for_the_cache(text, tmp_path):
    def small_files(): resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    done = train(tmp_path / "run", *TINY, "--dataset", text, preexec_fn=small_files)
    one_line(done, "could not be written", "free some disk space", "LLAMA_COURSE_CACHE")
    assert [p for p in (tmp_path / "cache" / "tokens").rglob("*") if p.is_file() and p.suffix != ".lock"] == [] and list((tmp_path / "run").iterdir()) == []


def test_one_line_of_fifty_megabytes(tmp_path):
    path = tmp_path / "line.txt"
    with open(path, "w") as f:
        for i in range(1000): f.write("one line that never ends, though it has words enough " * 1000)
    code = f"""
import resource
from llama_course.corpora import Corpus, load_corpus
from llama_course.data import choose_tokenizer, make_blocks
corpus = load_corpus({str(path)!r})
tokenizer = choose_tokenizer(Corpus("words", ["one line that never ends, though it has words enough "], []), "tiny")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blocks = make_blocks(corpus, tokenizer, 512)
print(blocks.info["train_words"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = python(code, **env(tmp_path))
    assert done.returncode == 0, done.stderr
    words, more_memory = map(int, done.stdout.split())
    assert abs(words - 9_000_000) <= 2 and more_memory < 400_000, f"{words} words, {more_memory / 1000:.0f} MB more"


def test_another_tokenizer_does_not_fit_a_checkpoint(text, hub_files, tmp_path):
    flags = [*TINY, "--dataset", text, "--save_steps", "1"]
    assert train(tmp_path / "run", *flags).returncode == 0
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    other = hub_files / "models" / "someone" / "llama"
    one_line(train(tmp_path / "run", *flags, "--resume", "--tokenizer", other), "was trained with another tokenizer", "vocabulary of 600", "give the same --tokenizer")
    text.write_text(text.read_text().replace("before", "beyond"))
    one_line(train(tmp_path / "run", *flags, "--resume"), "was trained with another t", "another --output_dir")
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*")) == before


def test_a_tokenizer_without_an_end_token(text, hub_files, tmp_path):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast
    source = Tokenizer.from_file(str(hub_files / "models" / "someone" / "llama" / "tokenizer.json"))
    PreTrainedTokenizerFast(tokenizer_object=source).save_pretrained(tmp_path / "no_eos")
    one_line(train(tmp_path / "run", *TINY, "--dataset", text, "--tokenizer", tmp_path / "no_eos"), "no end-of-text token (eos)")
    PreTrainedTokenizerFast(tokenizer_object=source, eos_token="<|end_of_text|>").save_pretrained(tmp_path / "eos_only")
    done = train(tmp_path / "run", *TINY, "--dataset", text, "--tokenizer", tmp_path / "eos_only")
    assert done.returncode == 0, done.stderr
    assert log_of(tmp_path / "run", "run")[0]["model_config"]["vocab_size"] == 601  # the pad token made it grow; <|begin_of_text|> was there
