"Weights & Biases beside a run: whatever its server does, the run neither waits for it nor dies of it."
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from forked import finish, said, start, story, train, wait_for, write_text

STEPS = ["--max_steps", 40]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a text and, in `without`, a run that W&B had no part in."
    home = tmp_path_factory.mktemp("home")
    write_text(home)
    assert train(home / "without", *STEPS) == 0
    return home


class Server:
    "A W&B server on this machine that accepts connections and never answers; `kind` refused: that is not even there."
    def __init__(self, kind):
        self.socket, self.open = socket.socket(), []
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        if kind == "refused": return
        self.socket.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try: self.open.append(self.socket.accept()[0])  # kept open, never read
            except OSError: return


def environment(folder, **more):
    "A home of its own, so that nobody's key is used."
    return {"HOME": str(folder), "NETRC": str(folder / "netrc"), "WANDB_CONFIG_DIR": str(folder / "config"), "WANDB_CACHE_DIR": str(folder / "cache"), "WANDB_DIR": str(folder), **more}


def same_story(home, folder):
    "The same log, but for the --wandb flag in its first line."
    return story(folder)[1:] == story(home / "without")[1:]


@pytest.mark.parametrize("kind", ["silent", "refused"])
def test_a_server_that_does_not_answer(kind, home):
    folder, server = home / kind, Server(kind)
    began = time.time()
    pid = start(folder, *STEPS, "--wandb", "online", env=environment(home, WANDB_BASE_URL=server.url, WANDB_API_KEY="a" * 40))
    wait_for(lambda: (folder / "llama3_final_model" / "config.json").exists(), pid)
    trained = time.time() - began
    assert finish(pid) == 0, said(folder)
    print(f"{kind}: model there after {trained:.1f} s, the end {time.time() - began - trained:.1f} s later")
    assert same_story(home, folder) and said(folder).count("wandb:") == 1, said(folder)
    assert time.time() - began - trained < 12


def test_no_key(home):
    folder = home / "no-key"
    assert train(folder, *STEPS, "--wandb", "online", env=environment(home)) == 0
    assert "wandb: " in said(folder) and "training goes on without it" in said(folder) and same_story(home, folder)


def test_auto_without_a_key_is_off(home):
    folder = home / "auto"
    assert train(folder, *STEPS, "--wandb", "auto", env=environment(home)) == 0
    assert "wandb" not in said(folder) and [p.name for p in (folder / "training_logs").iterdir()] == ["custom-tiny.jsonl"]


def records(file):
    "The bytes of a .wandb file's records: a LevelDB log, blocks of 32 KB, each record behind 7 bytes of checksum, length and type."
    data, out, at = file.read_bytes(), b"", 7
    while at < len(data):
        if 32768 - at % 32768 < 7: at += 32768 - at % 32768
        size = int.from_bytes(data[at + 4:at + 6], "little")
        out, at = out + data[at + 7:at + 7 + size], at + 7 + size
    return out


def test_offline_and_a_resumed_run_goes_on_with_the_same_one(home):
    folder = home / "offline"
    for steps in (15, 40): assert train(folder, "--max_steps", steps, "--wandb", "offline", env=environment(home)) == 0, said(folder)
    files = sorted((folder / "training_logs" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({f.name for f in files}) == 1, [f.name for f in files]  # run-ID.wandb
    sent = records(files[-1])
    missing = [e["step"] for e in story(folder) if "loss" in e and str(e["loss"]).encode() not in sent]
    assert missing == [] and same_story(home, folder)


def test_one_that_stops_answering_in_the_middle(home):
    folder = home / "stuck"
    pid = start(folder, *STEPS, "--wandb", "offline", env=environment(home))
    children = lambda: [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and f"PPid:\t{pid}\n" in text_of(p / "status") and "mirror(" in text_of(p / "cmdline")]
    wait_for(children, pid)
    os.kill(children()[0], signal.SIGSTOP)
    wait_for(lambda: (folder / "llama3_final_model" / "config.json").exists(), pid)
    trained = time.time()
    assert finish(pid) == 0 and time.time() - trained < 12
    assert "wandb: no answer in 10 s" in said(folder) and same_story(home, folder)


def text_of(path):
    "A file's text, '' where it has gone."
    try: return path.read_text()
    except OSError: return ""
