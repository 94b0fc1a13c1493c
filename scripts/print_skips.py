#!/usr/bin/env python3
"""What the last ctest run in a build folder skipped, and why: ctest keeps the output of a passing test to itself.

  scripts/print_skips.py build/release

Exits 1 if a test was skipped without a reason."""
import collections
import pathlib
import re
import sys

SKIP = re.compile(r"^\S+:\d+: Skipped\n(.*?)\n*^\[  SKIPPED \] (\S+) \(", re.M | re.S)


def main() -> int:
    log = pathlib.Path(sys.argv[1]) / "Testing/Temporary/LastTest.log"
    tests_of = collections.defaultdict(list)
    for reason, test in SKIP.findall(log.read_text(errors="replace")):
        tests_of[" ".join(reason.split())].append(test)
    for reason, tests in sorted(tests_of.items()):
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        print(f"skipped: {reason or 'NO REASON GIVEN'} ({tests[0]}{more})")
    return 1 if "" in tests_of else 0


if __name__ == "__main__":
    sys.exit(main())
