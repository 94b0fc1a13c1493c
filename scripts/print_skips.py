#!/usr/bin/env python3
"""What the last ctest run in a build folder skipped, and why: ctest keeps the output of a passing test to itself.
Also the tests that only `make soak` runs (DISABLED_): their reason is the comment above them.

  scripts/print_skips.py build/release

Exits 1 if a test was skipped or disabled without a reason."""
import collections
import pathlib
import re
import sys

SKIP = re.compile(r"^\S+:\d+: Skipped\n(.*?)\n*^\[  SKIPPED \] (\S+) \(", re.M | re.S)

DISABLED = re.compile(r"((?:^//.*\n)*)^TEST\w*\((\w+),\s*DISABLED_(\w+)\)", re.M)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def disabled():
    """(test, reason) of every disabled test in the sources."""
    for folder in ("src", "tests", "tools"):
        for file in sorted((ROOT / folder).rglob("*_test.cc")):
            for comment, suite, name in DISABLED.findall(file.read_text()):
                yield f"{suite}.{name}", " ".join(comment.replace("//", " ").split())


def main() -> int:
    log = pathlib.Path(sys.argv[1]) / "Testing/Temporary/LastTest.log"
    tests_of = collections.defaultdict(list)
    for reason, test in SKIP.findall(log.read_text(errors="replace")):
        tests_of[" ".join(reason.split())].append(test)
    for reason, tests in sorted(tests_of.items()):
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        print(f"skipped: {reason or 'NO REASON GIVEN'} ({tests[0]}{more})")
    without_reason = "" in tests_of
    for test, reason in disabled():
        print(f"disabled: {reason or 'NO REASON GIVEN'} ({test})")
        without_reason |= not reason
    return 1 if without_reason else 0


if __name__ == "__main__":
    sys.exit(main())
