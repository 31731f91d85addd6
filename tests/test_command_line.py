"The console scripts as a user meets them: each test starts a process. Mistakes get one line, exit status 2, and leave nothing behind."
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = ["--config_type", "tiny", "--block_size", "64", "--batch_size", "2", "--grad_accum_steps", "2", "--num_epochs", "1", "--learning_rate", "1e-3",
        "--warmup_steps", "2", "--precision", "fp32", "--wandb", "disabled"]


def run(module, *flags, cwd, timeout=240, **env):
    "A console script's finished process."
    return subprocess.run([sys.executable, "-m", f"llama_course.{module}", *map(str, flags)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **env})


def files(folder): return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


@pytest.fixture
def text(tmp_path):
    "A text file of its own folder, long enough for a few blocks in every split."
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "text.txt"
    path.write_text("".join(f"The number {i} comes before {i + 1} and after {i - 1}.\n" for i in range(3000)))
    return path


MISTAKES = {
    "unknown model": (["--model_type", "custom-lama3"], "Did you mean 'custom-llama3'?"),
    "unknown config": (["--config_type", "2B"], "expected one of tiny, 0.5B, 1B, 1.5B"),
    "unknown dataset": (["--dataset", "wikitext2"], "Did you mean 'wikitext-2'?"),
    "unknown precision": (["--precision", "half"], "expected one of auto, fp16, bf16, fp32"),
    "unknown flag": (["--learning_rat", "1"], "Did you mean '--learning_rate'?"),
    "negative epochs": (["--num_epochs", "-1"], "expected 1 or more"),
    "negative warm-up": (["--warmup_steps", "-5"], "expected 0 or more"),
    "not a number": (["--batch_size", "four"], "invalid int value: 'four'"),
    "neither true nor false": (["--use_llama2_tokenizer", "maybe"], "expected True or False"),
    "missing file": (["--dataset", "no/such.txt"], "there is no such path"),
    "missing tokenizer": (["--dataset", "python-docs", "--tokenizer", "no/such/tokenizer.model"], "no such file or folder"),
    "two wishes": (["--resume", "--overwrite"], "contradict each other"),
    "ddp without torchrun": (["--dataset", "python-docs", "--parallel", "ddp"], "needs torchrun"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line(name, tmp_path):
    flags, expected = MISTAKES[name]
    done = run("train_llama3", *flags, cwd=tmp_path)
    assert done.returncode == 2 and expected in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert files(tmp_path) == []


@pytest.mark.parametrize("content, expected", [(b"", "is empty"), (b"caf\xe9 " * 900, "is not UTF-8"), (b"too short", "too few for one block of 512")])
def test_a_bad_text_file(content, expected, tmp_path):
    (tmp_path / "text.txt").write_bytes(content)
    done = run("train_llama3", "--config_type", "tiny", "--dataset", "text.txt", cwd=tmp_path)
    assert done.returncode == 2 and expected in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert files(tmp_path) == ["text.txt"]


def test_heads_not_divisible(tmp_path):
    done = subprocess.run([sys.executable, "-c", "from llama_course.model import *; create_llama3_1b('tiny', {'num_attention_heads': 4, 'num_key_value_heads': 3})"],
                          capture_output=True, text=True, timeout=60)
    assert "num_attention_heads (4) must be divisible by num_key_value_heads (3)" in done.stderr


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_hub_unreachable_answers_in_five_seconds(kind, tmp_path):
    with socket.socket() as server:  # bound, but closed to connections; or listening and never answering
        server.bind(("127.0.0.1", 0))
        if kind == "silent": server.listen(8)
        start = time.time()
        done = run("train_llama3", cwd=tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}", HF_HOME=str(tmp_path / "hf"))
        seconds = time.time() - start
    assert done.returncode == 2 and "--dataset python-docs" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert seconds < 5, f"{seconds:.1f} s"


def test_a_run_its_folders_and_its_resumption(text, tmp_path):
    flags = [*TINY, "--dataset", text, "--eval_steps", "4", "--save_steps", "3"]
    assert run("train_llama3", *flags, "--max_steps", "4", cwd=tmp_path).returncode == 0
    before = files(tmp_path)
    again = run("train_llama3", *flags, "--max_steps", "8", cwd=tmp_path)
    assert again.returncode == 2 and "--resume to go on" in again.stderr and files(tmp_path) == before
    assert run("train_llama3", *flags, "--max_steps", "8", "--resume", cwd=tmp_path).returncode == 0
    assert run("train_llama3", *flags, "--max_steps", "8", cwd=tmp_path / "data").returncode == 0  # the same at one go
    one, two = (losses(folder / "training_logs" / "custom-tiny.jsonl") for folder in (tmp_path, tmp_path / "data"))
    assert one == two and len(one) == 8
    other = run("train_llama3", *flags, "--max_steps", "9", "--resume", "--seed", "7", cwd=tmp_path)
    assert other.returncode == 2 and "was trained with --seed 42, found 7" in other.stderr
    assert run("train_llama3", *flags, "--max_steps", "2", "--overwrite", cwd=tmp_path).returncode == 0
    assert len(losses(tmp_path / "training_logs" / "custom-tiny.jsonl")) == 2


def test_a_final_folder_with_other_things_in_it(text, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("...")
    done = run("train_llama3", *TINY, "--dataset", text, "--final_dir", "papers", "--overwrite", cwd=tmp_path)
    assert done.returncode == 2 and "holds files that are no model" in done.stderr and files(tmp_path / "papers") == ["thesis.tex"]


def losses(path):
    from llama_course.run_log import read_log
    return [e["loss"] for e in read_log(path) if e["event"] == "step"]


def test_terminate_saves_and_says_how_to_go_on(text, tmp_path):
    child = subprocess.Popen([sys.executable, "-m", "llama_course.train_llama3", *TINY, "--dataset", str(text)], cwd=tmp_path,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "training_logs" / "custom-tiny.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not (log.exists() and '"step", "step": 2' in log.read_text()): time.sleep(0.2)
    child.terminate()
    err = child.communicate(timeout=120)[1]
    assert child.returncode == 143 and "--resume" in err, err
    assert list((tmp_path / "llama3_checkpoints").glob("checkpoint-*")) and '"interrupted"' in log.read_text()


def test_compare_gives_the_same_curve_twice(text, tmp_path):
    done = run("compare", *TINY, "--dataset", text, "--max_steps", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    custom, meta = (losses(tmp_path / "training_logs" / f"{name}-tiny.jsonl") for name in ("custom", "meta"))
    assert len(custom) == 5 and max(abs(a - b) for a, b in zip(custom, meta)) < 1e-4
    assert (tmp_path / "training_logs" / "loss_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "largest difference over 5 steps" in done.stdout
