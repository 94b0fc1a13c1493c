#!/usr/bin/env python3
"""What `tokenizers` and `transformers` answer, for the tests of src/train: tests/data/train/.

Reference packages (pip install of exactly these; nothing in the build or the tests needs them):
    torch==2.15.0  transformers==5.23.0  tokenizers==0.23.3

    python scripts/goldens/trainer.py

bpe.jsonl   [text, ids]: ASCII texts through models/storefront/tokenizer.json
twin/       a tiny random tied Llama (f32); golden.json: ids; golden.f32: [n, V] logits
"""
import json
import pathlib
import random
import shutil

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "data" / "train"


def texts():
    yield from ["", " ", "  ", "\n", "The", " The", "The oak lamp costs 48 euro 15. The big hall opens 10 h 35.\n",
                "The oak lamp costs?", " 48 euro 15", "a  b", "a   b", "a \n b", "tail  ", "\n\n  x", "\t\tx", "it's we'll they've I'd 'tis",
                "''s", "don't!?", "x=1234567890;", "(a)[b]{c}", "--- ...", " ?! x", "A1b2C3", "'", "' s", "\r\nline\r\n", "\x00\x01\x7f"]
    rng = random.Random(3)
    alphabet = "The oak lamp costs 48 euro 15.?'s\n\t-_AZ09" + " " * 8
    for _ in range(200):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60)))


def write_bpe():
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "storefront" / "tokenizer.json"))
    with open(OUT / "bpe.jsonl", "w") as out:
        for text in texts():
            out.write(json.dumps([text, tokenizer.encode(text).ids]) + "\n")


def write_twin():
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rope_theta=1e5,
                         rms_norm_eps=1e-5, tie_word_embeddings=True, attn_implementation="eager")
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.2)
    shutil.rmtree(OUT / "twin", ignore_errors=True)
    model.save_pretrained(OUT / "twin")
    (OUT / "twin" / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(0, 96, (1, 48))
    with torch.no_grad():
        logits = model(ids).logits[0]
    (OUT / "twin" / "golden.json").write_text(json.dumps(ids[0].tolist()) + "\n")
    (OUT / "twin" / "golden.f32").write_bytes(logits.contiguous().numpy().tobytes())


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    write_bpe()
    write_twin()
