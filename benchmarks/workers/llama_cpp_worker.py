"""Worker of compare_llama_cpp.py: llama.cpp through llama-cpp-python, on a GGUF written with gguf's own writer.

Arguments: the model configuration as JSON, a path for the file, the threads, [prompt, decode, prefill] as JSON. After a
warm-up it prints "ready", then one JSON object for every line on standard input. Runs in the peer's own environment.
"""

import ctypes
import json
import sys
import time

import gguf
import llama_cpp
import numpy as np

CONTEXT = 1024


def write_gguf(config: dict, path: str) -> None:
    """Random weights: TQ2_0 linears, a Q6_K embedding that is the head too, float32 norms."""
    rng = np.random.default_rng(0)
    types = gguf.GGMLQuantizationType
    hidden, ffn, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    writer = gguf.GGUFWriter(path, "bitnet")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(dim)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")

    def blocks(name: str, rows: int, columns: int, kind: gguf.GGMLQuantizationType, size: int, scale: float) -> None:
        data = rng.integers(0, 256, (rows, columns // 256, size), dtype=np.uint8)
        if kind == types.TQ2_0:
            data &= ~(data >> 1 & 0x55)  # a field of 3 becomes 2
        data[:, :, -2:] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=kind)

    def ones(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, np.float32))

    blocks("token_embd.weight", config["vocab_size"], hidden, types.Q6_K, 210, 1e-5)
    ones("output_norm.weight", hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, rows, columns in (("attn_q", q, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden),
                                    ("attn_output", hidden, q), ("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden),
                                    ("ffn_down", hidden, ffn)):
            blocks(f"blk.{layer}.{name}.weight", rows, columns, types.TQ2_0, 66, 0.02)
        for name, size in (("attn_norm", hidden), ("ffn_norm", hidden), ("attn_sub_norm", hidden),
                           ("ffn_sub_norm", ffn)):
            ones(f"blk.{layer}.{name}.weight", size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    """One model and one context of llama.cpp."""

    def __init__(self, path: str, threads: int, largest_batch: int) -> None:
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # the library keeps a pointer only
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise SystemExit("llama.cpp did not open the file")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = CONTEXT
        params.n_batch = params.n_ubatch = largest_batch
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, params)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def decode(self, tokens: list[int]) -> None:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(ids, len(tokens)))
        if status:
            raise SystemExit(f"llama_decode returned {status}")


def main() -> None:
    config, path, threads = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    prompt, decode, prefill = json.loads(sys.argv[4])
    write_gguf(config, path)
    peer = Peer(path, threads, prefill)
    rng = np.random.default_rng(1)

    def draw(count: int) -> list[int]:
        return rng.integers(0, config["vocab_size"], count).tolist()

    def run() -> dict[str, float]:
        peer.clear()
        peer.decode(draw(prompt))
        tokens = draw(decode)
        began = time.perf_counter()
        for token in tokens:
            peer.decode([token])
        decoding = time.perf_counter() - began
        peer.clear()
        tokens = draw(prefill)
        began = time.perf_counter()
        peer.decode(tokens)
        return {"decode": decode / decoding, "prefill": prefill / (time.perf_counter() - began)}

    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


if __name__ == "__main__":
    main()
