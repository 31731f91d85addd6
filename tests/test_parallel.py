"Two processes on this machine's processor: the losses of one, one log, any number of processes after a resume, and an end when one of them dies."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked import FLAGS, LOG, said, story, train, train_ranks, weights, write_text

from llama_course import training
from llama_course.checkpoint import StopSignal

STEPS = 12


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a text and, in `one`, a run of one process."
    home = tmp_path_factory.mktemp("home")
    write_text(home)
    assert train(home / "one", "--max_steps", STEPS) == 0, said(home / "one")
    return home


def losses(folder): return [e[k] for e in story(folder) for k in ("loss", "eval_loss") if k in e]
def norms(folder): return [e["grad_norm"] for e in story(folder) if "grad_norm" in e]


def same_losses(home, folder, one="one"):
    "Training and validation losses within 1e-5 of the one process's; prints the largest difference."
    a, b = losses(home / one), losses(folder)
    assert len(a) == len(b) > STEPS
    worst = max(abs(x - y) for x, y in zip(a, b))
    print(f"{folder.name}: largest difference {worst:.1e} nats")
    assert worst < 1e-5
    for x, y in zip(norms(home / one), norms(folder)): assert abs(x - y) < 1e-3 * x, (x, y)  # AdamW and clipping forgive a wrong scale; this does not
    return True


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(parallel, home):
    folder = home / parallel
    assert train_ranks(folder, 2, "--parallel", parallel, "--max_steps", STEPS) == [0, 0], said(folder)
    assert same_losses(home, folder)
    assert [p.name for p in (folder / "training_logs").iterdir()] == ["custom-tiny.jsonl"]
    assert said(folder).count("training tokens of") == 1, "one process speaks for all"
    assert len(weights(folder)) == len(weights(home / "one"))


@pytest.mark.parametrize("first, then", [("fsdp", "none"), ("none", "fsdp"), ("none", "ddp"), ("ddp", "fsdp")])
def test_resumed_onto_another_number_of_processes(first, then, home):
    folder = home / f"{first}-{then}"
    for parallel, steps in ((first, 5), (then, STEPS)):
        assert train_ranks(folder, 1 if parallel == "none" else 2, "--parallel", parallel, "--max_steps", steps) in ([0], [0, 0]), said(folder)
    assert same_losses(home, folder)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_fp16_drops_an_overflow_everywhere(parallel, home):
    "Four steps at the first scale, 65536: where one process drops an update, two drop it as well, and go on alike."
    flags = ["--precision", "fp16", "--max_steps", 3, "--learning_rate", 1e-3]
    if not (home / "fp16-one").exists(): assert train(home / "fp16-one", *flags) == 0
    folder = home / f"fp16-{parallel}"
    assert train_ranks(folder, 2, "--parallel", parallel, *flags) == [0, 0], said(folder)
    a, b = (losses(home / "fp16-one"), losses(folder))
    assert max(abs(x - y) for x, y in zip(a, b)) < 5e-3


def test_torchrun_and_a_rank_that_is_killed(home):
    "The real launcher. One rank dies without a word: the job ends, says so, and is resumed."
    folder = home / "killed"
    folder.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "llama_course.train_llama3", *FLAGS, "--parallel", "ddp"]
    job = subprocess.Popen([*launch, "--max_steps", "100000", "--num_epochs", "1000", "--save_steps", "3"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                           text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 120
    while time.time() < deadline and not ((folder / LOG).exists() and '"step", "step": 4' in (folder / LOG).read_text()): time.sleep(0.05)
    ranks = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and b"llama_course.train_llama3" in read(p / "cmdline") and f"PPid:\t{job.pid}\n".encode() in read(p / "status")]
    assert len(ranks) == 2, ranks
    os.kill(max(ranks), signal.SIGKILL)
    killed = time.time()
    err = job.communicate(timeout=90)[1]
    print(f"the job ended {time.time() - killed:.1f} s after the kill")
    assert job.returncode == 1 and "lost another process of the job" in err and "--resume" in err, err[-3000:]
    assert all(not Path(f"/proc/{r}").exists() for r in ranks)
    assert train(folder, "--num_epochs", "1000", "--max_steps", len([e for e in story(folder) if e["event"] == "step"]) + 2) == 0, said(folder)


def read(path):
    "A file's bytes, b'' where it has gone."
    try: return path.read_bytes()
    except OSError: return b""


def test_a_signal_that_comes_while_they_confer(monkeypatch):
    "Not heeded at once, because the others know nothing of it, and not forgotten."
    run = SimpleNamespace(stop=StopSignal(), device=torch.device("cpu"))
    def largest(told):
        run.stop.note(signal.SIGTERM, None)
        return told
    monkeypatch.setattr(training, "world_size", lambda: 2)
    monkeypatch.setattr(training, "largest", largest)
    assert not training.asked_to_stop(run)
    assert training.asked_to_stop(run) and run.stop.received == signal.SIGTERM


def test_torchrun_asked_to_stop(home):
    "SIGTERM to the launcher: the ranks finish their step, one of them saves, and nobody hangs."
    folder = home / "terminated"
    folder.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "llama_course.train_llama3", *FLAGS, "--parallel", "fsdp"]
    job = subprocess.Popen([*launch, "--max_steps", "100000", "--num_epochs", "1000", "--save_steps", "100000"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 120
    while time.time() < deadline and not ((folder / LOG).exists() and '"step", "step": 3' in (folder / LOG).read_text()): time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    err = job.communicate(timeout=90)[1]
    assert err.count("go on with: torchrun --nproc_per_node 2") == 1, err[-3000:]
    assert story(folder)[-1]["reason"] == "interrupted"
    flags = ["--num_epochs", "1000", "--max_steps", max(e["step"] for e in story(folder) if e["event"] == "step") + STEPS]
    assert train(folder, *flags) == train(home / "one-asked", *flags) == 0, said(folder)
    assert same_losses(home, folder, "one-asked")
