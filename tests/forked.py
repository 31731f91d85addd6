"Runs `train_llama3` in forked processes: the imports are paid once, so that a test can afford twenty kills."
import faulthandler
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would not survive a fork
os.environ["OMP_NUM_THREADS"] = "1"
import torch  # noqa: E402

import torch.distributed.fsdp  # noqa: E402, F401
import torch.distributed.tensor  # noqa: E402, F401

import llama_course.parallel  # noqa: E402, F401
import llama_course.training  # noqa: E402, F401
import transformers.models.llama.modeling_llama  # noqa: E402, F401
from llama_course.train_llama3 import main  # noqa: E402

torch.set_num_threads(1)
FLAGS = ["--config_type", "tiny", "--dataset", "../text.txt", "--block_size", "32", "--batch_size", "2", "--grad_accum_steps", "2", "--num_epochs", "1", "--learning_rate", "1e-3",
         "--warmup_steps", "5", "--precision", "fp32", "--eval_steps", "10", "--early_stopping_patience", "0", "--wandb", "disabled", "--resume"]
LOG = "training_logs/custom-tiny.jsonl"
TIMEOUT = 150  # seconds for one training run, on a machine that does other things as well


def write_text(folder, lines=600):
    (folder / "text.txt").write_text("".join(f"The number {i} comes before {i + 1} and after {i - 1}.\n" for i in range(lines)))


def start(folder, *flags, before=lambda: None, env={}):
    "The id of a process that trains in `folder`; what it says goes to a file beside it."
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid: return pid
    code = 99
    try:
        os.chdir(folder)
        out = os.open(f"../{folder.name}.said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2): os.dup2(out, fd)
        faulthandler.dump_traceback_later(TIMEOUT - 10, file=out)  # one that hangs says where
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
        os.environ.update(env)
        before()
        main([*FLAGS, *map(str, flags)])
        code = 0
    except SystemExit as e: code = e.code or 0
    except BaseException: traceback.print_exc()
    finally:
        try: sys.stdout.flush(), sys.stderr.flush()
        finally: os._exit(code)


def finish(*pids):
    "Their exit statuses (of one process: its status), -9 where it was killed; None and killed where it takes too long."
    deadline, statuses = time.time() + TIMEOUT, {}
    while len(statuses) < len(pids) and time.time() < deadline:
        for pid in set(pids) - set(statuses):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done: statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for pid in set(pids) - set(statuses):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return statuses.get(pids[0]) if len(pids) == 1 else [statuses.get(pid) for pid in pids]


def train(folder, *flags, **kwargs):
    "Train in `folder` to the end; returns the exit status."
    return finish(start(folder, *flags, **kwargs))


def train_ranks(folder, world_size, *flags):
    "The exit statuses of `world_size` processes that train together, as torchrun would start them."
    port = str(free_port())
    env = lambda r: {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    statuses = finish(*[start(folder, *flags, env=env(r)) for r in range(world_size)])
    return statuses if world_size > 1 else [statuses]


def free_port():
    "One below those that the system hands out by itself: no other program gets it between now and its use."
    while True:
        port = random.SystemRandom().randrange(20000, 30000)
        with socket.socket() as s:
            try: s.bind(("127.0.0.1", port))
            except OSError: continue
            return port


def ended(pid): return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for(condition, pid=None, timeout=60):
    "Look until it holds; an AssertionError where it does not, or where the process ends first."
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "it did not happen"
        assert pid is None or not ended(pid), "the process ended too early"
        time.sleep(0.005)


def said(folder): return (folder.parent / f"{folder.name}.said").read_text()
def weights(folder): return (folder / "llama3_final_model" / "model.safetensors").read_bytes()
def reached(folder, step): return (folder / LOG).exists() and f'"step", "step": {step},' in (folder / LOG).read_text()


def story(folder):
    "What the log tells, without what depends on the clock and the machine's memory."
    events = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{k: v for k, v in e.items() if k not in ("tokens_per_s", "peak_memory_gb")} for e in events]
