"""Every notebook through nbdev_test, the consistency checks, and the process-level tests; the last line is 'N passed, N failed'.

Two run at a time, with one thread each, the longest first; results stand in reading order."""
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from check import CHECKS
from notebooks import NBS, ROOT, all_notebooks, cells

BIN = Path(sys.executable).parent
WORKERS = 2
NOTEBOOK_LIMIT, ALONE_LIMIT, TESTS_LIMIT = 300, 60, 1800  # seconds: beside another; alone, on all cores; a file of tests
RUNNING = set()


def timed(argv, limit, threads=1):
    "(passed, seconds, output) of a command in a process group of its own, which ends with it."
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    start = time.time()
    child = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    RUNNING.add(child)
    try: out = child.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out = (child.communicate()[0] or "") + f"\nstopped after {limit} s"
    RUNNING.discard(child)
    return child.returncode == 0, time.time() - start, out


def run_notebook(path, limit=NOTEBOOK_LIMIT, threads=1):
    ok, seconds, out = timed([BIN / "nbdev_test", "--path", path, "--n_workers", "0"], limit, threads)
    return ok and "Success" in out, seconds, out  # 'Success' is not printed where no notebook matched


def run_tests(path):
    return timed([sys.executable, "-m", "pytest", "-q", "-x", "-rs", "--no-header", "-p", "no:cacheprovider", path], TESTS_LIMIT)


def run_check(check):
    start = time.time()
    complaints = check()
    return not complaints, time.time() - start, "\n".join(complaints)


def promised_seconds(path):
    "What the notebook's first cell says it takes; few where it says nothing, as solutions do."
    found = re.search(r"(\d+|half a|a) (second|minute)s? to run", cells(path)[0]["source"])
    return {"a": 1, "half a": 0.5}.get(found[1], 0) * 60 or int(found[1]) if found else 5


def main():
    notebooks = all_notebooks()
    jobs = [(str(p.relative_to(NBS)), promised_seconds(p), run_notebook, p) for p in notebooks]
    jobs += [(name, 1, run_check, check) for name, check in CHECKS.items()]
    jobs += [(str(p.relative_to(ROOT)), 1000 + p.stat().st_size / 1e4, run_tests, p) for p in sorted((ROOT / "tests").glob("test_*.py"))]
    results, slow, start = [], [], time.time()
    if not notebooks: results.append(False)

    def show(name, ok, seconds, out=""):
        skipped = re.findall(r"^SKIPPED.*", out, re.M)
        print("\n     ".join([f"{'ok  ' if ok else 'FAIL'} {name:<44} {seconds:6.1f} s", *skipped]), flush=True)
        if not ok: print(out.rstrip(), flush=True)
        return ok

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            futures = {job[0]: pool.submit(job[2], job[3]) for job in sorted(jobs, key=lambda job: -job[1])}
            for name, _, function, path in jobs:
                while not wait([futures[name]], timeout=30).done:
                    print(f"     ... {sum(f.done() for f in futures.values())} of {len(futures)} done after {time.time() - start:.0f} s", file=sys.stderr, flush=True)
                ok, seconds, out = futures[name].result()
                results.append(show(name, ok, seconds, out))
                if ok and function is run_notebook and seconds > ALONE_LIMIT: slow.append((name, path))
        except BaseException:  # Ctrl-C included: nothing is left running
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(RUNNING): os.killpg(child.pid, signal.SIGKILL)
            raise
    for name, path in slow:  # sharing the processor is no fault of theirs
        ok, seconds, out = run_notebook(path, ALONE_LIMIT, os.cpu_count())
        results.append(show(f"{name} alone, in {ALONE_LIMIT} s", ok, seconds, out))
    print(f"{time.time() - start:.0f} s in all")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed" + ("" if notebooks else ": no notebook found"))
    return not all(results)


if __name__ == "__main__": sys.exit(main())
