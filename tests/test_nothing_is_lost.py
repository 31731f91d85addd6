"Kill it, stop it, fill its disk, damage its files: what is resumed has the log and the weights, byte for byte, of a run that nothing happened to."
import os
import random
import resource
import signal
import subprocess
import time

import pytest
from forked import LOG, ended, finish, reached, said, start, story, train, wait_for, weights, write_text

KILLS, STEPS = 20, 60


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a text and, in `straight`, a run that nothing happened to."
    home = tmp_path_factory.mktemp("home")
    write_text(home)
    assert train(home / "straight", "--max_steps", STEPS, "--save_steps", 1) == 0, said(home / "straight")
    return home


def same_as_straight(home, folder):
    "Whether log and final weights are those of the undisturbed run."
    ours, theirs = story(folder), story(home / "straight")
    for a, b in zip(ours[1:], theirs[1:]): assert a == b
    assert len(ours) == len(theirs) and ours[-1]["event"] == "end"
    assert weights(folder) == weights(home / "straight"), "the final weights differ"
    return True


def test_killed_at_twenty_random_instants(home, capsys):
    rng, kills, writing, runs, began = random.Random(0), 0, 0, 0, time.time()
    while kills < KILLS:
        runs += 1
        folder = home / f"killed-{runs}"
        while kills < KILLS:
            begun = (folder / LOG).exists()
            pid = start(folder, "--max_steps", STEPS, "--save_steps", 1)
            if begun:  # the first kills of a run fall anywhere; later ones after it has gone on
                size = (folder / LOG).stat().st_size
                wait_for(lambda: (folder / LOG).stat().st_size > size or ended(pid))
            time.sleep(rng.uniform(0, 0.5) if begun else rng.uniform(0, 2.5))
            os.kill(pid, signal.SIGKILL)
            if finish(pid) == 0: break  # it was faster
            kills += 1
            writing += any((folder / "llama3_checkpoints").glob("*.part"))
        assert train(folder, "--max_steps", STEPS, "--save_steps", 1) == 0, said(folder)
        assert same_as_straight(home, folder)
        assert not list((folder / "llama3_checkpoints").glob("*.part"))
    with capsys.disabled(): print(f"\n{kills} kills, {writing} of them while a checkpoint was being written, in {runs} runs of {STEPS} steps: "
                                  f"logs and weights the same ({time.time() - began:.0f} s)")
    assert writing > 0, "no kill fell into the writing of a checkpoint"


VARIANTS = {"accumulation and clipping": [], "fp16 with loss scaling": ["--precision", "fp16"], "bf16": ["--precision", "bf16"], "adafactor": ["--optimizer", "adafactor"],
            "gradient checkpointing": ["--gradient_checkpointing"], "Meta's model": ["--model_type", "meta-llama/Llama-3.2-1B"]}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_halves_make_a_whole(name, home):
    flags = [*VARIANTS[name], "--eval_steps", 4]
    one, two = home / f"one-{name}", home / f"two-{name}"
    assert train(one, *flags, "--max_steps", 10) == 0, said(one)
    assert train(two, *flags, "--max_steps", 5) == 0 and train(two, *flags, "--max_steps", 10) == 0, said(two)
    log = LOG.replace("custom", "meta") if "Meta" in name else LOG
    a, b = (([e for e in (f / log).read_text().splitlines() if '"loss"' in e or '"eval_loss"' in e]) for f in (one, two))
    strip = lambda lines: [line.split(', "tokens_per_s"')[0] for line in lines]
    assert strip(a) == strip(b) and len(a) == 10 + 4
    assert weights(one) == weights(two)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(number, status, home):
    folder = home / f"stopped-{status}"
    pid = start(folder, "--max_steps", STEPS, "--save_steps", 1000)
    wait_for(lambda: reached(folder, 13), pid)
    os.kill(pid, number)
    os.kill(pid, number)  # a launcher passes the same Ctrl-C on
    assert finish(pid) == status, said(folder)
    assert "go on with: train_llama3 " in said(folder) and "Traceback" not in said(folder)
    assert story(folder)[-1]["reason"] == "interrupted" and list((folder / "llama3_checkpoints").glob("checkpoint-*"))
    assert train(folder, "--max_steps", STEPS, "--save_steps", 1000) == 0, said(folder)
    assert same_as_straight(home, folder)


def test_a_damaged_checkpoint_is_named_and_passed_over(home):
    folder = home / "damaged"
    assert train(folder, "--max_steps", 9, "--save_steps", 3) == 0
    state = folder / "llama3_checkpoints" / "checkpoint-9" / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    assert train(folder, "--max_steps", STEPS, "--save_steps", 3) == 0
    assert "checkpoint-9 cannot be used: state.pt has changed since it was written; going on from llama3_checkpoints/checkpoint-6" in said(folder)
    assert same_as_straight(home, folder)


def test_all_damaged_is_an_error_and_nothing_is_deleted(home):
    folder = home / "all-damaged"
    assert train(folder, "--max_steps", 4, "--save_steps", 4) == 0
    (folder / "llama3_checkpoints" / "checkpoint-4" / "checksums.json").write_text("{}")
    before = (folder / LOG).read_bytes()
    assert train(folder, "--max_steps", 8) == 2 and "no intact checkpoint" in said(folder)
    assert (folder / LOG).read_bytes() == before and (folder / "llama3_checkpoints" / "checkpoint-4" / "state.pt").exists()


def test_another_text_is_not_the_same_run(home):
    folder = home / "other-text"
    assert train(folder, "--max_steps", 2) == 0
    (folder / "other.txt").write_text((home / "text.txt").read_text().replace("The number", "A numeral"))
    assert train(folder, "--max_steps", 4, "--dataset", "other.txt") == 2
    assert "was trained with" in said(folder) and "Traceback" not in said(folder)


def test_two_processes_do_not_write_one_log(home):
    folder = home / "twice"
    pid = start(folder, "--max_steps", 100000, "--num_epochs", 1000)
    wait_for(lambda: reached(folder, 2), pid)
    assert train(folder, "--max_steps", 100000, "--num_epochs", 1000) == 2 and "is being written by another process" in said(folder)
    os.kill(pid, signal.SIGTERM)
    assert finish(pid) == 143


def test_files_that_may_not_grow(home):
    folder = home / "limited"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert train(folder, "--max_steps", STEPS, "--save_steps", 1, before=limit) == 0, said(folder)  # the weights fit, the optimizer's state does not
    assert "could not be written" in said(folder) and not list((folder / "llama3_checkpoints").iterdir())
    assert same_as_straight(home, folder)


@pytest.fixture
def small_disk(home):
    "A folder on a disk of 40 MB of its own; a checkpoint takes 13."
    folder = home / "small-disk"
    folder.mkdir(exist_ok=True)
    try: mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError: mounted = False
    if not mounted: pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], timeout=10)


def fill(folder):
    "Write until the disk is full. Once is not enough: a checkpoint that fails for lack of room gives back what it had taken."
    with open(folder / "filler", "ab", buffering=0) as f:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True: f.write(b"x" * size)
            except OSError: pass


def test_a_full_disk_that_gets_room_again(home, small_disk):
    pid = start(small_disk, "--max_steps", STEPS, "--save_steps", 2, "--save_total_limit", 1)
    wait_for(lambda: reached(small_disk, 5), pid)
    wait_for(lambda: fill(small_disk) or "could not be written" in said(small_disk) and "the log when there is room" in said(small_disk), pid)
    (small_disk / "filler").unlink()
    assert finish(pid) == 0 and "Traceback" not in said(small_disk), said(small_disk)
    assert same_as_straight(home, small_disk)


def test_a_disk_that_stays_full(home, small_disk):
    flags = ["--max_steps", STEPS, "--save_steps", 2, "--save_total_limit", 1]
    pid = start(small_disk, *flags, before=lambda: os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT), 2))  # even its messages find no room
    wait_for(lambda: reached(small_disk, 5), pid)
    wait_for(lambda: fill(small_disk) or ended(pid))
    assert finish(pid) == 1  # trained to the end, but the final model has no room
    (small_disk / "filler").unlink()
    assert train(small_disk, *flags) == 0, said(small_disk)
    assert same_as_straight(home, small_disk)
