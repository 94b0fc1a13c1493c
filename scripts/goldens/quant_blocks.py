#!/usr/bin/env python3
"""Random valid blocks of GGUF's quantised types and what the gguf package makes of them.

Reference packages: gguf==0.19.0  numpy==2.4.6

Writes tests/data/quant/TYPE.bin: the blocks, then their values as float32; and TYPE.quantised.bin: values, then the
blocks that the package makes of them.
"""
import pathlib
import sys

# gguf.py beside this file must not hide the package.
HERE = pathlib.Path(__file__).resolve().parent
sys.path = [p for p in sys.path if pathlib.Path(p or ".").resolve() != HERE]
import gguf  # noqa: E402
import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCKS = 12
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}  # bytes of the f16 scales

rng = np.random.default_rng(7)
out = ROOT / "tests" / "data" / "quant"
out.mkdir(parents=True, exist_ok=True)
for name, places in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in places:
        scales = rng.normal(0, 0.02, BLOCKS).astype(np.float16)
        scales[0], scales[1] = 0.0, 6e-8  # zero and the least subnormal
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    values = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    (out / f"{name}.bin").write_bytes(blocks.tobytes() + values.tobytes())

# Values and the reference quantiser's bytes for them.
values = rng.normal(0, 1, 640).astype(np.float32)
values[:32] = 0
values[64:96] *= 1e-3
for name in ["Q8_0", "Q4_0"]:
    quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
    (out / f"{name}.quantised.bin").write_bytes(values.tobytes() + quantised.tobytes())
