"The runs kept with the course: what README.md says of them is what the logs say."
import importlib.util
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "training_logs"
spec = importlib.util.spec_from_file_location("make_runs", FOLDER / "make_runs.py")
make_runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_runs)


def test_table_is_what_the_logs_say():
    assert f"<!-- table -->\n{make_runs.table()}\n<!-- end -->" in (FOLDER / "README.md").read_text(), "run: python training_logs/make_runs.py --pictures"


def test_logs_are_of_the_runs_that_are_described():
    for name, wanted in make_runs.RUNS.items():
        events = make_runs.events(name)
        if events is None: continue
        assert {k: events[0][k] for k in wanted} == wanted, name
        assert events[-1]["event"] == "end" and not any(str(v).startswith("/") for v in events[0].values()), name
        for k, v in make_runs.CHANGED_CONFIG.get(name, {}).items(): assert events[0]["model_config"][k] == v, name
