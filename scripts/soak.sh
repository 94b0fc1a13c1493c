#!/usr/bin/env bash
# The long forms: the cache's property test with fifty times the operations, promise 3 and the drills ten times over,
# quantised weights at the size of a real model, every fuzzer for ten minutes. Usage: scripts/soak.sh RELEASE_BUILD FUZZ_BUILD
set -euo pipefail
release=$1 fuzz=$2
cd "$(dirname "$0")/.."
"$release/src/kv/kv_test" --gtest_filter='*Property*' --ops=10000000 --seed="$RANDOM"
"$release/tests/drills_test" --gtest_repeat=10 --gtest_brief=1
"$release/tests/promise3_test" --gtest_repeat=3 --gtest_brief=1
"$release/src/model/model_test" --gtest_also_run_disabled_tests --gtest_filter='*At1B*' --gtest_brief=1
scripts/fuzz.sh "$fuzz" 600
