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


def markdown_of(path):
    "The prose of a notebook or Markdown file: no code, neither fenced nor in backticks."
    text = "\n\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown") if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def anchors(path):
    "What `#...` may say: JupyterLab's names of a notebook's headings (dashes for spaces), GitHub's for a Markdown file (lower case as well)."
    headings = [re.sub(r"[*`]", "", h).strip().replace(" ", "-") for h in re.findall(r"^#{1,6} +(.+)$", markdown_of(path), re.M)]
    return set(headings) if path.suffix == ".ipynb" else {h for name in headings for h in (name, re.sub(r"[^\w-]", "", name.lower()))}


def glossary():
    "The glossary's terms, in lower case."
    text = next(c["source"] for c in cells(NBS / "index.ipynb") if "## Glossary" in c["source"])
    return {t.strip().lower() for row in re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.M) for t in row.split(",")}


def links_resolve():
    "Every relative link and picture of every notebook, and of README.md, leads to a file that is there, and its anchor to a heading; a link to the glossary, to one of its terms."
    complaints, terms = [], glossary()
    for path in [*all_notebooks(), ROOT / "README.md"]:
        text = markdown_of(path)
        found = re.findall(r"\[([^\[\]]*)\]\(([^)\s]+)\)", text) + [("", target) for target in re.findall(r"""(?:src|href)=["']([^"']+)""", text)]
        for name, target in found:
            if re.match(r"[a-z]+:", target): continue  # the web, or mail
            file, _, anchor = target.partition("#")
            to = (path.parent / file).resolve() if file else path
            where = f"{path.relative_to(ROOT)}: [{name}]({target})"
            if not to.exists(): complaints.append(f"{where} leads to no file")
            elif anchor and to.suffix in (".ipynb", ".md") and anchor not in anchors(to): complaints.append(f"{where} leads to no heading; there are {', '.join(sorted(anchors(to)))}")
            elif anchor == "Glossary" and to.name == "index.ipynb" and to != path and not {name.lower(), name.lower().removesuffix("s")} & terms:
                complaints.append(f"{where}: the glossary has no such term")
    return complaints


def minutes(path):
    "Minutes to read, as the notebook's first cell says."
    return int(re.search(r"(\d+) minutes to read", cells(path)[0]["source"])[1])


def course_map():
    "The index lists every notebook, once, with the minutes that the notebooks say."
    rows = [(re.findall(r"\]\(([\w.-]+\.ipynb)\)", row), int(n)) for c in cells(NBS / "index.ipynb") for row, n in re.findall(r"^(\|.*\|) (\d+) min \|$", c["source"], re.M)]
    listed = [name for names, _ in rows for name in names]
    complaints = [f"nbs/index.ipynb lists {n}, which is not there" for n in listed if not (NBS / n).exists()]
    complaints += [f"nbs/index.ipynb does not list {p.name} once" for p in all_notebooks() if p.parent == NBS and p.name != "index.ipynb" and listed.count(p.name) != 1]
    if complaints: return complaints
    return [f"nbs/index.ipynb says {n} minutes for {', '.join(names)}, which say {sum(minutes(NBS / x) for x in names)}" for names, n in rows if sum(minutes(NBS / x) for x in names) != n]


CHECKS = {"modules and notebooks in sync": in_sync, "outputs saved": outputs_saved, "README rendered": readme_rendered, "links resolve": links_resolve, "course map": course_map}

if __name__ == "__main__":
    found = [line for check in CHECKS.values() for line in check()]
    print("\n".join(found) or "all in order")
    sys.exit(bool(found))
