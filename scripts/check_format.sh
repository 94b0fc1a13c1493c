#!/usr/bin/env bash
# Fails when clang-format 14 would change a tracked source file. `make format` mends it.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files '*.h' '*.cc' | xargs -r clang-format-14 --dry-run --Werror
