# make demo, make test: both build the environment first (a no-op when it is current).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.current
WORKERS ?= 2
.PHONY: report bench-photos-lossless equal-budget bench-effort bench-speed-default env demo test test-long lint types linktree clean golden peers-env bench-image bench-speed bench-coder bench-lossless bench-climate bench-climate-bases
.DEFAULT_GOAL := demo

env: $(STAMP)

# torch comes first and pinned: an open range would fetch the CUDA build
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: env
	$(BIN)/latentpress demo -o out/demo

test: peers-env lint types
	$(BIN)/pytest -q -n $(WORKERS) -m "not long"

test-long: env
	$(BIN)/pytest -q -n $(WORKERS) -m long

lint: env
	$(BIN)/ruff check -q .

# mypy does not see through the editable finder, so it reads a tree of links
linktree:
	@mkdir -p .typecheck/latentpress
	@find .typecheck -xtype l -delete
	@for p in latentpress/*; do ln -sfn ../../$$p .typecheck/latentpress/$$(basename $$p); done
	@for p in codecs entropy eval train datasets; do ln -sfn ../../$$p .typecheck/latentpress/$$p; done

types: env linktree
	cd .typecheck && ../$(BIN)/mypy --config-file ../pyproject.toml -p latentpress --no-error-summary

clean:
	rm -rf $(VENV) .typecheck out

# CompressAI's metadata asks for numpy<2, though it works with numpy 2, so it comes without its dependencies
peers-env: $(VENV)/.peers

$(VENV)/.peers: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-deps compressai==1.2.8 torchvision==0.28.0
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[peers,compressai]"
	touch $(VENV)/.peers

# BENCH passes options on, as in: make bench-image BENCH="--jobs 2 --items kodim05 kodim19"; rows go to out/bench/kodak, which `latentpress report` shows
# everything in one run; rows of equal-budget models where `make equal-budget` has made them
EQUAL  := out/equal
RUNGS  := q=0,100
POINTS := q=0,14,28,42,56,70,85,100
EQUALS  = $(and $(wildcard $(EQUAL)/walloc-rgb),"walloc-rgb 12 min=$(EQUAL)/walloc-rgb@$(POINTS)") \
	$(and $(wildcard $(EQUAL)/bmshj2018-factorized),"factorized 12 min=$(EQUAL)/bmshj2018-factorized@$(RUNGS)") \
	$(and $(wildcard $(EQUAL)/mbt2018-mean),"mean-scale 12 min=$(EQUAL)/mbt2018-mean@$(RUNGS)")
bench-image: peers-env
	$(BIN)/python -P -m latentpress.eval.bench_image --readme README.md --jobs 2 --codecs walloc-rgb@$(POINTS) $(EQUALS) $(BENCH)

# the page, and the pictures of this README, from the rows of bench-image
report: env
	$(BIN)/latentpress report out/bench/kodak --static -o out/bench/kodak/report.html

# a part of Kodak: effort 9 takes minutes a megapixel
bench-effort: env
	$(BIN)/python -P -m latentpress.eval.bench_image --readme README.md --block effort --figures eval/figures/effort.json \
		--codecs walloc-rgb@q=14,42,70,100,effort=2,9 --items kodim01 kodim07 kodim13 kodim19 --jobs 2 -o out/bench/effort $(BENCH)

# our codec and two of CompressAI's, from scratch, with the same 12 minutes of processor time each (CompressAI's over two lambdas)
PHOTOS ?= ../shared/data/images/train
BUDGET := --data $(PHOTOS) --set clock=cpu --set threads=1 --set warmup=50 --set validate_every=100000
RUNG    = $(BIN)/latentpress train compressai/$(1) $(BUDGET) --set batch=4 --set ema=0.9 --lmbda $(2) --minutes $(3) --run runs/equal/$(1)-$(2) \
	--set rate=$(4) $(5) && $(BIN)/latentpress export runs/equal/$(1)-$(2) -o $(EQUAL)/$(1)-$(2) --overwrite
LADDER  = $(call RUNG,$(1),0.013,8,$(2)) && \
	$(call RUNG,$(1),0.0483,4,$(3),--weights runs/equal/$(1)-0.013/weights.safetensors) && \
	$(BIN)/python -P -m latentpress.codecs.compressai_ladder $(EQUAL)/$(1) $(foreach l,0.013 0.0483,$(EQUAL)/$(1)-$(l))
equal-budget: peers-env
	$(BIN)/latentpress train walloc-rgb $(BUDGET) --set batch=8 --set rate=2e-3 --minutes 12 --run runs/equal/walloc-rgb
	$(BIN)/latentpress export runs/equal/walloc-rgb -o $(EQUAL)/walloc-rgb --overwrite
	$(call LADDER,bmshj2018-factorized,1e-3,5e-4)
	$(call LADDER,mbt2018-mean,3e-4,2e-4)

bench-photos-lossless: env
	$(BIN)/python -P -m latentpress.eval.bench_lossless --readme README.md $(BENCH)

bench-speed: peers-env
	$(BIN)/python -P -m latentpress.eval.bench_speed --readme README.md --effort 0 --repeats 3 --images kodim05 kodim19 kodim23 $(BENCH)

bench-speed-default: env
	$(BIN)/python -P -m latentpress.eval.bench_speed --effort 2 --alone --no-scaling --repeats 3 --images kodim05 kodim19 kodim23 \
		--figures eval/figures/speed-default.json $(BENCH)

bench-lossless: peers-env bench-photos-lossless
	$(BIN)/python -P -m latentpress.eval.bench_arrays --readme README.md $(BENCH)
	$(BIN)/python -P -m latentpress.eval.bench_circuit_cost --readme README.md

# gridded fields: rows stay in out/bench/climate, so that peers are measured once; BENCH="--again lattice" measures ours again
bench-climate: peers-env
	$(BIN)/python -P -m latentpress.eval.bench_climate --readme README.md --plot docs/climate-cost.png --page out/bench/climate/report.html \
		--show era5_global_0p25_msl/msl --at 1 $(BENCH)
	$(BIN)/python -P -m latentpress.eval.bench_climate --readme README.md --single-planes $(BENCH)

# a base with a coded residual beside lattice alone, and what coding holds in memory
BASES := era5_global_1p0_surface/t2m era5_global_1p0_surface/msl eraint_global_0p75_uvz
bench-climate-bases: env
	$(BIN)/python -P -m latentpress.eval.bench_climate --codecs lattice bounded/vaeformer-field --peers --parts grid memory --bounds 10 1 --fields $(BASES) \
		-o out/bench/climate-bases --figures eval/figures/climate-bases.json --readme README.md --block climate-bases $(BENCH)

bench-coder: peers-env
	$(BIN)/python -P -m latentpress.eval.bench_coder $(BENCH)

# golden files prove that old files decode: written once a release, never after
golden: env
	LATENTPRESS_WRITE_GOLDEN=1 $(BIN)/pytest -q tests/test_exactness.py -k golden
