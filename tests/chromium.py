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
START_LIMIT = 60  # seconds


def skip_or_fail(reason):
    "A missing tool skips a test here, and fails it in CI."
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def start(argv, log, **kwargs):
    "A process in a group of its own, its output in a file."
    return subprocess.Popen(argv, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True, **kwargs)


def stop(child):
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sig)
            child.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired): pass


def wait_for(child, find, log):
    "What `find` returns once it returns something; fails with the log when the process has ended or time is up."
    deadline = time.time() + START_LIMIT
    while time.time() < deadline and child.poll() is None:
        if found := find(): return found
        time.sleep(0.2)
    pytest.fail(f"{child.args[0]} did not start in {START_LIMIT} s:\n{log.read_text()[-3000:]}")


class Chromium:
    "`with Chromium(folder) as page`: one page; its profile and its log go to the folder."
    def __init__(self, folder, answer_limit=60):  # a pathlib.Path; seconds an answer may take
        self.folder, self.answer_limit, self.events, self.number = folder, answer_limit, [], 0

    def __enter__(self):
        if CHROMIUM is None: skip_or_fail("no Chromium found: apt-get install chromium (or another Chrome), then run again")
        import websocket
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={self.folder}", "about:blank"]
        log = self.folder / "chromium.log"
        self.process = start([CHROMIUM, *flags], log)
        try:
            port_file = self.folder / "DevToolsActivePort"
            port = wait_for(self.process, lambda: port_file.exists() and port_file.read_text().split("\n")[0], log)
            pages = lambda: [p for p in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10)) if p["type"] == "page"]
            self.socket = websocket.create_connection(wait_for(self.process, pages, log)[0]["webSocketDebuggerUrl"], suppress_origin=True, timeout=self.answer_limit)
        except BaseException:
            stop(self.process)
            raise
        return self

    def __exit__(self, *exception): stop(self.process)

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
