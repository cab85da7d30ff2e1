# Needs make and Python >= 3.11 with its venv module; everything else is set up here, in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
DEVELOPMENT := .venv/.development

LOCK := uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: demo test check docs bench peers growth overload faults fuzz gate mutants sbom audit lock proto clean

demo: $(READY)  ## serve configs/fashion on Ray Serve and show every outcome on real inputs; ONCE=1 exits after that
	$(BIN)/gateway demo configs/fashion $(if $(ONCE),--once)

test: $(DEVELOPMENT)  ## the whole test suite: files two at a time, then those that need the machine alone
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not (ray or alone)"
	$(BIN)/python -m pytest -m "ray or alone"

check: $(DEVELOPMENT)  ## format, lint, types, layers: everything but the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEVELOPMENT)  ## after editing a policy model: docs/policy.schema.json and the tables of docs/policy.md
	$(BIN)/python docs/reference.py

mutants: $(DEVELOPMENT)  ## break core and certificate on purpose; every mutant must be killed
	$(BIN)/python tests/mutants.py

bench: $(DEVELOPMENT)  ## what the guards stop, what a request costs and where, how fast it starts: about five minutes
	$(BIN)/python -m bench.quality configs/fashion
	$(BIN)/python -m bench.micro
	$(BIN)/python -m bench.peers --peers bare
	$(BIN)/python -m bench.start --rounds 1

peers: $(DEVELOPMENT)  ## beside MLServer, LitServe, BentoML and Ray Serve's proxy, each in an environment of its own
	$(BIN)/python -m bench.peers

growth: $(DEVELOPMENT)  ## cost against principals, backlog and rows; memory over 200,000 requests
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.growth memory

overload: $(DEVELOPMENT)  ## what is answered in time at 1 to 10 times the capacity, beside bare uvicorn; needs cc and two cores
	$(BIN)/python -m bench.overload --peers bare
	$(BIN)/python -m bench.overload --deployment slow

faults: $(DEVELOPMENT)  ## break every part of a served gateway at load and check every request: about fifteen minutes
	$(BIN)/python -m bench.faults

fuzz: $(DEVELOPMENT)  ## break requests on purpose for SECONDS (600), other ones each time
	$(BIN)/python -m tests.protocol.test_fuzz $(or $(SECONDS),600)

gate: $(DEVELOPMENT)  ## fails if a request has become half as expensive again, over the baseline server
	$(BIN)/python -m bench.gate

sbom: $(DEVELOPMENT)  ## sbom.cdx.json (CycloneDX): what requirements.lock installs, with licences; and docs/licences.md
	$(BIN)/python docs/bill_of_materials.py

audit: $(DEVELOPMENT)  ## known vulnerabilities of what requirements.lock installs; needs the advisories of PyPI
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --no-deps --disable-pip

lock:  ## after editing dependencies in pyproject.toml; needs uv
	$(LOCK) --group build pyproject.toml -o requirements.lock
	$(LOCK) --group build --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

proto:  ## after editing open_inference.proto; needs uv. The oldest generator whose stubs protobuf 6 and 7 both take
	uv run --no-project --with grpcio-tools==1.76.0 --with 'protobuf<6.32' python -m grpc_tools.protoc -I. \
		--python_out=. --pyi_out=. fallbacks/oip/open_inference.proto

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

$(DEVELOPMENT): requirements-dev.lock $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $(DEVELOPMENT)
