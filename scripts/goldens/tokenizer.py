#!/usr/bin/env python3
"""Writes tests/data/tokenizer: small vocabularies and the answers of `tokenizers` 0.23.3 to many texts.

    python3 scripts/goldens/tokenizer.py

texts.jsonl        one text a line
NAME.json          a tokenizer.json, trained here
NAME.ids.jsonl     for each text its ids, without what the post-processor adds
NAME.decode.jsonl  {"ids", "kept", "plain"}: ids to text with and without special tokens
stages.jsonl       {"name", "base", "patch", "cases"}: NAME.json with members replaced; case: [text, ids, ids with specials]
classes.json       {pattern: [first, last, ...]}: the characters a one-character pattern matches
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizer_texts import SENTENCES, sentence, texts

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "tokenizer"
VOCAB = 1400

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def split(pattern, behavior="Isolated", invert=False):
    kind = "String" if pattern.startswith("=") else "Regex"
    return {"type": "Split", "pattern": {kind: pattern.removeprefix("=")}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def train(pre_tokenizer, normalizer, ignore_merges):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(7)
    corpus = SENTENCES + [sentence(rng) for _ in range(3000)]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def gpt2():
    t = train(pre_tokenizers.ByteLevel(add_prefix_space=False), None, False)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens([AddedToken("<|endoftext|>", special=True),
                          AddedToken("<mask>", special=True, lstrip=True),
                          AddedToken("<|end", special=True, rstrip=True)])
    t.add_tokens([AddedToken("coppice", single_word=True), AddedToken("  ", normalized=False),
                  AddedToken("\u4e2d\u6587", normalized=False), AddedToken("[both]", lstrip=True, rstrip=True)])
    return t


def llama3():
    t = train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), None, True)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    t.add_special_tokens(names + [f"<|reserved_special_token_{i}|>" for i in range(12)])
    template = processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B",
                                             special_tokens=[(names[0], t.token_to_id(names[0]))])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return t


def qwen2():
    t = train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
              normalizers.NFC(), False)
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False),
                  AddedToken("e\u0301toile", normalized=True), AddedToken("A\u030a", normalized=False)])
    return t


SPECIALS = ["<|endoftext|>", "<mask>", "<|end", "coppice", "  ", "\u4e2d\u6587", "[both]", "<|begin_of_text|>", "<|eot_id|>",
            "<|start_header_id|>", "<|reserved_special_token_1|>", "<|reserved_special_token_11|>", "<|im_start|>",
            "<|im_end|>", "<tool_call>", "</tool_call>", "e\u0301toile", "\u00e9toile", "A\u030a", "\u00c5", " <mask> ", "<|endoftext",
            "coppice.", "coppiced", "xcoppice", "_coppice", "coppice\u200d", "\u24d0coppice", "[both] \t", "<|END", "<|end \n"]


def lines(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    (OUT / name).write_text(text, encoding="utf-8")


def write(name, tokenizer, all_texts, legacy_merges):
    config = json.loads(tokenizer.to_str())
    if legacy_merges:
        config["model"]["merges"] = [" ".join(pair) for pair in config["model"]["merges"]]
    (OUT / f"{name}.json").write_text(json.dumps(config, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    again = Tokenizer.from_str(json.dumps(config))
    encode = lambda text: again.encode(text, add_special_tokens=False).ids
    lines(f"{name}.ids.jsonl", map(encode, all_texts))
    rng = random.Random(3)
    rows = []
    for i in range(400):
        # Random ids cut characters apart; slices of real ones often do not.
        ids = [rng.randrange(again.get_vocab_size() + 3) for _ in range(rng.randint(0, 12))]
        if i % 2:
            ids = encode(rng.choice(all_texts)[:40])[rng.randint(0, 2):]
        rows.append({"ids": ids, "kept": again.decode(ids, skip_special_tokens=False),
                     "plain": again.decode(ids, skip_special_tokens=True)})
    lines(f"{name}.decode.jsonl", rows)
    return config


DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
          r"|\s+(?!\S)|\s")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def stage_cases():
    """(name, base, replaced members)"""
    pre = lambda *parts: {"pre_tokenizer": sequence(*parts, byte_level())}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield f"{behavior} {invert}", "gpt2", pre(split(r"\s|[aeo]", behavior, invert))
        yield f"literal {behavior}", "gpt2", pre(split("= ", behavior))
    yield "literal with signs", "gpt2", pre(split("=).(", "Removed"), split("=\n"), split("=#"))
    yield "empty matches", "gpt2", pre(split("x*"))
    yield "empty matches merged", "gpt2", pre(split("[0-9]*", "MergedWithPrevious"))
    yield "empty literal", "gpt2", pre(split("="))
    for name, patterns in {"deepseek": DEEPSEEK, "o200k": [O200K], "cl100k": [CL100K], "bloom": [BLOOM],
                           "word": [r"\w+|\W"], "digit": [r"\d+|\D"], "hex": [r"\h{2}|\H"], "not": [r"\P{L}+|\p{^N}"],
                           "classes": [r"[\s\d]+|[\w]+|[\S]"], "lines": [r"^.|.$|\A.|.\z|.\Z"], "interval": [r"[ab]{,2}c|[a-z]{2}?"],
                           "dot": [r"(?m:a.)|b."], "options": [r"(?i)the|(?-i:A)l+|é"], "lazy": [r"\w+?\s|(?>a+)b|(?<=l)l(?!e)|(?<!o)n"],
                           "han": [r"\p{Han}+|\p{Greek}+"], "escapes": [r"\t\n|\x20|[\x61-\u007a]+|\.|\-|[\]\[\-]"]}.items():
        yield name, "gpt2", pre(*map(split, patterns))
    yield "digits", "gpt2", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level(False, True))}
    yield "digit runs", "gpt2", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level(False, True))}
    yield "whitespace", "gpt2", pre({"type": "Whitespace"})
    yield "whitespace split", "gpt2", pre({"type": "WhitespaceSplit"})
    yield "prefix space", "gpt2", {"pre_tokenizer": byte_level(True, True)}
    yield "prefix space each", "gpt2", {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, byte_level(True, False))}
    yield "after bytes", "gpt2", {"pre_tokenizer": sequence(byte_level(False, False), split("Ġ", "MergedWithNext"))}
    yield "no pre-tokenizer", "gpt2", {"pre_tokenizer": None}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form, "llama3", {"normalizer": {"type": form}}
    yield "normalizers", "qwen2", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "NFC"}]}}
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    piece = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    special = lambda name: {"id": name, "ids": [VOCAB + (name == eos)], "tokens": [name]}
    def template(single):
        return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {n: special(n) for n in (bos, eos)}}
    around = template([piece(bos), text, piece(eos), piece(eos)])
    yield "around", "llama3", {"post_processor": around}
    yield "around and bytes", "llama3", {"post_processor": {"type": "Sequence", "processors": [around, byte_level()]}}
    yield "no post-processor", "llama3", {"post_processor": None}
    yield "fused decoder", "llama3", {"decoder": {"type": "Sequence", "decoders": [byte_level(), {"type": "Fuse"}]}}


# A vocabulary without most bytes: what it lacks is unknown or left out.
def small_models():
    vocab = {t: i for i, t in enumerate(["<unk>", "a", "b", "c", "ab", "bc", "abc", "Ġ", "Ġa", "é", "<unk>a", "中"])}
    merges = [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"], ["Ġ", "a"], ["<unk>", "a"]]
    for unk in (None, "<unk>"):
        for fuse in (False, True):
            for ignore in (False, True):
                model = {"type": "BPE", "dropout": None, "unk_token": unk, "continuing_subword_prefix": None,
                         "end_of_word_suffix": None, "fuse_unk": fuse, "byte_fallback": False,
                         "ignore_merges": ignore, "vocab": vocab, "merges": merges}
                patch = {"model": model, "added_tokens": [], "post_processor": None}
                for pre in (None, byte_level()):
                    yield f"unknown {unk} {fuse} {ignore} {pre is None}", "gpt2", patch | {"pre_tokenizer": pre}


def write_stages(configs, all_texts):
    rng = random.Random(5)
    rows = []
    short = [t for t in all_texts if len(t) < 60]
    fixed = ["Hello  world, it's 12345 o'clock!\n\n\tThe end. ", "a\u00a0b\u180ec\u3000d", "x123456789y ½ 四 Ⅷ \U0001e4f1", "abcabc abbc é中 x zz aé"]
    for name, base, patch in [*stage_cases(), *small_models()]:
        tokenizer = Tokenizer.from_str(json.dumps(configs[base] | patch))
        cases = []
        for text in fixed + rng.sample(short, 24 if "model" not in patch else 6):
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            case = [text, plain]
            if "post_processor" in patch:
                case.append(tokenizer.encode(text, add_special_tokens=True).ids)
            cases.append(case)
        rows.append({"name": name, "base": base, "patch": patch, "cases": cases})
    lines("stages.jsonl", rows)


def write_classes():
    everything = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    rows = {}
    for pattern in [r"\s", r"\S", r"\w", r"\d", r"\h", ".", r"[\S]", r"\W", r"[\w]", r"[^\w]"] + [rf"\p{{{n}}}" for n in
                    "L Lu Ll Lt Lm Lo M N Nd Nl No P S Z Zs Han Greek".split()] + [r"[^\s\p{L}\p{N}]", r"(?i:s)", r"(?i:k)", r"(?i:é)"]:
        splitter = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
        found = []
        for i in range(0, len(everything), 4096):
            block = everything[i : i + 4096]
            for _, (begin, end) in splitter.pre_tokenize_str("".join(map(chr, block))):
                for c in block[begin:end]:
                    if found and found[-1] == c - 1:
                        found[-1] = c
                    else:
                        found += [c, c]
        rows[pattern] = found
    (OUT / "classes.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    all_texts = texts(SPECIALS)
    lines("texts.jsonl", all_texts)
    configs = {}
    for name, make, legacy in (("gpt2", gpt2, True), ("llama3", llama3, False), ("qwen2", qwen2, False)):
        configs[name] = write(name, make(), all_texts, legacy)
    write_stages(configs, all_texts)
    write_classes()


if __name__ == "__main__":
    main()
