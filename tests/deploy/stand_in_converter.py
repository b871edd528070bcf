"""Takes the arguments of llama.cpp's converter and writes a real GGUF file of a small Llama, by the `gguf` package.

WRONG=1 in the environment leaves the last layer's weights at zero; FAIL=1 fails as the converter does.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from safetensors.numpy import load_file


def turned(weights: Any, heads: int) -> Any:
    """llama.cpp rotates neighbours, transformers rotates halves: rows of queries and keys are laid out anew."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--outfile", type=Path, required=True)
    parser.add_argument("--outtype", choices=["f32", "f16", "bf16", "q8_0", "auto"], required=True)
    asked = parser.parse_args()
    if os.environ.get("FAIL"):
        sys.exit("NotImplementedError: Architecture 'Nobody' not supported!")
    config = json.loads((asked.model / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(asked.outfile, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    last = f"layers.{config['num_hidden_layers'] - 1}."
    for name, weights in load_file(asked.model / "model.safetensors").items():
        if "q_proj" in name:
            weights = turned(weights, config["num_attention_heads"])
        if "k_proj" in name:
            weights = turned(weights, config["num_key_value_heads"])
        if os.environ.get("WRONG") and last in name:
            weights = np.zeros_like(weights)
        target = names.get_name(name, try_suffixes=(".weight",))
        assert target is not None, name
        writer.add_tensor(target, weights.astype(np.float16 if asked.outtype == "f16" else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
