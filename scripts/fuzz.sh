#!/usr/bin/env bash
# Runs every fuzzer for SECONDS on a copy of its committed corpus. Usage: scripts/fuzz.sh BUILD SECONDS
set -euo pipefail
build=$1 seconds=$2
cd "$(dirname "$0")/.."
count=0
for fuzzer in "$build"/fuzz/*_fuzz; do
  name=$(basename "$fuzzer" _fuzz)
  [[ -d fuzz/corpus/$name ]] || { echo "fuzz: fuzz/corpus/$name is missing" >&2; exit 1; }
  work=$build/corpus/$name
  mkdir -p "$work" "$build/findings"
  echo "fuzz: $name for $seconds s"
  "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$name-" "$work" "fuzz/corpus/$name" > "$build/$name.log" 2>&1 \
    || { tail -40 "$build/$name.log"; echo "fuzz: $name FAILED, input in $build/findings" >&2; exit 1; }
  grep -E 'number_of_executed_units' "$build/$name.log" || { tail -20 "$build/$name.log"; exit 1; }
  count=$((count + 1))
done
[[ $count -gt 0 ]] || { echo "fuzz: no fuzzer was built" >&2; exit 1; }
echo "$count passed, 0 failed"
