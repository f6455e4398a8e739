# The commands of weavelab. `make` prints them; what each does in detail stands in testbed/setup/.
# After `vagrant up` the targets marked (VM) run in the VM of this checkout; NATIVE=1 runs them here.

TOPOLOGY ?= topologies/two-nodes.yaml
ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= --numprocesses=2

SHELL := bash
.SHELLFLAGS := -e -u -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

SETUP := testbed/setup
VENV := $(shell sh $(SETUP)/venv-path.sh)
BIN := $(VENV)/bin
AS_ROOT := bash $(SETUP)/as-root.sh
LEAVE := bash $(SETUP)/leave-make.sh $$? $$PPID

# Set-up that speaks only when it has something to do.
READY := bash $(SETUP)/setup.sh run --quiet
READY_DEV := bash $(SETUP)/setup.sh test --quiet

VM_TARGETS := scenario chaos demo test up down status cli
ifeq ($(strip $(NATIVE)),)
  IN_VM := $(if $(wildcard .vagrant/machines/*/*/id),$(shell command -v vagrant))
endif

.PHONY: help setup $(VM_TARGETS) recording fetch check lint fmt proto types arch test-unit test-kernel test-lab nightly cover bench bench-cni bench-mesh bench-scale bench-upkeep bench-flood uninstall clean

help: ## list the targets
	@echo "weavelab: a Kubernetes-style pod network on one Linux machine"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  TOPOLOGY=topologies/three-nodes.yaml   another lab, for scenario and up (now: $(TOPOLOGY))"
	@echo "  ARGS='--keep'                          further options of the weavelab command"
	@echo "  NATIVE=1                               here, although this checkout has a VM$(if $(IN_VM), (it has one now))"

setup: ## install what labs, tests and checks need (scenario and test do it by themselves)
	@bash $(SETUP)/setup.sh test $(ARGS)

ifneq ($(strip $(IN_VM)),)

$(VM_TARGETS):
	@bash $(SETUP)/in-vm.sh $@ TOPOLOGY='$(TOPOLOGY)' ARGS='$(ARGS)' LAB='$(LAB)' PYTEST_ARGS='$(PYTEST_ARGS)' || $(LEAVE)

else

scenario: ## (VM) bring a topology up, run its scenarios, report into build/reports, tear down
	@bash $(SETUP)/scenario.sh '$(TOPOLOGY)' $(ARGS) || $(LEAVE)

chaos: ## (VM) two minutes of random faults, then everything has to be whole (ARGS='--seed 7 --seconds 3600')
	@bash $(SETUP)/scenario.sh topologies/chaos.yaml --seconds 120 $(ARGS) || $(LEAVE)

demo: ## (VM) five guided minutes: from a pod's creation to a VXLAN frame taken apart (ARGS=--auto: no keys)
	@$(READY)
	@$(AS_ROOT) $(BIN)/weavelab demo $(ARGS) || $(LEAVE)

test: ## (VM) everything: checks, one scenario, then the whole test suite
	@$(READY_DEV)
	@$(MAKE) check
	@bash $(SETUP)/scenario.sh '$(TOPOLOGY)' $(ARGS) || $(LEAVE)
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider $(WORKERS) $(PYTEST_ARGS) || $(LEAVE)

up: ## (VM) bring a lab up and leave it there
	@$(READY) '--for=$(TOPOLOGY)'
	@$(AS_ROOT) $(BIN)/weavelab up '$(TOPOLOGY)' $(ARGS) || $(LEAVE)

down: ## (VM) take down LAB=name, or every lab (ARGS=--force: also those in use)
	@$(READY)
	@$(AS_ROOT) $(BIN)/weavelab down $(or $(LAB),--all) $(ARGS) || $(LEAVE)

status: ## (VM) nodes, agents, pods of the running labs
	@$(READY)
	@$(AS_ROOT) $(BIN)/weavelab status $(LAB) $(ARGS) || $(LEAVE)

cli: ## (VM) the Mininet prompt on the running lab
	@$(READY)
	@$(AS_ROOT) $(BIN)/weavelab cli $(LAB) $(ARGS) || $(LEAVE)

endif

recording: ## record the demo anew: docs/demo.svg, the picture of the README (root)
	@$(READY)
	@$(AS_ROOT) $(BIN)/weavelab demo topologies/racks.yaml --record docs/demo.svg || $(LEAVE)

fetch: ## copy the VM's reports into build/reports
	@bash $(SETUP)/in-vm.sh --fetch

check: lint types arch ## lint, types, import rules

lint: ## ruff, formatting, spelling, shell syntax; silent when all is well
	@$(READY_DEV)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; echo "hint: make fmt"; exit 1; }
	@$(BIN)/codespell
	@for script in $(SETUP)/*.sh .ci/run; do bash -n "$$script"; done

fmt: ## format the Python files, repair what ruff can
	@$(READY_DEV)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

proto: ## generate the messages of CRI from testbed/kubelet/cri/cri.proto
	@$(READY_DEV)
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. testbed/kubelet/cri/cri.proto

types: ## mypy, strict
	@$(READY_DEV)
	@$(BIN)/mypy --no-error-summary

arch: ## the import rules (pyproject.toml, tool.importlinter)
	@$(READY_DEV)
	@report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }

test-unit: ## the tests that need no root
	@$(READY_DEV)
	@$(BIN)/pytest tests/unit tests/property tests/sim tests/contract $(PYTEST_ARGS) || $(LEAVE)

test-kernel: ## the tests that make namespaces (root)
	@$(READY_DEV)
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider -m kernel tests/kernel tests/contract $(PYTEST_ARGS) || $(LEAVE)

test-lab: ## the tests that run whole labs (root)
	@$(READY_DEV)
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/lab $(PYTEST_ARGS) || $(LEAVE)

nightly: ## 10,000 seeded storms of the simulation, an hour or two, and random damage to a node (SIM_FIRST=, SIM_RUNS=)
	@$(READY_DEV)
	@UPKEEP_ROUNDS=$${UPKEEP_ROUNDS:-120} $(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/kernel/agent/test_upkeep.py || $(LEAVE)
	@SIM_RUNS=$${SIM_RUNS:-10000} $(BIN)/pytest -p no:cacheprovider tests/sim $(PYTEST_ARGS) || $(LEAVE)

cover: ## the whole suite with branch coverage, report in build/coverage
	@$(READY_DEV)
	@mkdir -p build
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider --cov --cov-report=term:skip-covered --cov-report=html:build/coverage $(PYTEST_ARGS) || $(LEAVE)

bench: ## compare with stock Mininet, hand-made bridges, the reference CNI plugins (root; installs those)
	@bash $(SETUP)/setup.sh bench --quiet
	@$(AS_ROOT) $(BIN)/python -m bench $(ARGS) || $(LEAVE)

bench-mesh: ## real labs of 2 to 100 nodes: times, processor, memory against the budgets (root)
	@$(READY_DEV)
	@$(AS_ROOT) $(BIN)/python -m bench.mesh $(ARGS) || $(LEAVE)

bench-scale: ## traffic and times of 10 to 2000 simulated agents
	@$(READY_DEV)
	@$(BIN)/python -m bench.scale $(ARGS) || $(LEAVE)

bench-upkeep: ## what keeping a node right costs an agent, and how soon it mends what is broken (root)
	@$(READY_DEV)
	@$(AS_ROOT) $(BIN)/python -m bench.upkeep $(ARGS) || $(LEAVE)

bench-flood: ## what a stranger with one core does to an agent (root)
	@$(READY_DEV)
	@$(AS_ROOT) $(BIN)/python -m bench.flood $(ARGS) || $(LEAVE)

bench-cni: ## of these, the CNI calls alone
	@$(MAKE) bench ARGS='--only cni $(ARGS)'

uninstall: ## take away what makes the command known to this machine: /usr/local/bin/weavelab, completion
	@bash $(SETUP)/setup.sh --uninstall

clean: ## remove build results and caches; the virtual environment stays
	@rm -rf build .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find plugin testbed tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
