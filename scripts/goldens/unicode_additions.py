#!/usr/bin/env python3
"""Writes src/text/unicode_additions.inc: where the reference tokenizer's Unicode tables differ from
PCRE2's (Unicode 14) and utf8proc's.

The reference (`tokenizers` 0.23.3) matches patterns with Unicode 16 and normalises with Unicode 9.
Needs that package and a Python whose unicodedata is version 14 (3.11).

    python3 scripts/goldens/unicode_additions.py > src/text/unicode_additions.inc
"""

import sys
import unicodedata

from tokenizers import Regex, normalizers
from tokenizers.pre_tokenizers import Digits, Split

assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split()


def members(pre_tokenizer, code_points):
    """The code points that the pre-tokenizer keeps (it must remove all others)."""
    found = set()
    for i in range(0, len(code_points), 4096):
        block = code_points[i : i + 4096]
        for _, (begin, end) in pre_tokenizer.pre_tokenize_str("".join(map(chr, block))):
            found.update(block[begin:end])
    return found


def of_property(name, code_points):
    return members(Split(Regex(rf"\p{{{name}}}"), "removed", invert=True), code_points)


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def unknown_to_normalizer(marks_and_more):
    """Code points that have a combining class or decomposition today and none in the reference."""
    nfc, nfkd = normalizers.NFC(), normalizers.NFKD()
    unknown = set()
    for c in marks_and_more:
        # U+0345 has the highest class, 240: any known mark moves before it.
        moves = nfc.normalize_str("a\u0345" + chr(c)) != "a\u0345" + chr(c)
        combines = unicodedata.combining(chr(c)) or unicodedata.category(chr(c)) == "Cn"
        if combines and not moves and c != 0x345:
            unknown.add(c)
    for c in ALL:
        if nfkd.normalize_str(chr(c)) != unicodedata.normalize("NFKD", chr(c)):
            unknown.update(map(ord, unicodedata.normalize("NFD", chr(c))[1:]), [c])
    return unknown


def table(kind, name, rows):
    print(f"constexpr {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        if len(line) + len(row) + 2 > 98:
            print(line)
            line = "   "
        line += " " + row + ","
    print(line)
    print("};")


def main():
    unassigned = [c for c in ALL if unicodedata.category(chr(c)) == "Cn"]
    assigned = [c for c in ALL if unicodedata.category(chr(c)) != "Cn"]
    print("// Made by scripts/goldens/unicode_additions.py; do not edit.")
    print("// Assigned after Unicode 14, by general category (and script Han), as the reference has it.")
    rows, marks = [], set()
    for name in CATEGORIES + ["Han"]:
        new = of_property(name, unassigned)
        rows += [f'{{"{name}", 0x{a:x}, 0x{b:x}}}' for a, b in ranges(new)]
        if name != "Han":
            old = of_property(name, assigned)
            changed = old ^ {c for c in assigned if unicodedata.category(chr(c)) == name}
            if changed:
                print(f"{name} changed: {sorted(map(hex, changed))}", file=sys.stderr)
        if name[0] == "M":
            marks |= old | new
    numeric = {c for c in ALL if len(Digits(True).pre_tokenize_str("a" + chr(c))) == 2}
    for a, b in ranges(numeric - of_property("N", ALL)):
        rows.append(f'{{"Digits", 0x{a:x}, 0x{b:x}}}')
    table("Addition", "kAdditions", rows)
    print("// Characters the reference's normalizer leaves as they are: newer than its Unicode 9.")
    table("Range", "kNotNormalized", [f"{{0x{a:x}, 0x{b:x}}}" for a, b in ranges(unknown_to_normalizer(marks))])


if __name__ == "__main__":
    main()
