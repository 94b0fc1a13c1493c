# What people type. Everything else is CMake (presets in CMakePresets.json).
#   make demo        build and see it work: 32 users, one shared prompt
#   make test        everything that must hold (release, sanitizers, fuzzers)
#   make train       coppice-train (libtorch);  make test-train: its tests
#   make soak        the long forms of the property tests, drills and fuzzers
#   make format      clang-format over the tree
#   make install     into PREFIX (default /usr/local)
SHELL := /bin/bash
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
UNIT_TESTS := base_test tensor_test gate_plan_test ops_test text_test kv_test model_test engine_test eval_test eviction_test tools_test
CTEST := ctest --output-on-failure --no-tests=error

.PHONY: all release demo test checks test-release test-dev test-tsan test-fuzz train test-train soak format install clean

all: release

release:
	@scripts/setup.sh build
	@cmake --preset release -DCOPPICE_TESTS=OFF > /dev/null
	@cmake --build --preset release -j $(JOBS)

demo: release
	@scripts/demo.sh build/release

test: checks test-release test-dev test-tsan test-fuzz

checks:
	@scripts/setup.sh build test
	scripts/check_floors.py
	scripts/check_sizes.py
	scripts/check_format.sh

test-release:
	@scripts/setup.sh build test
	cmake --preset release -DCOPPICE_TESTS=ON > /dev/null
	cmake --build --preset release -j $(JOBS)
	cd build/release && $(CTEST)
	@scripts/print_skips.py build/release

test-dev:
	@scripts/setup.sh build test
	cmake --preset dev > /dev/null
	cmake --build --preset dev -j $(JOBS) --target $(UNIT_TESTS)
	cd build/dev && $(CTEST) -L unit
	@scripts/print_skips.py build/dev

test-tsan:
	@scripts/setup.sh build test
	cmake --preset tsan > /dev/null
	cmake --build --preset tsan -j $(JOBS) --target ops_test engine_test planted_race
	cd build/tsan && $(CTEST) -R '^(ops_test|engine_test|planted_race)$$'
	@scripts/print_skips.py build/tsan

test-fuzz:
	@scripts/setup.sh build test
	cmake --preset fuzz > /dev/null
	cmake --build --preset fuzz -j $(JOBS) --target fuzzers
	scripts/fuzz.sh build/fuzz 20

train:
	@scripts/setup.sh build train
	cmake --preset train -DCOPPICE_TESTS=OFF > /dev/null
	cmake --build --preset train -j $(JOBS) --target coppice-train

test-train:
	@scripts/setup.sh build test train
	cmake --preset train -DCOPPICE_TESTS=ON > /dev/null
	cmake --build --preset train -j $(JOBS) --target coppice-train train_test eval_test
	cd build/train && $(CTEST) -R '^(train_test|eval_test)$$'
	@scripts/print_skips.py build/train

soak: test-release
	cmake --preset fuzz > /dev/null
	cmake --build --preset fuzz -j $(JOBS) --target fuzzers
	scripts/soak.sh build/release build/fuzz

format:
	@scripts/setup.sh test
	git ls-files '*.h' '*.cc' | xargs clang-format-14 -i

install: release
	cmake --install build/release --prefix $(PREFIX)

clean:
	rm -rf build
