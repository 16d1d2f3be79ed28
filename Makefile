# Every target sets up .venv by itself, once per change of pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo prove test lint protos deploy-files serve bench drift faults clean
help:
	@echo "make demo    collect -> train -> serve -> PPO in the dream -> score in reality -> report (about 5 minutes)"
	@echo "make prove   every recipe of a world, with its controls, against the acceptance bars (hours; ONLY=ensemble-cartpole for one, PROCESSES=2, AGAIN=1)"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make protos  generate simservice/protocol/v1 from protos/"
	@echo "make deploy-files  write deploy/prometheus and deploy/grafana from the code's names and bars"
	@echo "make serve   serve the demo's world (WORLD=DIR for another)"
	@echo "make drift   false alarms, delays, causes and recovery of drift detection (about 12 minutes)"
	@echo "make faults  kills, drops, floods, forgeries: every promise about faults, tried (about 20 minutes; ONLY=kills,store for some)"
	@echo "make bench   speed beside peers and ceilings, into docs/benchmarks.md (about 10 minutes; ONLY=one-lane,frames for some)"

$(STAMP): pyproject.toml
	@echo "== setting up .venv (about 2.5 GB, one to four minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	@$(BIN)/simservice demo

prove: $(STAMP)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/simservice prove $(or $(ONLY),all) $(if $(PROCESSES),--processes $(PROCESSES)) $(if $(AGAIN),--again)

test: $(STAMP)
	@echo "== running the tests"
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@echo "== ruff"; $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== mypy"; $(BIN)/mypy
	@echo "== import contracts"; $(BIN)/lint-imports

protos: $(STAMP)
	@echo "== generating simservice/protocol/v1"
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. --grpc_python_out=. protos/simservice/protocol/v1/*.proto

deploy-files: $(STAMP)
	@$(BIN)/python -m deploy.generator

serve: $(STAMP)
	@$(BIN)/simservice serve $(or $(WORLD),runs/demo/world)

.venv/.peers: $(STAMP)
	@echo "== installing the peers"
	@$(BIN)/pip install --quiet --editable ".[dev,bench]"
	@touch $@

bench: .venv/.peers
	@PYTHONPATH=benchmarks:tests OMP_NUM_THREADS=1 $(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

faults: $(STAMP)
	@$(BIN)/python tests/faults/acceptance.py $(if $(ONLY),--only $(ONLY)) $(if $(SOAK),--soak-minutes $(SOAK))

drift: $(STAMP)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/drift.py

clean:
	rm -rf .venv build dist *.egg-info
