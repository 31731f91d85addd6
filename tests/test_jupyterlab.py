"""Notebooks in JupyterLab as `make lab` serves them, run from top to bottom in a headless Chromium, from a copy outside the checkout.

NOTEBOOKS=all runs every one (`make browser`); otherwise a few. Chromium is driven by its DevTools protocol, over a websocket."""
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from chromium import Chromium, start, stop, wait_for

NBS = Path(__file__).resolve().parent.parent / "nbs"
EVERY = sorted(p.relative_to(NBS).as_posix() for p in NBS.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts))
FEW = ["01_rope.ipynb", "02_gqa.ipynb", "solutions/05_rmsnorm.ipynb", "index.ipynb"]  # a slider, a drop-down list and exercises, solutions, figures of runs
NOTEBOOK_LIMIT = 400  # seconds

RUN_ALL = """(async () => {
  const until = async (what, f) => {
    for (let n = 0; n < 600; n++) { const x = f(); if (x) return x; await new Promise(r => setTimeout(r, 100)); }
    throw new Error(`after a minute still waiting for ${what}`);
  };
  const app = await until('JupyterLab', () => window.jupyterapp);
  await app.restored;
  const page = await app.commands.execute('docmanager:open', {path: NAME});
  await page.context.ready; await page.sessionContext.ready;
  await until('the kernel', () => page.sessionContext.session && page.sessionContext.session.kernel && page.sessionContext.session.kernel.status === 'idle');
  app.shell.activateById(page.id);
  await until('the notebook in front', () => app.shell.currentWidget === page);
  await app.commands.execute('notebook:run-all-cells');
  const cells = Array.from(page.content.model.cells), code = cells.map((c, i) => [i, c]).filter(([i, c]) => c.type === 'code');
  const outputs = (c) => Array.from({length: c.outputs.length}, (_, i) => c.outputs.get(i).toJSON());
  const failed = code.map(([i, c]) => [i, outputs(c).find(o => o.output_type === 'error')]).filter(([i, e]) => e);
  const notRun = code.filter(([i, c]) => c.sharedModel.source.trim() && c.executionCount === null).map(([i, c]) => i);
  const controls = code.filter(([i, c]) => outputs(c).some(o => o.data && 'application/vnd.jupyter.widget-view+json' in o.data)).map(([i, c]) => i);
  let drawn = 0;
  for (const i of controls) {
    await page.content.scrollToItem(i);
    for (let n = 0; n < 100 && !page.content.widgets[i].node.querySelector('.jupyter-widgets'); n++) await new Promise(r => setTimeout(r, 100));
    drawn += page.content.widgets[i].node.querySelector('.jupyter-widgets') !== null;
  }
  await page.context.save();
  await page.sessionContext.shutdown();
  page.close();
  return JSON.stringify({code: code.length, failed: failed.map(([i, e]) => `cell ${i}: ${e.ename}: ${e.evalue}`), notRun, controls: controls.length, drawn});
})()"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of a JupyterLab over a copy of the notebooks, and its token."
    tmp = tmp_path_factory.mktemp("lab")
    for folder in (NBS, NBS.parent / "training_logs", NBS.parent / "benchmarks"):  # the logs and figures that some of them show
        shutil.copytree(folder, tmp / folder.name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    env = {**os.environ, **{f"JUPYTER{name}_DIR": str(tmp / name) for name in ("_CONFIG", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")}}
    argv = [Path(sys.executable).parent / "jupyter", "lab", f"--notebook-dir={tmp / 'nbs'}", "--no-browser", "--port=0", "--expose-app-in-browser"]
    server = start(argv + ["--allow-root"] * (os.name == "posix" and os.geteuid() == 0), tmp / "lab.log", env=env, cwd=tmp)
    try:
        info = json.loads(wait_for(server, lambda: next((p.read_text() for p in (tmp / "_RUNTIME").glob("jpserver-*.json")), None), tmp / "lab.log"))
        yield info["url"], info["token"], tmp / "nbs"
    finally: stop(server)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    "`call(method, **params)` of a page's DevTools protocol."
    with Chromium(tmp_path_factory.mktemp("chromium"), NOTEBOOK_LIMIT) as page:
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a page without focus has no current notebook
        yield page.call


@pytest.mark.parametrize("name", EVERY if os.environ.get("NOTEBOOKS") == "all" else FEW)
def test_notebook_runs_from_top_to_bottom(name, browser, lab):
    url, token, _ = lab
    start = time.time()
    browser("Page.navigate", url=f"{url}lab?token={token}&reset")
    time.sleep(1)  # the old page's JavaScript is gone
    try: answer = browser("Runtime.evaluate", expression=RUN_ALL.replace("NAME", json.dumps(name)), awaitPromise=True)
    except Exception as e: pytest.fail(f"{name}: no answer within {NOTEBOOK_LIMIT} s ({type(e).__name__})")
    value = answer.get("result", {}).get("value")
    assert value, f"{name}: {answer}"
    found = json.loads(value)
    print(f"{name}: {found['code']} code cells, {found['controls']} controls, {time.time() - start:.0f} s", flush=True)
    assert not found["failed"], f"{name}: " + "\n".join(found["failed"])
    assert not found["notRun"], f"{name}: cells {found['notRun']} were not run"
    assert found["drawn"] == found["controls"], f"{name}: {found['drawn']} of {found['controls']} controls are drawn"
