"The package as it is installed: what importing costs, and what a wheel carries."
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_model_needs_torch_and_einops_only():
    blocked = ("transformers", "datasets", "wandb", "nbdev", "matplotlib", "fastcore", "safetensors", "tokenizers")
    code = f"import sys; sys.modules.update({{n: None for n in {blocked!r}}}); import llama_course, llama_course.model, llama_course.generation as g\n" \
           "import torch; m = llama_course.model.create_llama3_1b('tiny'); print(m.generate(torch.zeros(1, 3, dtype=torch.long), 2).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "[1, 5]" in done.stdout, done.stderr


def test_the_wheel_carries_scripts_and_style(tmp_path):
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    source = tmp_path / "source"
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith("nbs/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path / "dist", source], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    wheel = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl")))
    names = wheel.namelist()
    scripts = wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "train_llama3 = llama_course.train_llama3:main" in scripts and "compare_llama3 = llama_course.compare:main" in scripts
    assert "llama_course/course.mplstyle" in names and "llama_course/model.py" in names
