"Is what is committed what the notebooks say? Each check returns a list of complaints, [] when all is well."
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from notebooks import NBS, ROOT, all_notebooks, cells, directives, render_readme

NBDEV = Path(sys.executable).parent


def tree(folder, *patterns):
    "{path inside the folder: bytes} of the files that match."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for pattern in patterns for p in folder.rglob(pattern) if ".ipynb_checkpoints" not in p.parts}


def in_sync():
    "Export and clean a copy; it must come out as what is here. Catches edited modules, stale ones, and notebooks not cleaned."
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / "copy"
        (copy / "llama_course").mkdir(parents=True)
        shutil.copytree(NBS, copy / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        for name in ("settings.ini", "llama_course/__init__.py"): shutil.copy(ROOT / name, copy / name)
        for tool in ("nbdev_export", "nbdev_clean"): subprocess.run([NBDEV / tool], cwd=copy, check=True, capture_output=True)
        wanted = {**tree(copy, "*.py"), **tree(copy, "*.ipynb")}
    here = {f"{top}/{k}": v for top in ("llama_course", "nbs") for k, v in tree(ROOT / top, "*.py", "*.ipynb").items()}
    missing = [f"{name} is exported by a notebook but not committed: run nbdev_export" for name in sorted(wanted.keys() - here.keys())]
    orphans = [f"{name} has no notebook that exports it" for name in sorted(here.keys() - wanted.keys())]
    stale = [f"{name} differs from what nbdev_export and nbdev_clean make of the notebooks: run both" for name in sorted(here.keys() & wanted.keys()) if here[name] != wanted[name]]
    return missing + orphans + stale


def shows_something(source):
    "Whether running the cell must leave an output: it prints, draws, or ends in an expression that is not a call made for its effect."
    code = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    body = ast.parse(code).body
    if any(isinstance(n, ast.Expr) and re.match(r"(plt\.show|print|display)\(", ast.unparse(n)) for n in body): return True
    last = body[-1] if body else None
    return isinstance(last, ast.Expr) and isinstance(last.value, (ast.Name, ast.Attribute, ast.List, ast.Tuple, ast.Dict, ast.BinOp, ast.Compare, ast.ListComp, ast.DictComp)) \
        and not source.rstrip().endswith(";")


def outputs_saved():
    "Every cell that shows something has its output, and none has an error."
    complaints = []
    for path in all_notebooks():
        for i, cell in enumerate(cells(path)):
            if cell["cell_type"] != "code": continue
            flags = directives(cell["source"])
            where = f"{path.relative_to(ROOT)}, cell {i}"
            if any(o["output_type"] == "error" for o in cell["outputs"]): complaints.append(f"{where} holds an error")
            if flags.get("eval") == "false" or flags.keys() & {"slow", "cuda", "export", "hide", "default_exp"} or "solutions" in path.parts: continue
            if shows_something(cell["source"]) and not cell["outputs"]: complaints.append(f"{where} lacks its output: run make notebooks")
    return complaints


def readme_rendered():
    "README.md is index.ipynb's rendering."
    return [] if (ROOT / "README.md").read_text(encoding="utf-8") == render_readme() else ["README.md differs from nbs/index.ipynb: run make notebooks"]


CHECKS = {"modules and notebooks in sync": in_sync, "outputs saved": outputs_saved, "README rendered": readme_rendered}

if __name__ == "__main__":
    found = [line for check in CHECKS.values() for line in check()]
    print("\n".join(found) or "all in order")
    sys.exit(bool(found))
