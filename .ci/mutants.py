"""Do the notebooks' tests notice a change in the code?   python .ci/mutants.py [module ...]

Each mutant is one exported module with one operator, constant, comparison, call, keyword, condition or returned value changed. Its notebook runs
against it, in a forked process and only in memory, up to the first cell that fails: then the mutant is killed. Text in strings is not mutated.
"""
import argparse
import ast
import importlib
import io
import os
import re
import signal
import sys
import threading
import time
import tokenize
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", IN_TEST="1")

from notebooks import NBS, ROOT, all_notebooks, cells, directives

MODULES = "rope attention kv_cache mlp norm decoder loss model generation streaming".split()
ALREADY_IMPORTED = "torch einops transformers.models.llama.modeling_llama matplotlib.pyplot fastcore.test ipywidgets safetensors.torch tokenizers".split()
WANTED = 0.90  # of all mutants must be killed
EQUIVALENT = Path(__file__).with_name("mutants.txt")  # survivors that no test can tell from the original, each with its reason
BINARY = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
          ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.MatMult: ("@", "*")}
COMPARE = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="),
           ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in")}
ONE_AT_A_TIME = threading.Lock()
LIBRARIES = {"torch", "F", "nn", "math", "json", "Path"}  # `torch.f(x)` is a function's call, `x.f()` a method's


@dataclass
class Mutant:
    module: str
    line: int
    source: str  # the module's, changed
    diff: tuple  # its changed lines: (before, after)
    fate: str = None  # the cell that failed, or None where all passed
    reason: str = None  # why no test can kill it

    def __str__(self): return f"llama_course/{self.module}.py:{self.line}\n- {self.diff[0]}\n+ {self.diff[1]}"


def changes(tree, text):
    "(start, end, replacement) of every single change, as offsets in the source."
    starts = [0]
    for line in text.splitlines(keepends=True): starts.append(starts[-1] + len(line))
    at = lambda line, col: starts[line - 1] + len(text.splitlines()[line - 1].encode()[:col].decode())
    begin, end = (lambda n: at(n.lineno, n.col_offset)), (lambda n: at(n.end_lineno, n.end_col_offset))
    piece = lambda n: text[begin(n):end(n)]

    def between(left, right, old, new):  # an operator, which stands behind one operand and before the next
        found = re.compile(r"\b" + old.replace(" ", r"\s+") + r"\b" if old[0].isalpha() else re.escape(old)).search(text, end(left), begin(right))
        return found.start(), found.end(), new

    def visit(n):
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            for d in getattr(n, "args", None) and n.args.defaults or []: yield from visit(d)
            for statement in n.body: yield from visit(statement)
            return
        if isinstance(n, (ast.Import, ast.ImportFrom, ast.JoinedStr)) or isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant): return
        if isinstance(n, ast.AnnAssign):
            if n.value: yield from visit(n.value)
            return
        if isinstance(n, ast.Raise):  # the mistake goes unnoticed
            yield begin(n), end(n), "pass"
            return
        if isinstance(n, ast.BinOp) and type(n.op) in BINARY: yield between(n.left, n.right, *BINARY[type(n.op)])
        if isinstance(n, ast.Compare):
            for left, op, right in zip([n.left, *n.comparators], n.ops, n.comparators): yield between(left, right, *COMPARE[type(op)])
        if isinstance(n, ast.BoolOp):
            for left, right in zip(n.values, n.values[1:]): yield between(left, right, *(("and", "or") if isinstance(n.op, ast.And) else ("or", "and")))
        if isinstance(n, ast.UnaryOp): yield begin(n), end(n), f"({piece(n.operand)})"
        if isinstance(n, (ast.If, ast.IfExp, ast.While)) and isinstance(n.test, (ast.Name, ast.Attribute, ast.Call)): yield begin(n.test), end(n.test), f"(not {piece(n.test)})"
        if isinstance(n, ast.AugAssign) and type(n.op) in BINARY:
            old, new = BINARY[type(n.op)]
            yield between(n.target, n.value, old + "=", new + "=")
        if isinstance(n, ast.Constant) and type(n.value) in (int, float, bool):
            yield begin(n), end(n), str(not n.value if isinstance(n.value, bool) else n.value + 1 if isinstance(n.value, int) else n.value * 2 or 1.0)
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call): yield begin(n), end(n), "pass"
        elif isinstance(n, ast.Return) and n.value: yield begin(n.value), end(n.value), "None"
        elif isinstance(n, ast.Call):
            method = isinstance(n.func, ast.Attribute) and not (isinstance(n.func.value, ast.Name) and n.func.value.id in LIBRARIES)
            if method: yield begin(n), end(n), f"({piece(n.func.value)})"
            elif n.args: yield begin(n), end(n), f"({piece(n.args[0]).lstrip('*')})"
        if isinstance(n, ast.Call):
            for k in n.keywords:  # the argument keeps its default
                if k.arg: yield text.rindex(",", begin(n), begin(k)) if n.args or k is not n.keywords[0] else begin(k), end(k), ""
        for child in ast.iter_child_nodes(n): yield from visit(child)

    yield from visit(tree)


def mutants_of(module):
    "All mutants of a module that are valid Python, each once."
    text = (ROOT / f"llama_course/{module}.py").read_text(encoding="utf-8")
    code_only = lambda s: [t[:2] for t in tokenize.generate_tokens(io.StringIO(s).readline) if t.type not in (tokenize.COMMENT, tokenize.NL)]
    body = [n for n in ast.parse(text).body if not (isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__")]
    found, before = [], text.splitlines()
    for start, end, new in sorted(set(changes(ast.Module(body, []), text))):
        changed = text[:start] + new + text[end:]
        try: compile(changed, module, "exec")
        except SyntaxError: continue
        if code_only(changed) == code_only(text): continue
        first, last = text.count("\n", 0, start), text.count("\n", 0, end)
        after = changed.splitlines()[first:first + new.count("\n") + 1]
        show = lambda lines: " ".join(re.sub(r"\s\s+#.*$", "", s).strip() for s in lines)
        found.append(Mutant(module, first + 1, changed, (show(before[first:last + 1]), show(after))))
    return found


def owner(module):
    "The notebook that exports the module."
    return next(p for p in all_notebooks() if any(re.search(rf"^#\s*\|\s*default_exp {module}$", c["source"], re.M) for c in cells(p)))


def plan(notebook):
    "[(index, cell id, source, exported)] of the cells that nbdev_test runs."
    skipped = {"slow", "cuda"}
    code = [(i, c["id"], c["source"], directives(c["source"])) for i, c in enumerate(cells(notebook)) if c["cell_type"] == "code"]
    return [(i, id, source, bool({"export", "exporti"} & d.keys())) for i, id, source, d in code if d.get("eval") != "false" and not skipped & d.keys()]


def run_cells(shell, mutant, steps):
    "The first cell that fails, and its error, or None; to be called in a process of its own."
    name = f"llama_course.{mutant.module}"
    module = types.ModuleType(name)
    module.__file__, module.__package__ = str(ROOT / f"llama_course/{mutant.module}.py"), "llama_course"
    package = importlib.import_module("llama_course")
    sys.modules[name] = module
    setattr(package, mutant.module, module)
    try: exec(compile(mutant.source, module.__file__, "exec"), module.__dict__)
    except Exception as e: return f"import: {type(e).__name__}: {e}"
    parts = dict(re.findall(r"^# %% \S+ #(\w+)\n(.*?)(?=^# %% |\Z)", mutant.source, re.M | re.S))
    shell.user_ns["__package__"] = "llama_course"  # the exported cells import relatively
    for i, id, source, exported in steps:
        shell.run(parts[id] if exported and id in parts else source)
        if shell.exc: return f"cell {i}: {type(shell.exc).__name__}: {str(shell.exc).strip()}"


def in_child(shell, mutant, steps, limit):
    "(killed?, what the failing cell said, seconds) from a forked process with a time limit."
    start = time.time()
    with ONE_AT_A_TIME:  # a sibling forked in between would hold this pipe open
        read, write = os.pipe()
        pid = os.fork()
        if pid: os.close(write)
    if not pid:
        try:
            os.setsid()
            signal.alarm(limit)  # ends the process even inside one long operation
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2): os.dup2(devnull, stream)
            fate = run_cells(shell, mutant, steps)
            os.write(write, (fate or "").encode()[:4000])
            os._exit(1 if fate else 0)
        finally: os._exit(2)
    with os.fdopen(read, "rb") as pipe: fate = pipe.read().decode(errors="replace")
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status): fate = f"ran past {limit} s" if os.WTERMSIG(status) == signal.SIGALRM else f"ended by signal {os.WTERMSIG(status)}"
    return fate if status else None, time.time() - start


def explained():
    "{(module, before, after): reason} of the survivors known to be equivalent."
    entries = re.findall(r"^(\w+): (.+)\n- (.*)\n\+ (.*)$", EQUIVALENT.read_text(encoding="utf-8") if EQUIVALENT.exists() else "", re.M)
    return {(module, before, after): reason for module, reason, before, after in entries}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=MODULES, help="default: " + " ".join(MODULES))
    parser.add_argument("--line", type=int, help="only the mutants of this line")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", SyntaxWarning)  # some mutants are odd Python
    modules = [m for m in args.modules if (ROOT / f"llama_course/{m}.py").exists() or sys.exit(f"there is no llama_course/{m}.py; expected some of {', '.join(MODULES)}")]
    todo = {m: [x for x in mutants_of(m) if args.line in (None, x.line)] for m in modules}
    if args.list: return print("\n".join(str(x) for xs in todo.values() for x in xs), f"\n{sum(map(len, todo.values()))} mutants")

    for name in ALREADY_IMPORTED: importlib.import_module(name)
    import torch
    torch.set_num_threads(1)
    from execnb.shell import CaptureShell
    sys.path.insert(0, str(ROOT))
    os.chdir(NBS)
    shell, reasons, survivors, complaints, killed = CaptureShell(), explained(), [], [], 0
    for module, mutants in todo.items():
        notebook = owner(module)
        steps, source = plan(notebook), (ROOT / f"llama_course/{module}.py").read_text(encoding="utf-8")
        fate, seconds = in_child(shell, Mutant(module, 0, source, ("", "")), steps, 600)
        if fate: sys.exit(f"{notebook.name} fails without any mutation, {fate}")
        print(f"{module}: {len(mutants)} mutants against {notebook.name}, which takes {seconds:.0f} s", flush=True)
        with ThreadPoolExecutor(2) as pool:  # the threads only wait for their child
            for n, (mutant, (mutant.fate, _)) in enumerate(zip(mutants, pool.map(lambda x: in_child(shell, x, steps, int(3 * seconds) + 30), mutants)), 1):
                key = (module, *mutant.diff)
                mutant.reason = reasons.get(key)
                if mutant.fate is None: survivors.append(mutant)
                killed += mutant.fate is not None
                if mutant.fate and mutant.reason: complaints.append(f"{EQUIVALENT.name} calls this equivalent, but {mutant.fate.splitlines()[0]}\n{mutant}")
                if mutant.fate is None: print(f"  survived: {mutant}\n  {mutant.reason or 'NOT EXPLAINED'}", flush=True)
                elif n % 20 == 0: print(f"  {n} of {len(mutants)}", flush=True)
        known = {x.diff for x in mutants}
        if args.line is None: complaints += [f"{EQUIVALENT.name} speaks of a mutant that does not exist any more:\n- {b}\n+ {a}" for m, b, a in reasons if m == module and (b, a) not in known]
    total = killed + len(survivors)
    complaints += [f"survived without an explanation: {x}" for x in survivors if not x.reason]
    if total and killed < WANTED * total: complaints.append(f"{killed} of {total} killed, wanted {WANTED:.0%}")
    if complaints: print("\n" + "\n".join(complaints))
    print(f"{total} mutants, {killed} killed ({killed / max(total, 1):.1%}), {len(survivors)} survived, {sum(bool(x.reason) for x in survivors)} of them explained as equivalent")
    return bool(complaints)


if __name__ == "__main__": sys.exit(main())
