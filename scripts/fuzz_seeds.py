#!/usr/bin/env python3
"""Writes the hand-made seeds of the model-file fuzzers to fuzz/corpus/ (standard library only)."""
import json
import math
import pathlib
import struct

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORPUS = ROOT / "fuzz" / "corpus"


def put(kind, name, data):
    path = CORPUS / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def safetensors(header, data=b"", pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_safetensors():
    two = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 1], 0, 8),
           "b": entry("BF16", [3], 8, 14), "c": entry("F16", [], 14, 16),
           "d": entry("I64", [0, 2], 16, 16)}
    put("safetensors", "plain", safetensors(two, bytes(range(16))))
    put("safetensors", "misaligned", safetensors({"a": entry("F32", [2], 0, 8)}, bytes(8), pad=3))
    bad = {
        "metadata_number": {"__metadata__": {"format": 1}}, "metadata_list": {"__metadata__": []},
        "entry_number": {"a": 1}, "no_dtype": {"a": {"shape": []}},
        "unknown_dtype": {"a": entry("Q4", [1], 0, 4)}, "no_shape": {"a": {"dtype": "F32"}},
        "negative": {"a": entry("F32", [-1], 0, 4)}, "float": {"a": entry("F32", [1.5], 0, 4)},
        "wide": {"a": entry("F32", [2**63], 0, 4)}, "rank": {"a": entry("F32", [1] * 5, 0, 4)},
        "overflow": {"a": entry("F32", [2**32, 2**32], 0, 4)},
        "backwards": {"a": entry("F32", [1], 4, 0)},
        "beyond": {"a": entry("F32", [2], 0, 8)}, "size": {"a": entry("F32", [2], 0, 4)},
        "hole": {"a": entry("F16", [1], 2, 4)}, "rest": {"a": entry("F16", [1], 0, 2)},
        "overlap": {"a": entry("F16", [2], 0, 4), "b": entry("F16", [1], 2, 4)}, "list": [],
    }
    for name, header in bad.items():
        put("safetensors", name, safetensors(header, bytes(4)))
    put("safetensors", "broken", safetensors(b'{"a":[1,2}'))
    put("safetensors", "unfinished", safetensors(b'{"a":[1,'))
    put("safetensors", "twice", safetensors(b'{"a":1,"a":1}'))
    put("safetensors", "deep", safetensors(b'{"a":' * 6))
    put("safetensors", "scalars", safetensors(b'{"a":null,"b":true,"c":-1,"d":1e9,"e":[[]]}'))
    put("safetensors", "length", struct.pack("<Q", 2**40) + b"{}")
    put("safetensors", "short", b"1234")


U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q",
           I64: "q", F64: "d"}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    if kind == STRING:
        return string(content)
    if kind == ARRAY:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, i) for i in items)
    return struct.pack("<" + FORMATS[kind], content)


def gguf(pairs, tensors=(), version=3, alignment=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, content in pairs:
        out += string(key) + struct.pack("<I", kind) + value(kind, content)
    data = b""
    for name, extents, kind, size in tensors:
        data += b"\0" * (-len(data) % alignment)
        out += string(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind,
                                          len(data))
        data += bytes(i % 251 for i in range(size))
    return out + b"\0" * (-len(out) % alignment) + data


def model(arch, extra=(), tensors=(), **options):
    pairs = [("general.architecture", STRING, arch), ("general.type", STRING, "model"),
             (f"{arch}.context_length", U32, 64), (f"{arch}.embedding_length", U32, 4),
             (f"{arch}.feed_forward_length", U32, 8), (f"{arch}.block_count", U32, 1),
             (f"{arch}.attention.head_count", U32, 2), (f"{arch}.attention.head_count_kv", U32, 1),
             (f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5)]
    return gguf([*pairs, *extra], [("token_embd.weight", [4, 6], 0, 96), *tensors], **options)


def write_gguf():
    tokens = ["a", "b", "ab", "<s>", "é", "😀"]
    tokenizer = [("tokenizer.ggml.model", STRING, "gpt2"),
                 ("tokenizer.ggml.pre", STRING, "llama-bpe"),
                 ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
                 ("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"])),
                 ("tokenizer.ggml.token_type", ARRAY, (I32, [1, 1, 1, 3, 4, 1])),
                 ("tokenizer.ggml.bos_token_id", U32, 3), ("tokenizer.ggml.eos_token_id", U32, 2),
                 ("tokenizer.ggml.add_eos_token", BOOL, True)]
    layers = [("blk.0.attn_q.weight", [4, 4], 1, 32), ("blk.0.attn_k.weight", [4, 2], 30, 16),
              ("blk.0.attn_q.bias", [4], 0, 16), ("output.weight", [4, 6], 0, 96),
              ("other", [32, 2], 8, 68)]
    put("gguf", "llama", model("llama", tokenizer, [*layers, ("rope_freqs.weight", [1], 0, 4)]))
    put("gguf", "llama_aligned_1", model("llama", [("general.alignment", U32, 1),
                                                   ("llama.rope.scaling.factor", F32, 2.0)],
                                         [("odd", [3], 8, 0), ("h", [3], 1, 6), ("w", [2], 0, 8)],
                                         alignment=1))
    put("gguf", "llama_v2", model("llama", tokenizer, layers, version=2))
    qwen = [(k, t, "qwen2" if k.endswith(".pre") else v) for k, t, v in tokenizer]
    put("gguf", "qwen2", model("qwen2", [*qwen, ("qwen2.rope.freq_base", F32, 1e6)], layers))
    put("gguf", "qwen3", model("qwen3", [("qwen3.attention.key_length", U32, 8),
                                         ("qwen3.attention.value_length", U32, 8),
                                         ("qwen3.rope.scaling.type", STRING, "none")]))
    kinds = [("u8", U8, 1), ("i8", I8, -1), ("u16", U16, 1), ("i16", I16, -1), ("i32", I32, -1),
             ("u64", U64, 2**63), ("i64", I64, -1), ("f64", F64, 0.5), ("b", BOOL, True),
             ("n", ARRAY, (ARRAY, [(U8, [1]), (STRING, ["x"])]))]
    put("gguf", "kinds", gguf(kinds))
    for key, kind, content in [
            ("llama.expert_count", U32, 8), ("llama.rope.scaling.type", STRING, "yarn"),
            ("llama.vocab_size", U64, 7), ("llama.vocab_size", I64, -1),
            ("llama.vocab_size", STRING, "x"), ("split.count", U16, 2),
            ("llama.attention.key_length", I32, 3), ("llama.attention.value_length", I16, 4),
            ("llama.attention.scale", F32, 0.5), ("llama.rope.freq_base", F64, 0.5),
            ("llama.rope.freq_base", STRING, "x"), ("llama.rope.scale_linear", F32, 4.0),
            ("llama.rope.scaling.factor", F64, 1e-300),
            ("general.alignment", U32, 3), ("tokenizer.ggml.eos_token_id", I8, -1)]:
        put("gguf", f"bad_{key.rsplit('.', 1)[1]}_{kind}", model("llama", [(key, kind, content)]))
    for name, changed in {
            "utf8": ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", b"\xe2\x28\xa1"])),
            "twice": ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "a"])),
            "none": ("tokenizer.ggml.tokens", ARRAY, (STRING, [])),
            "not_list": ("tokenizer.ggml.tokens", U32, 1),
            "merge": ("tokenizer.ggml.merges", ARRAY, (STRING, ["ab"])),
            "type": ("tokenizer.ggml.token_type", ARRAY, (U8, [1])),
            "type_float": ("tokenizer.ggml.token_type", ARRAY, (F32, [1.0])),
            "bos": ("tokenizer.ggml.bos_token_id", U32, 6),
            "pre": ("tokenizer.ggml.pre", STRING, "tekken"),
            "model": ("tokenizer.ggml.model", STRING, "llama"),
            "empty": ("tokenizer.ggml.token_type", ARRAY, (I32, [3] * 6)),
            "flag": ("tokenizer.ggml.add_eos_token", U8, 1)}.items():
        pairs = [changed if pair[0] == changed[0] else pair for pair in tokenizer]
        put("gguf", f"tokenizer_{name}", model("llama", pairs))
    for name, tensor in {
            "q4_k": ("t", [256], 12, 144), "rank": ("t", [1] * 5, 0, 4), "block": ("t", [16], 8, 0),
            "overflow": ("t", [2**32, 2**32], 0, 4), "extent": ("t", [2**63], 0, 4),
            "beyond": ("t", [9], 0, 4), "twice": ("token_embd.weight", [1], 0, 4),
            "far": ("t", [2**40], 0, 4), "unknown": ("t", [1], 77, 4),
            "mlp_bias": ("blk.0.ffn_up.bias", [1], 0, 4), "rope": ("rope_freqs.weight", [2], 0, 8),
            "rows": ("blk.0.attn_q.weight", [4, 5], 0, 80)}.items():
        put("gguf", f"tensor_{name}", model("llama", [], [tensor]))
    put("gguf", "mamba", gguf([("general.architecture", STRING, "mamba")]))
    put("gguf", "adapter", gguf([("general.type", STRING, "adapter")]))
    put("gguf", "key_twice", gguf([("a", U8, 1), ("a", U8, 1)]))
    put("gguf", "version_1", gguf([], version=1))
    put("gguf", "big_endian", gguf([], version=3 << 24))
    put("gguf", "magic", b"GGML" + bytes(20))
    put("gguf", "count", b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0))
    pair = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    put("gguf", "key_empty", pair + string("") + struct.pack("<IB", U8, 0))
    put("gguf", "key_long", pair + struct.pack("<Q", 2**63) + b"key and more")
    put("gguf", "value_type", pair + string("a") + struct.pack("<II", 99, 0))
    put("gguf", "array_deep", pair + string("a") + struct.pack("<I", ARRAY)
        + struct.pack("<IQ", ARRAY, 1) * 6)
    put("gguf", "array_long", pair + string("a") + struct.pack("<IIQ", ARRAY, F64, 2**61))
    put("gguf", "no_embedding", model("llama").replace(b"token_embd", b"token_emby"))
    put("gguf", "no_tensor", gguf([]))


def write_config():
    base = dict(architectures=["LlamaForCausalLM"], hidden_size=64, intermediate_size=128,
                num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=300,
                max_position_embeddings=512, rms_norm_eps=1e-5, hidden_act="silu", rope_theta=1e4,
                rope_scaling=None, tie_word_embeddings=False, bos_token_id=1, eos_token_id=[2, 3])
    llama3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
                  high_freq_factor=4.0, original_max_position_embeddings=256)
    changes = {
        "llama": {}, "llama3": dict(rope_parameters=llama3, rope_theta=None),
        "linear": dict(rope_scaling=dict(type="linear", factor=2)),
        "qwen2": dict(architectures=["Qwen2ForCausalLM"], use_sliding_window=False,
                      layer_types=["full_attention"] * 2),
        "qwen3": dict(architectures=None, model_type="qwen3", attention_bias=True, head_dim=32),
        "mistral": dict(architectures=["MistralForCausalLM"], sliding_window=None),
        "mistral_slides": dict(architectures=["MistralForCausalLM"], sliding_window=4096),
        "mamba": dict(architectures=["MambaForCausalLM"]), "no_class": dict(architectures=[]),
        "gelu": dict(hidden_act="gelu"), "act": dict(hidden_act=1), "mlp_bias": dict(mlp_bias=True),
        "quantised": dict(quantization_config={}), "partial": dict(partial_rotary_factor=0.5),
        "slides": dict(use_sliding_window=True), "layers": dict(layer_types=["sliding_attention"]),
        "layers_text": dict(layer_types="x"), "yarn": dict(rope_scaling=dict(rope_type="yarn")),
        "tiny_factor": dict(rope_scaling=dict(type="linear", factor=1e-300)),
        "rope_number": dict(rope_scaling=1), "rope_nested": dict(rope_parameters=dict(a={})),
        "rope_partial": dict(rope_parameters=dict(partial_rotary_factor=0.5)),
        "rope_order": dict(rope_parameters=dict(llama3, high_freq_factor=1.0)),
        "theta": dict(rope_theta=0.5), "groups": dict(num_key_value_heads=3),
        "uneven": dict(num_attention_heads=6), "odd": dict(head_dim=7), "zero": dict(hidden_size=0),
        "wide": dict(hidden_size=2**64 - 1), "eos": dict(eos_token_id=300),
        "eos_one": dict(eos_token_id=2), "eos_list": dict(eos_token_id=[-1]),
        "flag": dict(tie_word_embeddings=1), "eps": dict(rms_norm_eps=0),
    }
    for name, change in changes.items():
        put("config", name, json.dumps(base | change).encode())
    put("config", "list", b"[1, true, null, -2, 3.5, \"x\"]")
    put("config", "deep", b"[" * 40)
    put("config", "twice", b'{"a": 1, "a": 2}')
    put("config", "broken", b'{"a": \xff}')


def write_shard_index():
    good = {"metadata": {"total_size": 16}, "weight_map": {"x": "a.safetensors",
                                                           "y": "b-00001-of-00002.safetensors"}}
    put("shard_index", "two", json.dumps(good).encode())
    put("shard_index", "list", b"[]")
    put("shard_index", "no_map", b"{}")
    put("shard_index", "map_list", b'{"weight_map": []}')
    for name, file in {"up": "../a.safetensors", "root": "/a.safetensors", "number": 7,
                       "zero": "a\0.safetensors", "suffix": "a.bin", "bare": ".safetensors",
                       "backslash": "a\\b.safetensors"}.items():
        put("shard_index", name, json.dumps({"weight_map": {"x": file}}).encode())
    put("shard_index", "twice", b'{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}')
    put("shard_index", "broken", b'{"weight_map": {"x"')


def gate_header(**changes):
    tier = {name: dict(threshold=t, keep=0.5, loss=0.25)
            for name, t in dict(mild=-0.5, normal=0, hard=1.5).items()}
    line = dict(family="needle", tier="mild", keep=0.5, full=1, gated=0.9, samples=9, held_out=True)
    header = dict(version=1, kind="causal", hidden_size=3, num_hidden_layers=1,
                  num_key_value_heads=2, heads=1, head_dim=2, reach=4, rope_theta=1e4, window=5,
                  sinks=2, decode_gate=True, tiers=tier, base="0123456789abcdef",
                  calibration=[line])
    return header | changes


def gate_file(header, shapes):
    table, data = {"__metadata__": {"coppice_gate": json.dumps(header), "format": "pt"}}, b""
    for name, shape in shapes.items():
        values = struct.pack(f"<{math.prod(shape)}f", *range(math.prod(shape)))
        table[f"layers.0.{name}"] = entry("F32", shape, len(data), len(data) + len(values))
        data += values
    return safetensors(table, data)


def write_gate():
    point = dict(kind="point", heads=0, head_dim=0, reach=0, rope_theta=0)
    own = {"ws": [2, 3], "b": [2]}
    attention = {"wq": [2, 3], "wk": [2, 3], "wv": [2, 3], "wo": [2, 2]}
    headers = {
        "causal": {}, "point": point, "global": dict(kind="global", reach=0, rope_theta=0),
        "block": dict(kind="block", reach=512), "version": dict(version=2), "kind": dict(kind="x"),
        "unknown": dict(more=1), "layers": dict(num_hidden_layers=2**63),
        "wide": dict(heads=64, head_dim=128), "odd": dict(head_dim=3), "reach": dict(reach=65),
        "theta": dict(rope_theta=1e300), "window": dict(window=0), "sinks": dict(sinks=-1),
        "flag": dict(decode_gate=1), "tiers": dict(tiers=[]), "base": dict(base="0123"),
        "threshold": dict(tiers=gate_header()["tiers"] | dict(hard=dict(threshold=-9))),
        "report": dict(calibration={}), "line": dict(calibration=[7]),
        "family": dict(calibration=[dict(family="\n")]),
    }
    for name, changes in headers.items():
        put("gate", f"header_{name}", json.dumps(gate_header(**changes)).encode())
    put("gate", "header_broken", b'{"version": 1, "version": 1}')
    put("gate", "point", gate_file(gate_header(**point), own))
    put("gate", "causal", gate_file(gate_header(), own | attention))
    put("gate", "missing", gate_file(gate_header(), own))
    put("gate", "more", gate_file(gate_header(**point), own | attention))
    put("gate", "shape", gate_file(gate_header(**point), own | {"b": [1, 2]}))
    put("gate", "no_header", safetensors({"__metadata__": {}}))
    put("gate", "infinite", gate_file(gate_header(**point), own)[:-4] + struct.pack("<f", math.inf))
    for name, spec in {
            "window": "window,window=512", "streaming": "streaming,sinks=0,window=1",
            "random": "random,keep=0.25,seed=7", "key_norm": "key-norm,threshold=1e-3",
            "unknown": "h2o", "setting": "window,sinks=1", "twice": "streaming,sinks=1,sinks=1",
            "number": "random,keep=nan", "empty": ""}.items():
        put("gate", f"policy_{name}", f"policy:{spec}".encode())


write_safetensors()
write_gate()
write_shard_index()
write_gguf()
write_config()
