"Run notebooks, save their outputs, and render README.md:  python .ci/execute.py [--flags 'slow cuda'] [notebook ...]"
import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import clean_nb
from nbdev.config import get_config
from execnb.nbio import read_nb, write_nb

from notebooks import NBS, ROOT, all_notebooks, directives, render_readme


class FlaggedClient(NotebookClient):
    "Leaves alone, with the outputs they have, the cells that nbdev_test would skip."
    def __init__(self, nb, skip, **kwargs):
        super().__init__(nb, **kwargs)
        self.skip = skip

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        flags = directives(cell.source)
        if flags.get("eval") == "false" or self.skip & set(flags): return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def merge_streams(cell):
    "One output per stream: how many pieces a print arrives in depends on timing."
    merged = []
    for out in cell.outputs:
        if out.output_type == "stream" and merged and merged[-1].get("name") == out.name: merged[-1].text += out.text
        else: merged.append(out)
    cell.outputs = merged


def drop_widgets(cell):
    "A saved control cannot be turned and its ids are random: the picture beside it is what stays."
    cell.outputs = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]


def describe_pictures(cell):
    "The cell's `#| fig-alt:` becomes the alternative text of its pictures."
    alt = directives(cell.source).get("fig-alt")
    for out in cell.outputs:
        for kind in ("image/png", "image/svg+xml"):
            if alt and kind in out.get("data", {}): out.metadata.setdefault(kind, {})["alt"] = alt


def execute(path, skip, timeout):
    "Run one notebook in its own folder and write it back, clean; a failing cell leaves the file as it was."
    nb = nbformat.read(path, as_version=4)
    FlaggedClient(nb, skip, timeout=timeout, kernel_name="python3", store_widget_state=False, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in nb.cells:
        if cell.cell_type == "code":
            merge_streams(cell)
            drop_widgets(cell)
            describe_pictures(cell)
    part = path.with_suffix(".part")
    nbformat.write(nb, part)
    nb = read_nb(part)
    clean_nb(nb)
    write_nb(nb, part)
    os.replace(part, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument("--flags", default="", help="run cells with these flags too, e.g. 'slow cuda'")
    parser.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    args = parser.parse_args()
    skip = set(get_config().tst_flags.split()) - set(args.flags.split())
    for path in args.notebooks or all_notebooks():
        start = time.time()
        execute(path.resolve(), skip, args.timeout)
        print(f"{path.resolve().relative_to(NBS)}: {time.time() - start:.0f} s", flush=True)
    if (NBS / "index.ipynb").exists(): (ROOT / "README.md").write_text(render_readme(), encoding="utf-8")
