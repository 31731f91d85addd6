"Every notebook through nbdev_test, the consistency checks, and the process-level tests; the last line is 'N passed, N failed'."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from check import CHECKS
from notebooks import NBS, ROOT, all_notebooks

BIN = Path(sys.executable).parent
NOTEBOOK_LIMIT, TESTS_LIMIT = 300, 1800  # seconds


def timed(argv, limit):
    "(passed, seconds, output) of a command in a process group of its own, which ends with it."
    start = time.time()
    child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try: out = child.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out = (child.communicate()[0] or "") + f"\nstopped after {limit} s"
    return child.returncode == 0, time.time() - start, out


def main():
    passed, failed = 0, 0

    def count(ok, name, seconds, out=""):
        nonlocal passed, failed
        passed, failed = passed + ok, failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {name:<44} {seconds:6.1f} s", flush=True)
        if not ok: print(out.rstrip(), flush=True)

    notebooks = all_notebooks()
    if not notebooks: count(False, "nbs", 0, "no notebook found")
    for path in notebooks:
        ok, seconds, out = timed([BIN / "nbdev_test", "--path", path, "--n_workers", "0"], NOTEBOOK_LIMIT)
        count(ok and "Success" in out, str(path.relative_to(NBS)), seconds, out)  # 'Success' is not printed where no notebook matched
    for name, check in CHECKS.items():
        start = time.time()
        complaints = check()
        count(not complaints, name, time.time() - start, "\n".join(complaints))
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        ok, seconds, out = timed([sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", path], TESTS_LIMIT)
        count(ok, str(path.relative_to(ROOT)), seconds, out)
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__": sys.exit(main())
