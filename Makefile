# make install | pretrain | test | mutants | browser | stats | notebooks | lab | docs | gpu-bundle | gpu | clean
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install pretrain test mutants browser stats notebooks lab docs gpu-bundle gpu clean

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"Python {v[0]}.{v[1]} found, 3.10 or newer needed: make PYTHON=python3.11 ...")'
	@echo "Setting up .venv (once; some minutes, most of them for PyTorch)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,tokenizers,adamw8bit]'
	@touch $@

# The main job: custom and Meta side by side, on what this machine has. More flags: make pretrain ARGS="--max_steps 40"
pretrain: install
	$(BIN)/compare_llama3 --recipe auto --overwrite --output_dir runs/pretrain/checkpoints --final_dir runs/pretrain/models --log_dir runs/pretrain/logs $(ARGS)

test: install
	$(BIN)/python .ci/test.py

# Change the modules one operator, constant or call at a time: the notebooks must notice (about 10 minutes). One module: make mutants ARGS=rope
mutants: install
	$(BIN)/python .ci/mutants.py $(ARGS)

# Every notebook in JupyterLab, in a headless Chromium (about 10 minutes)
browser: install
	CI=true NOTEBOOKS=all $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/test_jupyterlab.py

stats: install
	@$(BIN)/python .ci/stats.py

# Export the modules, run every notebook, save the outputs, render README.md
notebooks: install
	$(BIN)/nbdev_export
	$(BIN)/python .ci/execute.py

lab: install
	$(BIN)/jupyter lab --notebook-dir=nbs

# The documentation site, in _docs/html/index.html: the notebooks with the outputs they have, nothing run, nothing fetched from elsewhere when it is read
docs: install .venv/.docs
	$(BIN)/sphinx-build -q -W --keep-going -c docs -d _docs/doctrees nbs _docs/html
	@echo "open _docs/html/index.html"

.venv/.docs: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# For a CUDA machine without this project's packages and without a network: one zip of everything. DATA is a folder with train.txt and valid.txt
DATA ?= auto
MINUTES ?= 8
gpu-bundle: install
	$(BIN)/python gpu/bundle.py --data $(DATA)

# On a CUDA machine: the checks that need one, custom beside Meta in fp16 for MINUTES, benchmarks; everything in runs/gpu_results, nothing overwritten
gpu: gpu-bundle
	cd runs/gpu_bundle && $(CURDIR)/$(BIN)/python run_gpu.py --minutes $(MINUTES) --out $(CURDIR)/runs/gpu_results $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info runs _docs
