# make run, make test: the first two commands on a fresh machine. ARGS="..." passes options to the program.
PYTHON ?= python3
ARGS ?=
SEEDS ?= 10
export PYTHON

.PHONY: help run test check unit quick coverage mutants oracle bench demo architecture pictures pyz wheel deb bats image clean

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: ## Watch this machine's connections; where that is impossible, play the bundled demo
	@scripts/bootstrap.sh run
	@scripts/run.sh $(ARGS)

test: ## Everything: ruff, mypy, pytest (without ARGS pytest in five parts, all at once; output is grouped)
	@scripts/bootstrap.sh test
	@bases=$$(mktemp -d) && trap 'rm -rf "$$bases"' EXIT && TEST_BASE="$${TEST_BASE:-$$bases/base.tar}" \
		$(MAKE) --no-print-directory $(if $(ARGS),check unit,--output-sync=target --keep-going -j6 check test-install test-kernel test-log test-ways test-plain)

check: ## ruff and mypy
	@scripts/bootstrap.sh test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

unit: ## pytest alone; ARGS="-k name" to choose
	@scripts/bootstrap.sh test
	.venv/bin/pytest $(ARGS)

# Without root, network, kernel or terminal: what one runs while working on the pure rooms. 60 s one after the other.
READING := $(addprefix tests/,$(addsuffix .py,$(addprefix test_,parse flows intake addresses filters grouping columns export names config metrics)))
SHOWING := $(addprefix tests/,$(addsuffix .py,$(addprefix test_,text view keys render panels health architecture contracts)))
# Python 3.10 has no tomllib, and says so: that is tested.
WITHOUT = $(shell .venv/bin/python -c 'import tomllib' 2>/dev/null || echo '-m "not toml"')
QUICK = .venv/bin/pytest -q -p no:cacheprovider --hypothesis-profile=quick $(WITHOUT) $(ARGS)

quick: ## The tests of the pure rooms, in less than a minute and without root
	@scripts/bootstrap.sh test
	@$(MAKE) --no-print-directory --output-sync=target --keep-going -j2 quick-reading quick-showing

.PHONY: quick-reading quick-showing
quick-reading:
	$(QUICK) $(READING)

quick-showing:
	$(QUICK) $(SHOWING)

coverage: ## The same, and how much of each room they run through
	@scripts/bootstrap.sh test
	.venv/bin/coverage run --source=. --omit='tests/*,bench/*,scripts/*,fixtures/*' -m pytest -q -p no:cacheprovider \
		--hypothesis-profile=quick $(READING) $(SHOWING)
	.venv/bin/coverage report

mutants: ## Break the program on purpose, one small change at a time: some test must notice each; ARGS="-k WORD"
	@scripts/bootstrap.sh test
	.venv/bin/python scripts/mutants.py $(ARGS)

# What installs: a Docker engine, a debootstrap, sshd, every Python here, packages. Mostly waiting, so it
# runs beside the others.
INSTALL := $(addprefix tests/test_,$(addsuffix .py,docker guide setup pyz wheel deb unit ssh tmux))

# What waits for a kernel, for timeouts, for a screen: half of the rest's time, a quarter of its CPU.
KERNEL := $(addprefix tests/test_,$(addsuffix .py,oracle nodes nodes_screen kernel rates source live ipfix_kernel faults_table faults_conntrack faults_kernel faults_terminal prometheus))

# The flow log, other people's stores, databases that are fetched, small Pythons: their tests wait for disks, restarts, minutes.
LOG := $(addprefix tests/test_,$(addsuffix .py,past log_nodes flowlog flowlog_oracle usage guide_to_the_log small_pythons geography download contrib_rsyslog contrib_victoriametrics contrib_nats contrib_clickhouse))

# From a bare Debian 12 and 13 to a screen and back; Podman. Mostly apt and debootstrap.
WAYS := $(addprefix tests/test_,$(addsuffix .py,seven_ways podman))

.PHONY: test-plain test-install test-kernel test-log test-ways
test-plain: ## pytest without what installs or waits
	.venv/bin/pytest -p no:cacheprovider $(INSTALL:%=--ignore=%) $(KERNEL:%=--ignore=%) $(LOG:%=--ignore=%) $(WAYS:%=--ignore=%)

test-kernel: ## pytest of what waits for a kernel: churn, faults, the live screen
	.venv/bin/pytest -p no:cacheprovider $(KERNEL)

test-log: ## pytest of the flow log, of recipes, fetching databases, small Pythons
	.venv/bin/pytest -p no:cacheprovider $(LOG)

test-install: ## pytest of what installs: one file, wheel, package, ssh, container, setup script
	.venv/bin/pytest -p no:cacheprovider $(INSTALL)

test-ways: ## pytest of seven ways to install it, each from nothing to a screen and back
	.venv/bin/pytest -p no:cacheprovider $(WAYS)

bats: ## The tests of the setup script alone (needs bats)
	bats tests/setup.bats

# With its version and commit in the labels; setup-conntrack-monitor.sh and docker-compose.yml take the same name.
IMAGE := ghcr.io/0xf00f00/conntrack-monitor
image: ## Build the container's image from this checkout
	docker build -t $(IMAGE):latest $$($(PYTHON) scripts/release.py labels) .

oracle: ## Random churn, then the table against the kernel's (as root): SEEDS=200, or ARGS="--seed 17" for one again
	@scripts/bootstrap.sh test
	PYTHONPATH=.:tests .venv/bin/python -m oracle.oracle --seeds $(SEEDS) $(ARGS)

bench: ## The benchmarks (as root): ratios against conntrack and iptstate on the same table
	@scripts/bootstrap.sh test
	.venv/bin/python bench/bench.py $(ARGS)

demo: ## Record fixtures/demo.rec anew (as root): three minutes of traffic in network namespaces
	@scripts/bootstrap.sh test
	.venv/bin/python fixtures/make_demo.py --seconds 180 -- .venv/bin/python conntrack_monitor.py --via '{via}' --interval 8 --json --record fixtures/demo.rec

architecture: ## The table of modules in docs/architecture.md anew, from the files
	$(PYTHON) scripts/architecture.py

pictures: ## The README's pictures anew, from the bundled recording
	@scripts/bootstrap.sh test
	.venv/bin/python scripts/make_pictures.py

pyz: ## dist/conntrack-monitor.pyz: the program and its packages as one file
	@scripts/bootstrap.sh run
	.venv/bin/python scripts/build_pyz.py

wheel: ## dist/conntrack_monitor-VERSION-py3-none-any.whl, for pip, pipx and uv
	@scripts/bootstrap.sh run
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

deb: pyz ## dist/conntrack-monitor_VERSION_all.deb: the one file as a Debian package
	.venv/bin/python scripts/build_deb.py dist/conntrack-monitor.pyz

# --- releases: see RELEASE.md; .github/workflows has nothing but these and the targets above ---
.PHONY: release-set release-check release-notes release-files image-platforms image-login image-publish release-publish
release-set: ## VERSION=X.Y.Z into the program, the image's label and the changelog
	$(PYTHON) scripts/release.py set "$(VERSION)"

release-check: ## Do version, tag, changelog and image agree?
	@$(PYTHON) scripts/release.py check

release-notes: ## The changelog's newest section
	@$(PYTHON) scripts/release.py notes

release-files: ## All files of a release and no others, and their sums, in dist
	rm -rf dist
	@$(MAKE) --no-print-directory pyz wheel deb
	cd dist && sha256sum conntrack-monitor.pyz *.whl *.deb > SHA256SUMS

PLATFORMS := linux/amd64,linux/arm64
BUILDX = docker buildx build --platform $(PLATFORMS) --sbom=true --provenance=mode=max \
	$$($(PYTHON) scripts/release.py labels)

image-platforms: ## The image for amd64 and arm64, kept nowhere (needs buildx, and qemu for the other one)
	$(BUILDX) .

image-login: ## Log in where the image goes, as REGISTRY_USER with REGISTRY_PASSWORD
	@printenv REGISTRY_PASSWORD | docker login --username "$$REGISTRY_USER" --password-stdin $(firstword $(subst /, ,$(IMAGE)))

image-publish: release-check ## The same, pushed with its SBOM and provenance, as X.Y.Z and latest
	$(BUILDX) --push -t $(IMAGE):$$($(PYTHON) scripts/release.py version) -t $(IMAGE):latest .

release-publish: release-check ## A release of this tag with its notes and the files in dist (needs gh)
	$(PYTHON) scripts/release.py notes | gh release create "v$$($(PYTHON) scripts/release.py version)" --verify-tag \
		--title "$$($(PYTHON) scripts/release.py version)" --notes-file - \
		dist/conntrack-monitor.pyz dist/*.whl dist/*.deb dist/SHA256SUMS contrib/conntrack-monitor.service

clean: ## Remove what make made
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
