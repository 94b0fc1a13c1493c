#!/usr/bin/env python3
"""Writes the hand-made seeds of the tokenizer fuzzer into fuzz/corpus/tokenizer/ (Python alone suffices)."""

import copy
import json
import pathlib

CORPUS = pathlib.Path(__file__).resolve().parents[2] / "fuzz" / "corpus" / "tokenizer"


def added(id_, content, **flags):
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": id_, "content": content} | {name: flags.get(name, False) for name in names}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BASE = {
    "version": "1.0",
    "added_tokens": [added(3, "<s>", special=True)],
    "normalizer": None,
    "pre_tokenizer": BYTE_LEVEL,
    "post_processor": None,
    "decoder": BYTE_LEVEL,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
}


def put(name, data):
    (CORPUS / name).write_bytes(data)


def variants():
    """(name, path of keys, value)"""
    split = {"type": "Split", "pattern": {"Regex": "\\s+|\\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}
    template = {"type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}}
    yield "base", "version", "1.0"
    yield "version", "version", "2"
    yield "pairs", "model.merges", [["a", "b"]]
    for i, bad in enumerate([{}, ["ab"], [["a"]], [1], ["a x"], ["#version: 0.2", "b a"]]):
        yield f"merges{i}", "model.merges", bad
    for i, bad in enumerate([[], {"a": -1}, {"a": 0, "b": 0}, {"a": 5}, {"a": "0"}, {"a": 1e9}]):
        yield f"vocab{i}", "model.vocab", bad
    for key, values in {"dropout": [0, 0.5, "x"], "unk_token": ["a", "z", 1], "fuse_unk": [True, 1], "byte_fallback": [True],
                        "ignore_merges": [True], "type": ["Unigram", 1], "end_of_word_suffix": ["", "</w>", 1]}.items():
        for i, value in enumerate(values):
            yield f"{key}{i}", f"model.{key}", value
    tokens = [[added(3, "<s>", lstrip=True, rstrip=True), added(4, "é", normalized=True, single_word=True)],
              [added(0, "a")], [added(9, "x")], [added(3, "x"), added(4, "x")], [added(3, "")], {}, [1], [{"id": 3}],
              [added(3, "\u00c5", normalized=True), added(4, "A\u030a", normalized=True)]]
    for i, value in enumerate(tokens):
        yield f"added{i}", "added_tokens", value
    nfc = {"type": "NFC"}
    for i, value in enumerate([nfc, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Strip"}, 1,
                               {"type": "Sequence", "normalizers": [nfc, nfc]}, {"type": "Sequence"}]):
        yield f"normalizer{i}", "normalizer", value
    pre = [None, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True},
           {"type": "Digits", "individual_digits": False}, {"type": "Metaspace"}, {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
           {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, BYTE_LEVEL]}, BYTE_LEVEL | {"add_prefix_space": True, "use_regex": False},
           split | {"pattern": {"String": " "}}, split | {"pattern": {}}, split | {"pattern": {"Regex": "(?<x>a)"}},
           split | {"pattern": {"Regex": "(a"}}, split | {"behavior": "x"}]
    pre += [split | {"behavior": b, "invert": b < "M"} for b in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")]
    for i, value in enumerate(pre):
        yield f"pre{i}", "pre_tokenizer", value
    for i, value in enumerate([template, BYTE_LEVEL, {"type": "Sequence", "processors": [BYTE_LEVEL, template]},
                               {"type": "Sequence", "processors": [template, template]}, {"type": "BertProcessing"},
                               template | {"single": []}, template | {"single": [{"Sequence": {"id": "B"}}]},
                               template | {"special_tokens": {}}, template | {"special_tokens": {"<s>": {"ids": [99]}}}]):
        yield f"post{i}", "post_processor", value
    for i, value in enumerate([None, {"type": "Sequence", "decoders": [BYTE_LEVEL, {"type": "Fuse"}]}, {"type": "WordPiece"},
                               {"type": "Sequence", "decoders": []}, {"type": "Sequence", "decoders": [BYTE_LEVEL, BYTE_LEVEL]}]):
        yield f"decoder{i}", "decoder", value


PATTERNS = ["a|b\nxaby", "\\s+(?!\\S)|\\s+\na  b ", "(?i:'s|'t)|\\p{L}+|\\P{N}\nIt's 1", "[^\\r\\n\\p{L}]?\\p{N}{1,3}+\na123", "^a|b$\na\nb",
            "x{,2}y|(?:ab){2}?\nxxyabab", "[^(\\s|[.,])]+\na.b", "\\w+|\\W|\\d|\\D|\\h|\\H|\\S\na1 ", "[\\w\\s\\d\\h\\S\\D\\P{L}\\p{^N}\\b\\v]\n\v",
            "(?m:a.)|(?i)x\na\n", "\\u00e9|\\x41|\\x{42}|\\t\nA", "(?<=a)b(?<!c)d(?=e)(?>f)\nabde", "\\p{Han}|\\p{Zs}\n\u4e2d", "(?:a|aa)+$x\naaaa",
            "[a&&b]", "\\G", "(?x)a", "a(?i)b", "\\", "[", "(", ")", "[[:a:]]", "\\xff", "\\x{", "\\p", "\\p{L", "[a-[b]]", "[[a]-b]", "a{2}+?*", "", "\\A\\z\\Z\\1", "x*\naxb",
            "(*F)", "[]", "[\\W]", "\\u1", "\\x{zz}", "\\p{-}", "a{x}|{"]
TEXTS = ["Hello  world, it's 12345!\n\n\tThe end. ", "<|begin_of_text|>user<|eot_id|> <mask> coppice [both] \t", "e\u0301toile A\u030a \u0915\u093c \uac01 \ufdfa",
         "\u1100\u1161\u11a8\u0301\u0323\u0898\u0301", "\U0001f468\u200d\U0001f469 \U0001e4f1 \u180e\u3000"]


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, path, value in variants():
        config = copy.deepcopy(BASE)
        *way, last = path.split(".")
        here = config
        for key in way:
            here = here[key]
        here[last] = value
        put(name, json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode())
    put("twice", b'{"version":"1.0","version":"1.0"}')
    put("deep", b'{"normalizer":' + b"[" * 70 + b"]" * 70 + b"}")
    put("number", b'{"model":1e999}')
    put("not_utf8", b'{"model":"\xff"}')
    for i, pattern in enumerate(PATTERNS):
        put(f"pattern{i}", b"P" + pattern.encode())
    put("pattern_bytes", b"P[\xff]")
    put("pattern_bytes_bare", b"P\xff\\\xff")
    for i, text in enumerate(TEXTS):
        put(f"text{i}", b"T" + text.encode())
    put("text_broken", b"Ta\xff\xe4\xb8 \xf0\x9f\x98 \xed\xa0\x80\xc0b")
    put("ids", b"D" + bytes(range(1, 61)))


if __name__ == "__main__":
    main()
