"""Writes the GGUF file: norms as F32, every matrix as Q8_0, the tokenizer inside; and reads its weights back."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from torch import Tensor

from data import END_OF_TEXT, SPECIAL_TOKENS
from model import Config

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write(weights: dict[str, Tensor], config: Config, tokenizer_path: Path, path: Path) -> None:
    """Writes the model. The tensors' names are the module's own; there is no output matrix, it is the embedding's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tokenlag-tiny")
    writer.add_description("A small language model of Rust source code, for measuring how tokens are delivered")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.window)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    add_tokenizer(writer, tokenizer_path)
    for name, tensor in weights.items():
        values = tensor.detach().to(torch.float32).numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            quantized = gguf.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantized, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer_path: Path) -> None:
    """Byte-level BPE of kind "gpt2"; "smollm" names the pre-tokenizer that data.py trained with."""
    bpe = json.loads(tokenizer_path.read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    assert [bpe["vocab"][token] for token in tokens] == list(range(len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL_TOKENS else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(bpe["vocab"][END_OF_TEXT])
    writer.add_eos_token_id(bpe["vocab"][END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The file's weights as F32, by name, in the shapes that the model has."""
    weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = tuple(int(length) for length in reversed(tensor.shape))
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        weights[tensor.name] = torch.from_numpy(np.array(values, dtype=np.float32))
    return weights
