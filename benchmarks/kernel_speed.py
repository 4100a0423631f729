"""Speed of the native core alone, on random weights: decode and prefill against the measured read bandwidth.

    python benchmarks/kernel_speed.py --shape 2b4t --threads 2 --head int8

No tokenizer, no sampling, no scheduler: what `tritwise._native.Model` can do. Bandwidth is measured right before and
after each decode run, because on a shared machine it changes within seconds.
"""

import argparse
import json
import statistics
import time

import numpy as np

from tritwise import _native

SHAPES = {
    "2b4t": {"vocab_size": 128256, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
             "num_attention_heads": 20, "num_key_value_heads": 5, "head_dim": 128, "hidden_act": "relu2",
             "rope_theta": 500000.0, "tie_word_embeddings": True, "model_type": "bitnet"},
    "700m": {"vocab_size": 32000, "hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 24,
             "num_attention_heads": 24, "num_key_value_heads": 24, "head_dim": 64, "hidden_act": "silu",
             "rope_theta": 10000.0, "tie_word_embeddings": False, "model_type": "bitnet"},
}


def build(shape: dict, linear_type: str, *, threads: int, kernel: str, head: str, slots: int,
          context: int) -> "_native.Model":
    """A model of this shape with random codes and scales; floats are bfloat16."""
    rng = np.random.default_rng(0)
    model = _native.Model(shape | {"rms_norm_eps": 1e-5, "linear_type": linear_type}, threads=threads, kernel=kernel,
                          head=head, slots=slots, context=context)
    hidden, ffn, dim = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    q, kv = shape["num_attention_heads"] * dim, shape["num_key_value_heads"] * dim

    def floats(name: str, *size: int) -> None:
        # Random bfloat16 of about +-1 / 50: the sign and the fraction are random bits, the exponent is fixed.
        bits = rng.integers(0, 1 << 16, size, dtype=np.uint16) & np.uint16(0x807F) | np.uint16(0x3C80)
        model.set_dense(name, bits, dtype="bfloat16")

    floats("model.embed_tokens.weight", shape["vocab_size"], hidden)
    if not shape["tie_word_embeddings"]:
        floats("lm_head.weight", shape["vocab_size"], hidden)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, out, inner in (("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden),
                                 ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, q),
                                 ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
                                 ("mlp.down_proj", hidden, ffn)):
            if linear_type == "dense":
                floats(f"{prefix}{name}.weight", out, inner)
                continue
            bits = rng.integers(0, 256, (out // 4, inner), dtype=np.uint8)
            packed = bits & ~(bits >> 1 & 0x55)  # a field of 3 becomes 2
            model.set_ternary(f"{prefix}{name}.weight", packed, out, np.array([1 / np.sqrt(inner)], np.float32))
        norms = [("input_layernorm", hidden), ("post_attention_layernorm", hidden)]
        if shape["model_type"] == "bitnet":
            norms += [("self_attn.attn_sub_norm", hidden), ("mlp.ffn_sub_norm", ffn)]
        for name, size in norms:
            model.set_dense(f"{prefix}{name}.weight", np.ones(size, np.float32))
    model.set_dense("model.norm.weight", np.ones(hidden, np.float32))
    model.finish()
    return model


def decode(model: "_native.Model", slots: int, steps: int, start: int) -> list[float]:
    """Seconds of each step that decodes one token in each of `slots` slots."""
    ids = np.arange(slots, dtype=np.int32)
    seconds = []
    for step in range(steps):
        begin = time.perf_counter()
        logits = model.forward(ids + 1, ids, np.full(slots, start + step, np.int32), ids)
        seconds.append(time.perf_counter() - begin)
    if not np.isfinite(logits).all():
        raise SystemExit("the logits are not finite")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="2b4t")
    parser.add_argument("--linear", choices=("ternary", "dense"), default="ternary")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernel", default=_native.kernels()[0])
    parser.add_argument("--head", choices=("stored", "int8"), default="int8")
    parser.add_argument("--slots", type=int, default=1, help="sequences that decode together")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    begin = time.perf_counter()
    model = build(SHAPES[options.shape], options.linear, threads=options.threads, kernel=options.kernel,
                  head=options.head, slots=options.slots, context=max(options.prefill, options.steps) + 8)
    print(f"built in {time.perf_counter() - begin:.1f} s, {model.weight_bytes / 1e6:.0f} MB of weights, "
          f"{model.weight_bytes_per_token / 1e6:.0f} MB read a step, kernel {model.kernel}, {model.threads} threads")
    for _ in range(options.repeats):
        before = _native.measure_read_bandwidth(options.threads, 1 << 29, 3)
        for slot in range(options.slots):
            model.reset(slot)
        seconds = decode(model, options.slots, options.steps, 0)
        after = _native.measure_read_bandwidth(options.threads, 1 << 29, 3)
        tokens = np.arange(options.prefill, dtype=np.int32)
        model.reset(0)
        begin = time.perf_counter()
        model.forward(tokens, np.zeros_like(tokens), tokens, tokens[-1:])
        prefill = options.prefill / (time.perf_counter() - begin)
        step = statistics.median(seconds)
        print(json.dumps({
            "decode_tokens_per_second": round(options.slots * options.steps / sum(seconds), 2),
            "decode_tokens_per_second_median_step": round(options.slots / step, 2),
            "prefill_tokens_per_second": round(prefill, 1),
            "weight_gigabytes_per_second": round(model.weight_bytes_per_token / step / 1e9, 1),
            "read_bandwidth_before_after": [round(before / 1e9, 1), round(after / 1e9, 1)],
        }), flush=True)


if __name__ == "__main__":
    main()
