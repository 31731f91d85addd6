"A headless Chromium for tests, driven by its DevTools protocol over a websocket."
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
START_LIMIT, ANSWER_LIMIT = 60, 60  # seconds


def skip_or_fail(reason):
    "A missing tool skips a test here, and fails it in CI."
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


class Chromium:
    "`with Chromium(folder) as page`: one page; its profile and its log go to the folder."
    def __init__(self, folder, answer_limit=ANSWER_LIMIT):
        self.folder, self.log, self.events, self.number, self.answer_limit = folder, folder / "chromium.log", [], 0, answer_limit

    def __enter__(self):
        if CHROMIUM is None: skip_or_fail("no Chromium found: apt-get install chromium (or another Chrome), then run again")
        import websocket
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={self.folder}", "about:blank"]
        self.process = subprocess.Popen([CHROMIUM, *flags], stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True)
        try:
            port_file = self.folder / "DevToolsActivePort"
            port = self.wait_for(lambda: port_file.exists() and port_file.read_text().split("\n")[0])
            pages = lambda: [p for p in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10)) if p["type"] == "page"]
            self.socket = websocket.create_connection(self.wait_for(pages)[0]["webSocketDebuggerUrl"], suppress_origin=True, timeout=self.answer_limit)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired): pass

    def wait_for(self, find):
        "What `find` returns once it returns something."
        deadline = time.time() + START_LIMIT
        while time.time() < deadline and self.process.poll() is None:
            if found := find(): return found
            time.sleep(0.1)
        pytest.fail(f"{CHROMIUM} did not start in {START_LIMIT} s:\n{self.log.read_text()[-3000:]}")

    def call(self, method, **params):
        "The answer to a command; the events that come in between are kept in `events`."
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.number: self.events.append(answer)
        return answer.get("result", answer)

    def evaluate(self, expression):
        "The value of a JavaScript expression, awaited where it is a promise."
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url):
        "Go to a page and wait until it is loaded; `events` are those of this page."
        for domain in ("Page", "Network", "Runtime", "Log"): self.call(f"{domain}.enable")
        self.call("Log.clear")
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.time() + self.answer_limit
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            assert time.time() < deadline, f"{url} was not loaded in {self.answer_limit} s"
            self.events.append(json.loads(self.socket.recv()))
