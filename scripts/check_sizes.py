#!/usr/bin/env python3
"""Prints lines per room; fails when a source file outgrows what one thing should need."""
import collections
import pathlib
import subprocess
import sys

LIMIT = 700  # lines in one file


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    files = subprocess.run(["git", "ls-files", "src", "include", "tools", "tests", "fuzz", "examples", "scripts"],
                           cwd=root, capture_output=True, text=True, check=True).stdout.split()
    product, tests, large = collections.Counter(), collections.Counter(), []
    for name in files:
        path = root / name
        if path.suffix not in {".h", ".cc", ".cu", ".cuh", ".py"} or not path.exists():
            continue
        lines = path.read_text().count("\n")
        parts = pathlib.PurePath(name).parts
        room = "/".join(parts[:2]) if parts[0] == "src" else parts[0]
        (tests if "_test" in path.stem or parts[0] == "tests" else product)[room] += lines
        if lines > LIMIT:
            large.append(f"{name}: {lines} lines, more than {LIMIT}: is it about one thing?")
    for room in sorted(set(product) | set(tests)):
        print(f"{room:16} {product[room]:6} product {tests[room]:6} test")
    print(f"{'total':16} {sum(product.values()):6} product {sum(tests.values()):6} test")
    for line in large:
        print(line)
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main())
