# make demo: a fresh machine to pictures.   make live: the same in a browser.   make test: the whole suite.
# make dist: the wheels of edgemtl and of its ready model.
# None needs a screen, a GPU, a board or sudo.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := $(shell sed -n 's/^DEFAULT = "\(.*\)".*/\1/p' edgemtl/bundle/models.py)
BUNDLE := build/$(MODEL).edgemtl
CHECKPOINT := edgemtl/model/weights/$(MODEL).safetensors
CLIP   := demos/homes.mp4
BOARD  := build/board.edgemtl
ROOMS_TINY := edgemtl/model/weights/rooms-tiny.safetensors
DEMO   := build/demo
ROOMS  := data/rooms7
BENCH  := $(BUNDLE) --subjects rooms,single:depth,stem:depth --precision fp32,int8 --threads 1,2 --calibrate $(ROOMS) --work build/bench
MODELS := build/models
READY  := build/ready/$(MODEL).edgemtl
SHIPPED := --precision f16 --target x86_64-avx2 --target x86_64-avx512 --target aarch64-a53 --target aarch64-a76
COMPILER := $(shell find compiler edgemtl/bundle edgemtl/graph edgemtl/model edgemtl/config.py -name '*.py' -o -name '*.cc' -o -name '*.h')

.PHONY: demo live demo-board dist contract test test-aarch64 test-gpu test-emulated-gpu test-web test-pynq nightly lint install bench clean
.DEFAULT_GOAL := demo

demo: $(BUNDLE)
	$(BIN)/python demos/camera.py $(BUNDLE) $(CLIP) --cycle 2 --overwrite -o $(DEMO)

live: $(BUNDLE)
	$(BIN)/python demos/camera.py $(BUNDLE) --web

# A model of transformer blocks alone on a virtual board (docs/board.md), which has no convolutions.
demo-board: $(BOARD)
	$(BIN)/python demos/camera.py $(BOARD) $(CLIP) --backend fpga-sim --cycle 2 --overwrite -o $(DEMO)-board

$(BUNDLE): $(VENV)/.installed $(CHECKPOINT) $(COMPILER)
	@mkdir -p build
	$(BIN)/edgemtl compile $(CHECKPOINT) --target cpu -o $@

$(BOARD): $(VENV)/.installed $(ROOMS_TINY) $(COMPILER) $(wildcard edgemtl/fpga/*.py)
	@mkdir -p build
	$(BIN)/edgemtl compile $(ROOMS_TINY) --target fpga -o $@

# Both wheels into dist/. The bundle's programs for aarch64 are cross-compiled.
dist: $(READY)
	rm -rf build/lib build/bdist.* $(MODELS) dist
	cp -r demos/models $(MODELS)
	cp $(READY) $(CLIP) $(MODELS)/edgemtl_models
	mkdir $(MODELS)/licenses
	cp LICENSE docs/third_party.md $(MODELS)/licenses
	cp edgemtl/model/weights/README.md $(MODELS)/licenses/weights.md
	$(BIN)/python -c 'import edgemtl; print(edgemtl.__version__)' > $(MODELS)/VERSION
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist . ./$(MODELS)
	@ls -l dist

$(READY): $(VENV)/.installed $(CHECKPOINT) $(COMPILER)
	@command -v aarch64-linux-gnu-g++ >/dev/null || \
	  { echo "A cross-compiler is missing: apt-get install g++-aarch64-linux-gnu"; exit 1; }
	@mkdir -p $(dir $@)
	$(BIN)/edgemtl compile $(CHECKPOINT) $(SHIPPED) -o $@

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find hls compiler tests -name '*.h' -o -name '*.cc' -o -name '*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/pytest -m "not slow"

# Emulated: needs a cross-compiler and qemu, and the package index for a Python of that machine.
test-aarch64: $(VENV)/.installed
	@{ command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64-static; } >/dev/null || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq g++-aarch64-linux-gnu qemu-user-static; } || \
	  { echo "These are missing: apt-get install g++-aarch64-linux-gnu qemu-user-static"; exit 1; }
	$(BIN)/pytest tests/compiler/test_aarch64.py
	$(BIN)/pytest tests/compiler -k aarch64 -m "not slow"

# The backend tvm-cuda on this machine's GPU: needs NVIDIA's driver and nvcc.
test-gpu: $(VENV)/.installed
	@$(BIN)/python -c 'from edgemtl.runtime.cuda import driver; reason = driver.unusable(); reason and exit(reason)'
	@$(BIN)/python -c 'from edgemtl_compiler.cuda import toolchain; toolchain.find_nvcc()' 2>&1 | tail -1 | grep . && exit 1 || true
	$(BIN)/pytest tests/suite -k tvm-cuda
	$(BIN)/pytest tests/runtime tests/compiler -k cuda

# The same cases in an emulation on the CPU, without a GPU.
test-emulated-gpu: $(VENV)/.installed
	EDGEMTL_TEST_EMULATED_GPU=1 $(BIN)/pytest tests/suite -k tvm-cuda

# The page in a real browser: apt-get install chromium.
test-web: $(VENV)/.installed
	$(BIN)/pytest tests/web tests/demos

# The accelerator's driver under stock pynq 4.0.0, which needs the package index once; see docs/board.md.
test-pynq: $(VENV)/.installed
	$(BIN)/pytest tests/fpga/test_second_door.py

# The long jobs too; those whose tools are missing say which (verilator, yosys, chromium, a cross-compiler, qemu).
nightly: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt "cocotb==1.9.2" || echo "no cocotb: its tests are skipped"
	$(BIN)/pytest

# Peers are exported and quantised first and kept in build/bench; then ten minutes are measured.
bench: $(BUNDLE) $(ROOMS)
	$(BIN)/pip show -q openvino nncf 2>/dev/null || $(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python demos/benchmark.py $(BENCH) --prepare-only
	$(BIN)/python demos/benchmark.py $(BENCH) --json docs/results/benchmark.json
	$(BIN)/python -m edgemtl.bench.report docs/results/benchmark.json docs/benchmark.md

$(ROOMS): $(VENV)/.installed
	$(BIN)/edgemtl data rooms --count 800 --val-share 0.8 --size 128x256 --seed 7 $@

lint: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find hls compiler tests -name '*.h' -o -name '*.cc' -o -name '*.cpp' | xargs $(BIN)/clang-format -i

install: $(VENV)/.installed

# What kernels and host agree on: the header follows edgemtl/fpga/contract.py.
contract: $(VENV)/.installed
	$(BIN)/python -m edgemtl_compiler.fpga.header > hls/include/contract.h.new
	mv hls/include/contract.h.new hls/include/contract.h

# The system parts that pip cannot bring: Python with venv, and a C++ compiler for the kernels.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@command -v g++ >/dev/null || \
	  { echo "A C++ compiler is missing: apt-get install g++"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf build dist
