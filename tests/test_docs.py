"The documentation site as `make docs` builds it, every page of it walked in a headless Chromium: links, pictures, formulas, errors, requests."
import functools
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chromium import Chromium, skip_or_fail

ROOT = Path(__file__).resolve().parent.parent
BUILD_LIMIT = 300  # seconds

LOOK = """(async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const all = (what) => Array.from(document.querySelectorAll(what));
  all('img[loading=lazy]').forEach(i => i.loading = 'eager');
  await Promise.all(all('img').map(i => i.decode().catch(() => 0)));
  return {
    links: all('a[href]').map(a => a.href), ids: all('[id]').map(e => e.id),
    pictures: all('img').filter(i => i.naturalWidth === 0).map(i => i.src), unnamed: all('article img').filter(i => !i.alt).map(i => i.src),
    directives: all('article pre').map(e => e.innerText.match(/^#\\s*\\|.*/m)).filter(m => m).map(m => m[0]),
    formulas: all('mjx-container').length, raw: all('span.math, div.math').length, wrong: all('mjx-merror').map(e => e.innerText),
  };
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder of a fresh build, in which no warning is let pass."
    if not importlib.util.find_spec("myst_nb"): skip_or_fail("the packages of the documentation are not installed: run `make docs` once")
    out = tmp_path_factory.mktemp("docs")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", out / "work", "nbs", out / "html"],
                          cwd=ROOT, capture_output=True, text=True, timeout=BUILD_LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "html"


@pytest.fixture(scope="module")
def address(site):
    "Where the site is served."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as page: yield page


def complaints(events, address):
    "What the browser found wrong: requests to elsewhere, failed ones, errors on the console."
    for event in events:
        p = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent" and not p["request"]["url"].startswith((address, "data:", "blob:")): yield f"asks {p['request']['url']}"
        if event["method"] == "Network.responseReceived" and p["response"]["status"] >= 400: yield f"{p['response']['status']} for {p['response']['url']}"
        if event["method"] == "Network.loadingFailed" and not p.get("canceled"): yield f"a {p['type']} failed to load: {p['errorText']}"
        if event["method"] == "Runtime.exceptionThrown": yield p["exceptionDetails"].get("exception", {}).get("description") or p["exceptionDetails"]["text"]
        if event["method"] == "Log.entryAdded" and p["entry"]["level"] == "error": yield f"{p['entry']['text']} {p['entry'].get('url', '')}"
        if event["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"): yield f"console: {p['args']}"


def test_every_page(site, address, page):
    "All links and anchors lead somewhere; pictures and formulas are drawn, with nothing from outside."
    names = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html") if "_static" not in p.parts)
    notebooks = {p.relative_to(ROOT / "nbs").with_suffix(".html").as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert notebooks <= set(names), f"no page for {sorted(notebooks - set(names))}"
    found, wrong = {}, []
    for name in names:
        page.open(address + name)
        found[name] = look = page.evaluate(LOOK)
        wrong += [f"{name}: {c}" for c in complaints(page.events, address)]
        wrong += [f"{name}: a picture is missing: {p}" for p in look["pictures"]] + [f"{name}: a picture without a description: {p}" for p in look["unnamed"]]
        wrong += [f"{name}: a directive shows: {d}" for d in look["directives"]] + [f"{name}: a formula with an error: {w}" for w in look["wrong"]]
        if look["formulas"] < look["raw"]: wrong.append(f"{name}: {look['formulas']} of {look['raw']} formulas are drawn")
    for name, look in found.items():
        for link in sorted(set(look["links"])):
            if not link.startswith(address): continue
            path, _, anchor = link.removeprefix(address).partition("#")
            path = path.partition("?")[0] or "index.html"
            if not (site / path).is_file(): wrong.append(f"{name}: broken link to {path}")
            elif anchor and path in found and anchor not in found[path]["ids"]: wrong.append(f"{name}: {path} has no #{anchor}")
    assert not wrong, "\n".join(wrong)
    assert sum(look["formulas"] for look in found.values()) > 10


def test_search_finds(site, address, page):
    "The search page works without a server's help."
    page.open(address + "search.html?q=swiglu")
    found = page.evaluate("""(async () => {
      for (let n = 0; n < 100 && !document.querySelector('#search-results li a'); n++) await new Promise(r => setTimeout(r, 100));
      return Array.from(document.querySelectorAll('#search-results li a')).map(a => a.href);
    })()""")
    assert any("04_swiglu.html" in link for link in found), found
    assert not list(complaints(page.events, address))


def test_dark_and_light(address, page):
    "The switch changes the page, and the choice stays."
    page.open(address + "01_rope.html")
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for mode in ("light", "dark"):
        page.evaluate(f"localStorage.setItem('mode', '{mode}')")
        page.open(address + "01_rope.html")
        seen[mode] = [int(n) for n in re.findall(r"\d+", page.evaluate(background))[:3]]
    assert min(seen["light"]) > 200 and max(seen["dark"]) < 60, seen
