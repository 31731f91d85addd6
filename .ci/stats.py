"How the notebooks are built, a row each, beside the courses they learn from:  python .ci/stats.py"
import ast
from statistics import median

from notebooks import NBS, all_notebooks, cells, directives

ANCHORS = """\
fast.ai course22p2: one idea, a code cell of 1-4 lines, one look at the output; 16 modules of 78 lines (median); 270 plots in 36 notebooks
fastcore: 1,321 tests in 22 notebooks"""


def code_lines(source):
    "The cell's lines of code: no blank ones, comments, directives or magics."
    return [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%", "!"))]


def count_tests(source):
    "Asserts, and calls of a function whose name starts with test_ or check_ or ends in assert_close."
    tree = ast.parse("\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()))
    names = [getattr(n.func, "attr", getattr(n.func, "id", "")) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return sum(isinstance(n, ast.Assert) for n in ast.walk(tree)) + sum(n.startswith(("test_", "check_")) or n.endswith("assert_close") for n in names)


def exports(cell): return bool({"export", "exporti"} & directives(cell["source"]).keys())


def row(path):
    "One notebook's figures. A cell that only exports is the module's; how long the reader's cells are is counted without it."
    all_cells = cells(path)
    text = [len(c["source"].split()) for c in all_cells if c["cell_type"] == "markdown"]
    code = [c for c in all_cells if c["cell_type"] == "code" and c["source"].strip()]
    lines = [len(code_lines(c["source"])) for c in code if code_lines(c["source"])]
    ours = [len(code_lines(c["source"])) for c in code if code_lines(c["source"]) and not exports(c)]
    exported = sum(len(code_lines(c["source"])) for c in code if exports(c))
    plots = sum({"image/png", "image/svg+xml"} & o.get("data", {}).keys() != set() for c in code for o in c["outputs"])
    return {"cells": len(all_cells), "words": median(text or [0]), "lines": median(lines or [0]), "p90": sorted(lines or [0])[int(0.9 * len(lines or [0]))], "max": max(lines or [0]),
            "longest": max(ours or [0]), "module": exported, "plots": plots, "tests": sum(count_tests(c["source"]) for c in code)}


def main():
    rows = {str(p.relative_to(NBS)): row(p) for p in all_notebooks()}
    print(f"{'':30}        words per      code lines a cell         longest   module\n{'notebook':30} cells  text cell   median   90%   max   not exported  lines   plots   tests")
    for name, r in rows.items():
        print(f"{name:30} {r['cells']:5} {r['words']:9.0f} {r['lines']:9.0f} {r['p90']:6} {r['max']:5} {r['longest']:12} {r['module']:8} {r['plots']:7} {r['tests']:7}")
    modules = [r["module"] for r in rows.values() if r["module"]]
    print(f"\nhere: {len(rows)} notebooks, {sum(r['cells'] for r in rows.values()):,} cells, {len(modules)} modules of {median(modules):.0f} lines (median), "
          f"{sum(r['plots'] for r in rows.values())} plots, {sum(r['tests'] for r in rows.values()):,} tests\n{ANCHORS}")


if __name__ == "__main__": main()
