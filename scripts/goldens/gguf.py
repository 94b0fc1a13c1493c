#!/usr/bin/env python3
"""The golden models as GGUF files, laid out as llama.cpp's converter does: tests/data/gguf/.

Reference packages (nothing in the build or the tests needs them):
    torch==2.15.0  transformers==5.23.0  safetensors==0.8.0  gguf==0.19.0  numpy==2.4.6
    accelerate==1.15.0

    python scripts/goldens/gguf.py      # after models.py beside it, whose directories it reads

Each file is then opened by transformers (gguf_file=), whose weights must equal the directory's:
bit for bit where the type loses nothing, within the type's rounding otherwise.
"""
import json
import math
import pathlib
import sys

# This file's own name must not hide the package it needs.
HERE = pathlib.Path(__file__).resolve().parent
sys.path = [p for p in sys.path if pathlib.Path(p or ".").resolve() != HERE]
import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils.logging import disable_progress_bar, set_verbosity_error  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data"
Type = gguf.GGMLQuantizationType

# file: directory under tests/data/models, type of the matrices, version, alignment
FILES = {
    "llama-f32.gguf": ("llama", Type.F32, 3, None),
    "llama-q8_0.gguf": ("llama", Type.Q8_0, 2, None),
    "llama3-bf16.gguf": ("llama3-bf16", Type.BF16, 3, 64),
    "qwen2-f16.gguf": ("qwen2", Type.F16, 3, None),
    "qwen3-q8_0.gguf": ("qwen3", Type.Q8_0, 3, None),
}
ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
PRE_TOKENIZERS = {"llama": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}


def permute(w, n_head):
    return (w.reshape(n_head, 2, w.shape[0] // n_head // 2, *w.shape[1:])
            .swapaxes(1, 2).reshape(w.shape))


def rope_factors(rope, dim):
    """llama.cpp's generate_extra_tensors: the divisors of the frequencies under llama3 scaling."""
    freqs = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factor, context = rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    out = []
    for freq in freqs:
        wavelen = 2 * math.pi / freq
        if wavelen < context / high:
            out.append(1)
        elif wavelen > context / low:
            out.append(factor)
        else:
            smooth = (context / wavelen - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(out, dtype=torch.float32).numpy()


def add_parameters(writer, config, kind):
    heads, head_dim = config["num_attention_heads"], config.get("head_dim")
    writer.add_type("model")
    writer.add_name(f"tiny random {config['model_type']}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if head_dim:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    file_type = gguf.LlamaFileType
    writer.add_file_type({Type.F32: file_type.ALL_F32, Type.F16: file_type.MOSTLY_F16,
                          Type.BF16: file_type.MOSTLY_BF16,
                          Type.Q8_0: file_type.MOSTLY_Q8_0}[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if config["model_type"] == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim or config["hidden_size"] // heads)


def add_vocabulary(writer, directory, config, pre):
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    token_of = {i: t for t, i in tokenizer["model"]["vocab"].items()}
    added = {t["id"]: t for t in tokenizer["added_tokens"]}
    token_of |= {i: t["content"] for i, t in added.items()}
    tokens, types = [], []
    for i in range(config["vocab_size"]):
        if i not in token_of:
            tokens.append(f"[PAD{i}]")
            types.append(gguf.TokenType.UNUSED)
            continue
        tokens.append(token_of[i])
        special = added[i]["special"] if i in added else None
        types.append({None: gguf.TokenType.NORMAL, True: gguf.TokenType.CONTROL,
                      False: gguf.TokenType.USER_DEFINED}[special])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    gguf.SpecialVocab(directory, load_merges=True).add_to_gguf(writer)


def read_tensors(directory):
    tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def write(path, directory, kind, version, alignment):
    config = json.loads((directory / "config.json").read_text())
    arch = ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    if alignment:
        writer.add_custom_alignment(alignment)
    add_parameters(writer, config, kind)
    add_vocabulary(writer, directory, config, PRE_TOKENIZERS[directory.name.removesuffix("-bf16")])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    if config["rope_parameters"]["rope_type"] == "llama3":
        dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        writer.add_tensor("rope_freqs.weight", rope_factors(config["rope_parameters"], dim))
    for name, tensor in read_tensors(directory).items():
        data = tensor.float().numpy()
        if arch == gguf.MODEL_ARCH.LLAMA:
            if name.endswith(("q_proj.weight", "q_proj.bias")):
                data = permute(data, config["num_attention_heads"])
            if name.endswith(("k_proj.weight", "k_proj.bias")):
                data = permute(data, config["num_key_value_heads"])
        own = kind if data.ndim > 1 else Type.F32
        data = gguf.quants.quantize(np.ascontiguousarray(data), own)
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(new, data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != gguf.GGUF_VERSION:  # versions 2 and 3 differ in this number alone
        data = bytearray(path.read_bytes())
        data[4:8] = version.to_bytes(4, "little")
        path.write_bytes(data)


def check(path, directory, kind):
    """transformers must read the file and find the weights of the directory in it."""
    config = AutoConfig.from_pretrained(directory)
    # transformers 5.23 does not read qwen3.attention.key_length and assumes heads of 128.
    given = dict(config=config) if config.model_type == "qwen3" else {}
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                 dtype=torch.float32, **given).eval()
    expected = read_tensors(directory)
    worst = 0.0
    state = model.state_dict()
    for name, tensor in expected.items():
        tensor, read = tensor.float(), state[name].float()
        assert read.shape == tensor.shape, name
        scale = tensor.abs().amax(dim=-1, keepdim=True) if kind == Type.Q8_0 else tensor.abs()
        # Q8_0: half a step of 1/127, and its scale rounded to 11 bits.
        bound = {Type.F32: 0.0, Type.BF16: 0.0, Type.F16: 2.0 ** -11,
                 Type.Q8_0: 1 / 254 + 2.0 ** -11}[kind]
        error = (read - tensor).abs()
        assert (error <= bound * scale + (6e-8 if bound else 0)).all(), f"{path.name}: {name}"
        worst = max(worst, error.max().item())
    print(f"{path.name}: {path.stat().st_size} bytes, transformers reads it, "
          f"largest weight error {worst:.1e}")


def main():
    disable_progress_bar()
    set_verbosity_error()
    (ROOT / "gguf").mkdir(parents=True, exist_ok=True)
    for file, (source, kind, version, alignment) in FILES.items():
        path, directory = ROOT / "gguf" / file, ROOT / "models" / source
        write(path, directory, kind, version, alignment)
        check(path, directory, kind)


if __name__ == "__main__":
    main()
