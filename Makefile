# One door: each target does all of its own set-up. A fresh clone needs make and, on Debian 12, nothing else.
#
#   make demo   see it work        make test      what CI runs          make test-all  plus what takes long
#   make dev    .venv/bin/penstock make unit|border|integration|native  one suite  (ARGS="-k name" narrows it)
#   make lint | fmt | tidy         make asan | ubsan | tsan | fuzz | bench          make lock | clean

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
REPORTS := $(abspath build/reports)
JOBS := $(shell nproc)
ARGS ?=
FUZZ_SECONDS ?= 6

# ThreadSanitizer of gcc 12 cannot start under the address randomisation of some newer kernels.
NO_ASLR := $(shell setarch -R true 2>/dev/null && echo setarch -R)

# Tests start many Python processes: what one of them has compiled is kept for the others.
unexport PYTHONDONTWRITEBYTECODE

# A finding ends the test; these say more about it.
export ASAN_OPTIONS := detect_stack_use_after_return=1:strict_string_checks=1
export LSAN_OPTIONS := suppressions=$(abspath tests/native/lsan_suppressions.txt):print_suppressions=0
# A program does not wait a second at its end for races to show: tests end thousands of workers.
export TSAN_OPTIONS := halt_on_error=1:second_deadlock_stack=1:atexit_sleep_ms=0
export UBSAN_OPTIONS := print_stacktrace=1

BUILD_PACKAGES := g++ cmake ninja-build libprotozero-dev libnghttp2-dev libssl-dev zlib1g-dev python3-venv python3-dev
TEST_PACKAGES := libgtest-dev libgmock-dev clang-14 clang-format-14 libclang-rt-14-dev postgresql
# npm fetches Azurite; a Node.js from elsewhere than Debian brings its own.
SLOW_PACKAGES := libb64-0d slurm-wlm valgrind $(if $(shell command -v npm),,npm)
BENCH_PACKAGES := libbenchmark-dev libnghttp2-dev nghttp2-client
TIDY_PACKAGES := clang-tidy-14
# TorchServe's server is Java.
PEER_PACKAGES := default-jre-headless

SOURCES := $(wildcard csrc clients/cpp tests/native tests/fuzz bench/micro bench/gpu/native bench/mlperf/native)
PYTHON_TREES := $(wildcard server clients/python clients/gateway tests bench proto .ci/*.py setup.py)
TYPED_TREES := $(wildcard server/penstock clients/python/penstock_client clients/gateway/penstock_gateway tests proto/*.py bench/*.py bench/peers/*.py bench/mlperf/*.py bench/gpu/*.py)
CXX_FILES = $(shell find $(SOURCES) -name '*.h' -o -name '*.cc')
CMAKE_RELEASE = cmake --preset release -DPENSTOCK_OUTPUT_DIR=$(abspath server/penstock) >/dev/null
PYTEST = mkdir -p $(REPORTS) && $(BIN)/python -m pytest --junitxml=$(REPORTS)/$@.xml $(PROCESSES) $(ARGS)
CTEST = rm -rf $(REPORTS)/$@ && GTEST_OUTPUT=xml:$(REPORTS)/$@/ GTEST_BRIEF=1 $(NO_ASLR) ctest -j $(JOBS) --output-on-failure --no-tests=error $(ARGS)

.PHONY: demo test test-all dev build clean unit border integration grpcio slow fixture native asan ubsan tsan border-asan fuzz bench bench-peers loadgen lint fmt tidy lock

# ---- the two commands -------------------------------------------------------------------------

demo: build
	$(BIN)/penstock demo $(ARGS)

test: $(VENV)/locked $(STAMPS)/test-packages
	@$(BIN)/python .ci/tier.py dev lint unit asan fuzz tsan border integration

test-all: export FUZZ_SECONDS = 60
test-all: $(VENV)/locked $(STAMPS)/test-packages
	@$(BIN)/python .ci/tier.py dev lint unit native asan fuzz tsan border integration grpcio border-asan ubsan tidy slow

# ---- building ---------------------------------------------------------------------------------

dev: build
	@echo "ready: $(BIN)/penstock"

build: $(VENV)/installed
	@$(BIN)/python proto/generate.py
	@$(CMAKE_RELEASE) && cmake --build build/release -j $(JOBS)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache clients/python/build clients/python/dist clients/gateway/build clients/gateway/dist $(VENV)/installed
	rm -rf server/penstock/*.so server/penstock/backends server/penstock/_proto clients/python/penstock_client/_proto clients/gateway/penstock_gateway/_proto

# ---- tests ------------------------------------------------------------------------------------

unit: PROCESSES = -n $(JOBS)
unit: build
	$(PYTEST) -m "not slow" tests/unit

border: fixture
	$(PYTEST) -m "not slow" tests/border

# In more processes than there are cores: most of these tests wait. (ARGS="-n 0 --pdb": in one, to look inside.)
integration grpcio: PROCESSES = -n $$((2 * $(JOBS))) --dist loadgroup --no-loadscope-reorder
integration: fixture $(STAMPS)/test-packages
	$(PYTEST) -m "not slow" $(wildcard tests/integration tests/clients tests/chaos tests/regressions)

# What `integration` tries by our transport alone, by that which is there without it.
grpcio: fixture $(STAMPS)/test-packages
	$(PYTEST) -m "not slow" --transport all -k grpcio $(wildcard tests/integration tests/chaos)

slow: fixture loadgen $(STAMPS)/slow-packages $(STAMPS)/bench-packages $(STAMPS)/prometheus
	@$(CMAKE_RELEASE) -DPENSTOCK_BUILD_BENCH=ON && cmake --build build/release -j $(JOBS) --target bench/micro/all
	$(PYTEST) -m slow --transport all tests

# The backend that servers started by tests may load, in build/release/testing/backends; never in the package.
fixture: build
	@cmake --build build/release -j $(JOBS) --target penstock_fixture penstock_fake_driver penstock_device_fixture

native: build $(STAMPS)/test-packages
	@$(CMAKE_RELEASE) -DPENSTOCK_BUILD_TESTS=ON && cmake --build build/release -j $(JOBS) --target tests/native/all
	$(CTEST) --test-dir build/release

# With clang, and so analysed for thread safety: all that has locks.
asan: ALSO = all
asan ubsan tsan: $(VENV)/locked $(STAMPS)/test-packages
	@cmake --preset $@ >/dev/null && $(NO_ASLR) cmake --build build/$@ -j $(JOBS) --target $(ALSO) tests/native/all
	$(CTEST) --test-dir build/$@

# The border suite with an instrumented core: the package's files, linked, beside asan's products.
OVERLAY = $(abspath build/asan/overlay)
border-asan: fixture
	@cmake --preset asan >/dev/null && cmake --build build/asan -j $(JOBS) --target all _core && rm -rf $(OVERLAY) && mkdir -p $(OVERLAY)
	@cp -rs $(abspath server/penstock) $(OVERLAY) && cp -rsf $(abspath build/asan/penstock)/. $(OVERLAY)/penstock
	export PYTHONPATH=$(OVERLAY) ASAN_OPTIONS=$(ASAN_OPTIONS):detect_leaks=0 LD_PRELOAD="$$(clang++-14 -print-file-name=libclang_rt.asan-x86_64.so) $$(g++ -print-file-name=libstdc++.so)"; $(PYTEST) tests/border

# Two logs at a time would be unreadable: each goes to a file, of which the end is shown.
fuzz: $(VENV)/locked $(STAMPS)/test-packages
	@cmake --preset asan >/dev/null && cmake --build build/asan -j $(JOBS) --target tests/fuzz/all
	@mkdir -p $(REPORTS) && basename -s .cc tests/fuzz/*.cc | xargs -P $(JOBS) -I @ sh -c 'mkdir -p build/asan/corpus/@; \
	    build/asan/tests/fuzz/@ -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/asan/@- build/asan/corpus/@ tests/fuzz/seeds/@ \
	    >$(REPORTS)/@.log 2>&1 || { tail -n 60 $(REPORTS)/@.log; exit 255; }; echo "@: $$(tail -n 1 $(REPORTS)/@.log)"'

bench: build loadgen $(STAMPS)/bench-packages
	@$(CMAKE_RELEASE) -DPENSTOCK_BUILD_BENCH=ON && cmake --build build/release -j $(JOBS) --target bench/micro/all
	$(BIN)/python bench/native.py $(ARGS)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/transport.py
	$(BIN)/python bench/openvino_serving.py
	$(BIN)/python bench/python_models.py
	$(BIN)/python bench/native_transport.py --rounds 3
	$(BIN)/python bench/store.py --mib 256
	$(BIN)/python bench/soak.py --minutes 1

# Penstock beside other servers, installed into build/peers (ARGS="--only penstock mosec --rounds 1": less of it).
bench-peers: build $(STAMPS)/bench-packages $(STAMPS)/peer-packages
	@$(CMAKE_RELEASE) -DPENSTOCK_BUILD_BENCH=ON && cmake --build build/release -j $(JOBS) --target bench/micro/all
	$(BIN)/python -m bench.peers $(ARGS)

# The native system under test of bench/mlperf, with LoadGen's sources: those of the pinned release, by its hash.
LOADGEN := $(abspath build/loadgen)
loadgen: build $(LOADGEN)/VERSION.txt
	@$(CMAKE_RELEASE) -DPENSTOCK_LOADGEN_DIR=$(LOADGEN) && cmake --build build/release -j $(JOBS) --target _penstock_loadgen

$(LOADGEN)/VERSION.txt: requirements.lock | $(VENV)/locked
	@rm -rf $(LOADGEN).new && mkdir -p $(LOADGEN).new && sed -n '/^mlcommons-loadgen==/,/[^\\]$$/p' $< >$(LOADGEN).new/requirement.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation --no-binary :all: --dest $(LOADGEN).new -r $(LOADGEN).new/requirement.txt
	@tar xzf $(LOADGEN).new/mlcommons_loadgen-*.tar.gz -C $(LOADGEN).new --strip-components=1
	@rm -rf $(LOADGEN) && mv $(LOADGEN).new $(LOADGEN) && touch $@

# ---- lint -------------------------------------------------------------------------------------

lint: build $(STAMPS)/test-packages
	$(BIN)/ruff check $(PYTHON_TREES) && $(BIN)/ruff format --check $(PYTHON_TREES)
	$(BIN)/mypy $(TYPED_TREES)
	$(BIN)/stubtest penstock._core --mypy-config-file pyproject.toml --allowlist tests/border/stubtest_allowlist.txt
	clang-format-14 --dry-run -Werror $(CXX_FILES)

fmt: $(VENV)/locked $(STAMPS)/test-packages
	$(BIN)/ruff check --fix-only --quiet $(PYTHON_TREES) && $(BIN)/ruff format $(PYTHON_TREES)
	clang-format-14 -i $(CXX_FILES)

# What this machine can build, file by file: the side of TensorRT needs its headers.
tidy: build $(STAMPS)/test-packages $(STAMPS)/tidy-packages
	@cmake --preset dev >/dev/null
	sed -n 's|^ *"file": "\(.*/csrc/.*\.cc\)",\{0,1\}$$|\1|p' build/dev/compile_commands.json | sort -u | xargs -P $(JOBS) -n 1 clang-tidy-14 --quiet --extra-arg=-Wno-return-type-c-linkage -p build/dev

# ---- set-up: stamps make the second run quick -------------------------------------------------

$(STAMPS)/build-packages: PACKAGES = $(BUILD_PACKAGES)
$(STAMPS)/test-packages: PACKAGES = $(TEST_PACKAGES)
$(STAMPS)/slow-packages: PACKAGES = $(SLOW_PACKAGES)
$(STAMPS)/bench-packages: PACKAGES = $(BENCH_PACKAGES)
$(STAMPS)/tidy-packages: PACKAGES = $(TIDY_PACKAGES)
$(STAMPS)/peer-packages: PACKAGES = $(PEER_PACKAGES)
$(STAMPS)/%-packages: .ci/debian-packages Makefile
	@.ci/debian-packages $(PACKAGES) && mkdir -p $(STAMPS) && touch $@

# Unpacked and not installed: the package would start a service.
$(STAMPS)/prometheus: $(STAMPS)/slow-packages
	@mkdir -p build/prometheus && cd build/prometheus && rm -f *.deb && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && touch $(abspath $@)

$(BIN)/pip: | $(STAMPS)/build-packages
	@python=$$(.ci/find-python) && "$$python" -m venv $(VENV)

$(VENV)/locked: requirements.lock | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock && touch $@

# The editable installs; CMake configures and builds build/release on the way.
$(VENV)/installed: $(VENV)/locked pyproject.toml setup.py clients/python/pyproject.toml clients/gateway/pyproject.toml CMakePresets.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e clients/python -e clients/gateway -e . && touch $@

lock: $(VENV)/locked
	$(BIN)/python .ci/lock.py $(ARGS)
