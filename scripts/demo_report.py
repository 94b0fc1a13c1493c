#!/usr/bin/env python3
"""What `make demo` prints: a few answers, the share of exact ones, the receipt, one line of the benchmark.

Fails where the claim would be hollow: answers that are wrong or differ between the two ways, nothing shared."""
import json
import pathlib
import statistics
import sys


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def main() -> int:
    work = pathlib.Path(sys.argv[1])
    asked = lines(work / "shop.jsonl")
    rounds = {way: [lines(path) for path in sorted(work.glob(f"{way}.*.jsonl"))]
              for way in ("two-phase", "per-sequence")}
    *answers, last = rounds["two-phase"][0]
    receipt = last["summary"]
    speed = {way: statistics.median(r[-1]["summary"]["timings"]["tokens_per_second"] for r in taken)
             for way, taken in rounds.items()}

    shop = asked[0]["prompt"].split("\n")[0]
    print(f"\nOne shop, {len(asked)} users. The shop's text begins:\n  {shop[:230]} ...\n")
    exact = 0
    for i, (ask, answer) in enumerate(zip(asked, answers)):
        want = json.loads(ask["id"])
        right = answer["text"] == want["expected"] and answer["finish_reason"] == "stop"
        exact += right
        if i < 6:
            mark = "exact" if right else f"not exact, should be{want['expected']}"
            print(f"  {want['question']}{answer['text']}   ({mark})")
    usage, kv = receipt["usage"], receipt["kv"]
    print(f"\nanswers exact                 {exact} of {len(asked)}")
    print(f"prompt tokens                 {usage['prompt_tokens']}, of them cached {usage['cached_tokens']}, "
          f"evaluated {usage['prompt_tokens'] - usage['cached_tokens']}")
    print(f"KV bytes held at the peak     {kv['bytes_held']:,} against {kv['bytes_unshared']:,} unshared "
          f"({kv['sharing_factor']:.1f}x)")
    print(f"tokens per second             {speed['two-phase']:.0f} two-phase, {speed['per-sequence']:.0f} per-sequence "
          f"(medians of {len(rounds['two-phase'])} in turn; the bundled model is small)")
    same = all([a["tokens"] for a in r[:-1]] == [a["tokens"] for a in answers]
               for taken in rounds.values() for r in taken)
    print(f"same answers in both          {'yes' if same else 'NO'}")

    bench = lines(work / "bench.jsonl")
    for b in bench:
        print(f"\nattention, the paper's shape ({b['heads']}/{b['kv_heads']} heads, D {b['head_dim']}, batch {b['batch']}, "
              f"{b['shared']} shared + {b['private']} private tokens), one layer and step:\n"
              f"  two-phase {b['two_phase_us'] / 1000:.1f} ms; shared pages, one sequence at a time "
              f"{b['per_sequence_us'] / 1000:.1f} ms; private copies {b['per_sequence_unshared_us'] / 1000:.1f} ms "
              f"({b['per_sequence_unshared_us'] / b['two_phase_us']:.1f}x)")
    failures = [what for what, holds in {
        "at least nine answers in ten are exact": exact * 10 >= 9 * len(asked),
        "both ways answer alike": same,
        "the prefix is held once": kv["sharing_factor"] > 5,
        "the benchmark ran": len(bench) == 1,
    }.items() if not holds]
    for what in failures:
        print(f"demo: this does not hold: {what}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
