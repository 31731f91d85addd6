"The GPU kit at toy size on this processor: the bundle runs where nbdev, datasets, wandb and fastcore are missing, and no network is used."
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# imported at the start of every Python process, those that training starts included
BARE = """import sys
sys.modules.update({name: None for name in ("nbdev", "datasets", "wandb", "fastcore", "IPython", "tiktoken", "llama_models", "pandas", "pyarrow")})
import socket
def refuse(*args, **kwargs): raise RuntimeError(f"the network was asked for: {args}")
socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    "The zip, unpacked somewhere else."
    tmp = tmp_path_factory.mktemp("kit")
    words, dice = "the quick brown fox jumps over a lazy dog and tells nobody about it".split(), random.Random(0)
    (tmp / "text").mkdir()
    for split, n in (("train", 6000), ("valid", 1200)): (tmp / "text" / f"{split}.txt").write_text("\n".join(" ".join(dice.choices(words, k=12)) for _ in range(n // 12)))
    done = subprocess.run([sys.executable, ROOT / "gpu" / "bundle.py", "--data", tmp / "text", "--config_type", "tiny", "--out", tmp / "made" / "gpu_bundle"],
                          capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp / "made" / "gpu_bundle.zip") as z: z.extractall(tmp / "elsewhere")
    (tmp / "bare").mkdir()
    (tmp / "bare" / "sitecustomize.py").write_text(BARE)
    return tmp


def run(bundle, *argv):
    "The bundle's script, in a bare Python, with no other llama_course in reach."
    env = {**os.environ, "PYTHONPATH": str(bundle / "bare"), "OMP_NUM_THREADS": "1", "HOME": str(bundle / "home"), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, "run_gpu.py", *argv], cwd=bundle / "elsewhere" / "gpu_bundle", env=env, capture_output=True, text=True, timeout=400)


def test_the_kit_runs_in_a_bare_python(bundle):
    done = run(bundle, "--toy", "--minutes", "6")
    results = bundle / "elsewhere" / "gpu_bundle" / "results"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = (results / "summary.md").read_text()
    assert "FAIL" not in said and said.count("| ok |") == 7 and "largest difference over 2 steps" in said, said
    assert (results / "loss_curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in results.rglob("*") if p.is_file()) == ["custom-tiny.jsonl", "loss_curves.png", "meta-tiny.jsonl", "summary.md"]
    assert '"precision": "fp16"' in (results / "logs" / "custom-tiny.jsonl").read_text()
    again = run(bundle, "--toy")
    assert again.returncode == 2 and "holds results already" in again.stderr


def test_without_a_gpu_it_says_so(bundle):
    done = run(bundle, "--out", "elsewhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "no CUDA device" in done.stderr
    assert not (bundle / "elsewhere" / "gpu_bundle" / "elsewhere").exists()
