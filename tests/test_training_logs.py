"The runs kept with the course: what README.md says of them is what the logs say."
import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "training_logs"
spec = importlib.util.spec_from_file_location("make_runs", FOLDER / "make_runs.py")
make_runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_runs)


def test_table_is_what_the_logs_say():
    assert f"<!-- table -->\n{make_runs.table()}\n<!-- end -->" in (FOLDER / "README.md").read_text(), "run: python training_logs/make_runs.py --pictures"


def test_logs_are_of_the_runs_that_are_described():
    for name, wanted in make_runs.RUNS.items():
        events = make_runs.events(name)
        assert events, f"{name} is not kept here"
        assert {k: events[0][k] for k in wanted} == wanted, name
        assert events[-1]["event"] == "end" and not any(str(v).startswith("/") for v in events[0].values()), name
        for k, v in make_runs.CHANGED_CONFIG.get(name, {}).items(): assert events[0]["model_config"][k] == v, name


def test_validation_is_cut_and_a_wrong_folder_gets_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wikitext2 = tmp_path / "given"
    wikitext2.mkdir()
    (wikitext2 / "train.txt").write_text("words to train on\n")
    monkeypatch.setattr(sys, "argv", ["make_runs.py", "--wikitext2", "given"])
    with pytest.raises(SystemExit) as end: make_runs.main()
    assert end.value.code == 2 and "found no valid.txt" in capsys.readouterr().err and not (tmp_path / "wikitext2-short").exists()
    (wikitext2 / "valid.txt").write_text("".join(f"line {i}\n" for i in range(700)))
    make_runs.cut_validation(wikitext2)
    make_runs.cut_validation(wikitext2)  # again changes nothing
    for name, first in (("wikitext2-short", 0), ("wikitext2-other", 300)):
        assert (tmp_path / name / "valid.txt").read_text().splitlines() == [f"line {i}" for i in range(first, first + 300)]
        assert (tmp_path / name / "train.txt").read_text() == "words to train on\n"
