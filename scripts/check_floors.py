#!/usr/bin/env python3
"""Includes go down the floors, or sideways where no cycle arises (architecture, section 2).

Also: F3's rooms (kv, model) never include each other, and only src/train may name Torch.
Exits 1 and lists every offence.
"""
import pathlib
import re
import sys

FLOORS = {"base": 0, "tensor": 1, "ops": 2, "text": 2, "kv": 3, "model": 3, "engine": 4, "eval": 4,
          "eviction": 5, "server": 5, "train": 5}
APART = {("kv", "model"), ("model", "kv")}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    offences, edges = [], {room: set() for room in FLOORS}
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
            continue
        room = path.relative_to(root / "src").parts[0]
        name = path.relative_to(root)
        if room not in FLOORS:
            offences.append(f"{name}: no floor is known for room {room}")
            continue
        for included in INCLUDE.findall(path.read_text()):
            if included.startswith("torch/") and room != "train":
                offences.append(f"{name}: only src/train may include {included}")
            target = included.split("/")[0]
            if target not in FLOORS or target == room:
                continue
            if FLOORS[target] > FLOORS[room]:
                offences.append(f"{name}: upward include of {included}")
            if (room, target) in APART:
                offences.append(f"{name}: {room} and {target} stay apart, includes {included}")
            if not path.stem.endswith("_test"):
                edges[room].add(target)
    for path in sorted((root / "include").rglob("*.h")):
        for included in INCLUDE.findall(path.read_text()):
            if included.split("/")[0] in FLOORS:
                offences.append(f"{path.relative_to(root)}: the public face includes {included}")

    def reaches(start: str, goal: str, seen: set) -> bool:
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in edges[start])

    offences += [f"room {room}: part of an include cycle" for room in FLOORS if reaches(room, room, {room})]
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
