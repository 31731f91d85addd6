"The console script generate_llama3 as a user meets it: each test starts a process. Text goes to stdout, speed to stderr, mistakes get one line and status 2."
import os
import re
import signal
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "A folder with a small random model, without a tokenizer."
    from llama_course.model import create_llama3_1b
    folder = tmp_path_factory.mktemp("models") / "small"
    create_llama3_1b("tiny", {"vocab_size": 300, "initializer_range": 0.2, "eos_token_id": None, "max_position_embeddings": 100_000}).save_pretrained(folder)
    return folder


def start(*flags):
    "The script, started."
    return subprocess.Popen([sys.executable, "-m", "llama_course.generate_llama3", *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=ctrl_c_works)


def ctrl_c_works():
    "A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that."
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finish(*flags):
    "(status, stdout, stderr) of the finished script."
    child = start(*flags)
    out, err = child.communicate(timeout=120)
    return child.returncode, out, err


def test_ids_in_ids_out(model):
    status, out, err = finish("--model", model, "--ids", 1, 2, 3, "--max_new_tokens", 20)
    assert status == 0 and len(out.split()) == 20 and all(0 <= int(i) < 300 for i in out.split())
    assert re.fullmatch(r"prefill: 3 tokens, [\d.]+ tokens/s; decode: 19 tokens, [\d.]+ tokens/s\n", err), err
    assert finish("--model", model, "--ids", 1, 2, 3, "--max_new_tokens", 20)[1] == out  # the same seed


MISTAKES = {
    "no such folder": (["--model", "no/such/folder", "--ids", "1"], "no such folder"),
    "nothing to continue": ([], "give either --prompt or --ids"),
    "no tokenizer": (["--prompt", "a"], "has no tokenizer"),
    "id too high": (["--ids", "300"], "token id 300 is outside the model's vocabulary of 300"),
    "negative temperature": (["--ids", "1", "--temperature", "-1"], "temperature must be 0 (greedy) or above"),
    "unknown flag": (["--ids", "1", "--temprature", "1"], "--temprature"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line(name, model):
    flags, expected = MISTAKES[name]
    status, out, err = finish("--model", model, *flags)
    assert (status, out) == (2, "") and expected in err, err
    assert err.count("\n") == 1


def test_it_streams_and_ctrl_c_ends_it(model):
    child = start("--model", model, "--ids", 1, "--max_new_tokens", 90_000)
    assert child.stdout.read(20)  # text arrives long before the end
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in err, err
