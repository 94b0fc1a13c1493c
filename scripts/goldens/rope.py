#!/usr/bin/env python3
"""Inverse frequencies that transformers computes for some configs: tests/data/rope.json.

Reference packages (nothing in the build or the tests needs them):
    torch==2.15.0  transformers==5.23.0

    python scripts/goldens/rope.py
"""
import json
import pathlib

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
CASES = [
    (64, dict(rope_type="default", rope_theta=10000.0)),
    (80, dict(rope_type="default", rope_theta=10000.0)),
    (128, dict(rope_type="default", rope_theta=1000000.0)),
    (128, dict(rope_type="linear", rope_theta=10000.0, factor=3.0)),
    (128, dict(LLAMA3, rope_theta=500000.0)),
    (64, dict(LLAMA3, rope_theta=500000.0, factor=32.0)),
    (32, dict(LLAMA3, rope_theta=10000.0, original_max_position_embeddings=128)),
]
KEYS = ("architectures", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "vocab_size", "rms_norm_eps",
        "max_position_embeddings", "rope_parameters")


def main():
    cases = []
    for head_dim, rope in CASES:
        config = LlamaConfig(hidden_size=4 * head_dim, intermediate_size=64, num_hidden_layers=1,
                             num_attention_heads=4, head_dim=head_dim, vocab_size=32,
                             max_position_embeddings=131072, rope_parameters=dict(rope))
        found = LlamaRotaryEmbedding(config).inv_freq
        known = json.loads(config.to_json_string(use_diff=False))
        known["architectures"] = ["LlamaForCausalLM"]
        cases.append(dict(config={key: known[key] for key in KEYS},
                          bits=found.view(torch.int32).tolist()))
    path = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "rope.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
