# Everything a developer does starts here; `make` alone lists it.
# An environment is made once: its stamp is newer than the file that says what goes into it.

.DEFAULT_GOAL := help
SHELL := bash
VENV := .venv/.installed
SCHEMATHESIS := .deps/schemathesis/.installed
OCDS := .deps/ocds/standard.zip
KAFKA_LINE := $(or $(GSB_KAFKA_VERSION),4.1)
KAFKA := .deps/kafka/$(KAFKA_LINE)/.installed
INTEROP := tests/interop/node_modules/.installed
BROWSER := tests/browser/node_modules/.installed
HELM := .deps/helm/.installed .deps/kubernetes/.installed .deps/crds/.installed

BACKEND := $(or $(BACKEND),embedded)
$(if $(filter-out all,$(SYSTEMS)),$(error SYSTEMS is all, or is left out))

.PHONY: help run systems systems-stop test check deps-test chart image image-test lock servers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: $(VENV) .deps/openfisca/.installed $(if $(filter cluster,$(BACKEND)),servers) ## a payroll month over the bus, on real systems; ONCE=1 ends after it; BACKEND=cluster: on Kafka and PostgreSQL; SYSTEMS=all: every core system
	$(if $(filter all,$(SYSTEMS)),@tests/deps/tools.sh systems || true)
	@BACKEND='$(BACKEND)' .venv/bin/python $(if $(filter all,$(SYSTEMS)),config/government/play/run.py,config/demo/run.py)

systems: $(VENV) ## the real core systems: installed, seeded, started to stay, checked with a call each
	@tests/deps/tools.sh systems || true
	@.venv/bin/python -m config.systems.run start

systems-stop: $(VENV) ## stop them
	@.venv/bin/python -m config.systems.run stop

test: $(VENV) ## all tests; those whose systems are not installed are skipped, and fail when CI=true
	@.venv/bin/python -m pytest

check: $(VENV) ## format, lint, types and the order of modules
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/python -m pytest -q tests/test_order.py

chart: $(VENV) $(HELM) ## the Helm chart: lint, what it renders, the schemas of Kubernetes and of foreign operators, policies
	@.venv/bin/python -m pytest tests/test_chart*.py

image: ## the image localhost/gsb, by buildah; BASE=IMAGE, or BASE=debootstrap without a registry; FRESH=1 for Debian's latest
	@tests/deps/image.sh
	@BASE='$(BASE)' FRESH='$(FRESH)' helm/image/build.sh

image-test: $(VENV) .deps/image/.installed ## show that the built image serves a signed call and holds nothing else
	@.venv/bin/python -m tests.image.chamber

lock: $(VENV) .deps/image/.installed ## renew the image's lock files after a change of pyproject.toml; UPGRADE=1: everything in them
	@.venv/bin/python helm/image/lock.py $(if $(UPGRADE),--upgrade)

servers: # PostgreSQL and Kafka, not yet started
	@tests/deps/tools.sh servers
	@$(MAKE) --silent $(KAFKA)

deps-test: $(VENV) $(SCHEMATHESIS) $(OCDS) ## install what tests talk to, into .deps/, tests/interop/ and tests/browser/
	@tests/deps/tools.sh
	@.venv/bin/python -m config.systems.run install
	@$(MAKE) --silent $(INTEROP) $(BROWSER) $(KAFKA) $(HELM)

$(VENV): pyproject.toml
	@tests/deps/environment.sh .venv -e '.[dev]'

.deps/helm/.installed: tests/deps/helm.sh
	@tests/deps/helm.sh

.deps/crds/.installed: tests/deps/crds.sh tests/deps/crds.txt
	@tests/deps/crds.sh

$(KAFKA): tests/deps/kafka/pom.xml
	@tests/deps/kafka.sh $(KAFKA_LINE)

$(OCDS): tests/deps/ocds.txt tests/deps/ocds.py
	@tests/deps/environment.sh .deps/ocds -r $<
	@.deps/ocds/bin/python tests/deps/ocds.py

.deps/%/.installed: tests/deps/%.txt
	@tests/deps/environment.sh .deps/$* -r $<

.deps/%/.installed: config/systems/%.txt
	@tests/deps/environment.sh .deps/$* -r $<

tests/%/node_modules/.installed: tests/%/package.json tests/%/package-lock.json
	@tests/deps/packages.sh tests/$*
