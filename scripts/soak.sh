#!/usr/bin/env bash
# The long forms: property tests at 50 times the operations, fuzzers for ten minutes each.
# Usage: scripts/soak.sh RELEASE_BUILD FUZZ_BUILD
set -euo pipefail
release=$1 fuzz=$2
cd "$(dirname "$0")/.."
COPPICE_TEST_SCALE=50 "$release/src/kv/kv_test"
COPPICE_TEST_SCALE=10 "$release/src/engine/engine_test"
scripts/fuzz.sh "$fuzz" 600
