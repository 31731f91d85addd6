"What the scripts beside this one share: where the notebooks are, what their cells' directives say, and README's rendering."
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def all_notebooks():
    "Every notebook of the course, in reading order; [] where there is none."
    return sorted(p for p in NBS.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts))


def cells(path):
    "The notebook's cells as dicts, `source` joined to one string."
    nb = json.loads(path.read_text(encoding="utf-8"))
    return [{**c, "source": "".join(c["source"])} for c in nb["cells"]]


def directives(source):
    "`#| name: value` lines of a cell as a dict; the value is '' where there is none."
    return {m[1]: (m[2] or "").strip() for m in re.finditer(r"^#\s*\|\s*([\w-]+):?[ \t]*(.*)$", source, re.M)}


def render_readme():
    "index.ipynb as Markdown, its links seen from the project's root."
    from nbconvert import MarkdownExporter
    import nbformat
    nb = nbformat.read(NBS / "index.ipynb", as_version=4)
    nb.cells = [c for c in nb.cells if not {"hide", "default_exp"} & set(directives(c.source))]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r"\]\(([\w./-]+\.ipynb)", r"](nbs/\1", text)
    text = text.replace("](../", "](").replace('src="../', 'src="')
    return "<!-- Rendered from nbs/index.ipynb: edit that, then `make notebooks`. -->\n\n" + text.strip() + "\n"
