"""Small random models for the tests of the native core, and the same forward pass in numpy float64."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritwise import _native
from tritwise.ternary import absmax

Weights = dict[str, Any]  # name -> float array, or (codes int8 [out, in], scale float32 [1])

TINY: dict[str, Any] = {
    "model_type": "bitnet", "linear_type": "ternary", "vocab_size": 70, "hidden_size": 48, "intermediate_size": 100,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "hidden_act": "relu2",
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}


def config(**changes: Any) -> dict[str, Any]:
    return TINY | changes


def linear_shapes(c: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, dim = c["hidden_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    return {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q)} | {
                f"{part}.{name}": shape for part, size in feed_forward_sizes(c).items() for name, shape in
                (("gate_proj", (size, hidden)), ("up_proj", (size, hidden)), ("down_proj", (hidden, size)))}


def feed_forward_sizes(c: dict[str, Any]) -> dict[str, int]:
    """Inner sizes of a block's feed-forwards by name: one, or those of the experts and the shared one."""
    if not c.get("num_experts"):
        return {"mlp": c["intermediate_size"]}
    sizes = {f"mlp.experts.{expert}": c["moe_intermediate_size"] for expert in range(c["num_experts"])}
    return sizes | ({"mlp.shared_expert": c["shared_expert_intermediate_size"]}
                    if c.get("shared_expert_intermediate_size") else {})


def random_weights(c: dict[str, Any], seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    hidden = c["hidden_size"]
    weights: Weights = {"model.embed_tokens.weight": rng.normal(size=(c["vocab_size"], hidden)).astype(np.float32)}
    if not c["tie_word_embeddings"]:
        weights["lm_head.weight"] = rng.normal(size=(c["vocab_size"], hidden)).astype(np.float32)
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if c["model_type"] == "bitnet":
        norms |= {"self_attn.attn_sub_norm": hidden}
        norms |= {f"{part}.ffn_sub_norm": size for part, size in feed_forward_sizes(c).items()}
    if c["model_type"] == "qwen3":
        norms |= {"self_attn.q_norm": c["head_dim"], "self_attn.k_norm": c["head_dim"]}
    routers = {"mlp.gate": c["num_experts"]} if c.get("num_experts") else {}
    routers |= {"mlp.shared_expert_gate": 1} if c.get("shared_expert_intermediate_size") else {}
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, size in norms.items():
            weights[f"{prefix}{name}.weight"] = rng.uniform(0.5, 1.5, size).astype(np.float32)
        for name, out in routers.items():
            weights[f"{prefix}{name}.weight"] = (rng.normal(size=(out, hidden)) / np.sqrt(hidden)).astype(np.float32)
        for name, (out, inner) in linear_shapes(c).items():
            if c["linear_type"] == "dense":
                weights[f"{prefix}{name}.weight"] = (rng.normal(size=(out, inner)) / np.sqrt(inner)).astype(np.float32)
            else:
                codes = rng.integers(-1, 2, (out, inner)).astype(np.int8)
                if c["linear_type"] == "binary":
                    codes = np.where(codes == 0, 1, codes).astype(np.int8)
                scale = np.float32(rng.uniform(0.8, 1.2) / np.sqrt(inner))
                weights[f"{prefix}{name}.weight"] = (codes, np.array([scale]))
            if c.get("linear_rms_norm_eps"):
                weights[f"{prefix}{name}.rms_norm.weight"] = rng.uniform(0.5, 1.5, inner).astype(np.float32)
    weights["model.norm.weight"] = rng.uniform(0.5, 1.5, hidden).astype(np.float32)
    return weights


def pack_stripes(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Hugging Face's packing: byte [r, k] holds rows r, R+r, 2R+r, 3R+r, lowest bits first."""
    out, inner = codes.shape
    stripes = -(-out // 4)
    fields = np.zeros((4 * stripes, inner), np.uint8)
    fields[:out] = codes + 1
    fields = fields.reshape(4, stripes, inner)
    return fields[0] | fields[1] << 2 | fields[2] << 4 | fields[3] << 6


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float, truncated: exact once `from_bfloat16` of it is taken as the weight."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (values.astype(np.uint32) << 16).view(np.float32)


def rotary_of(c: dict[str, Any]) -> dict[str, Any]:
    """The native model's arguments for the rotary embedding of a configuration without scaling."""
    frequencies = c["rope_theta"] ** (-np.arange(0, c["head_dim"], 2) / c["head_dim"])
    return {"inverse_frequencies": frequencies.astype(np.float32), "rope_factor": 1.0}


def load(c: dict[str, Any], weights: Weights, *, dtype: str = "float32", threads: int = 1, kernel: str = "",
         head: str = "stored", head_pass: str = "two", slots: int = 4, context: int = 64, cache_type: str = "f32",
         pages: int = 0) -> "_native.Model":
    model = _native.Model(c, threads=threads, kernel=kernel or _native.kernels()[0], head=head, head_pass=head_pass,
                          slots=slots, context=context, cache_type=cache_type, pages=pages, **rotary_of(c))
    for name, weight in weights.items():
        if isinstance(weight, tuple):
            codes, scale = weight
            model.set_ternary(name, pack_stripes(codes), codes.shape[0], scale)
        elif dtype == "bfloat16":
            model.set_dense(name, to_bfloat16(weight), dtype="bfloat16")
        else:
            model.set_dense(name, weight.astype(dtype))
    model.finish()
    return model


def file_model(path: Path, c: dict[str, Any], weights: Weights, *, dtype: str = "float32", binary: bool = False,
               cut: int = 0, threads: int = 1, head: str = "int8") -> "_native.Model":
    """As `load`, with all tensors in one file, `cut` bytes too short."""
    model = _native.Model(c, threads=threads, kernel=_native.kernels()[0], head=head, slots=4, context=64,
                          cache_type="f32", **rotary_of(c))
    places, content = [], b""
    for name, weight in weights.items():
        if isinstance(weight, tuple):
            data = pack_stripes(weight[0])
        else:
            data = to_bfloat16(weight) if dtype == "bfloat16" else weight.astype(dtype)
        places.append((name, weight, len(content), data.shape))
        content += data.tobytes()
    path.write_bytes(content[:len(content) - cut])
    with path.open("rb") as file:
        for name, weight, offset, shape in places:
            if isinstance(weight, tuple):
                shape, scale, kind = weight[0].shape, float(weight[1][0]), "uint8"
            else:
                scale, kind = 1.0, dtype
            model.set_files([(name, file.fileno(), offset, kind, shape, scale, binary)])
    model.finish()
    return model


def ints(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def run(model: "_native.Model", tokens: NDArray[np.int32], *, slot: int = 0, start: int = 0, chunk: int = 1 << 30,
        ) -> NDArray[np.float32]:
    """Logits of all `tokens` at positions start.. of a slot, sent in chunks."""
    parts = []
    for begin in range(0, len(tokens), chunk):
        piece = np.asarray(tokens[begin:begin + chunk], np.int32)
        n = len(piece)
        parts.append(model.forward(piece, np.full(n, slot, np.int32),
                                   np.arange(start + begin, start + begin + n, dtype=np.int32),
                                   np.arange(n, dtype=np.int32))[0])
    return np.concatenate(parts)


def rms_norm(x: NDArray, weight: NDArray, eps: float) -> NDArray:
    return weight * (x / np.sqrt((x * x).mean(-1, keepdims=True) + eps))


def route(c: dict[str, Any], logits: NDArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each token's experts in ascending order and their weights: float64 softmax, the lowest id among equals."""
    chosen = np.sort(np.argsort(-logits, axis=-1, kind="stable")[:, :c["num_experts_per_tok"]], axis=-1)
    share = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    share = np.take_along_axis(share / share.sum(-1, keepdims=True), chosen, -1)
    return chosen, share / share.sum(-1, keepdims=True) if c["norm_topk_prob"] else share


def reference(c: dict[str, Any], weights: Weights, tokens: NDArray[np.int32]) -> dict[str, NDArray]:
    """Logits and intermediates of one sequence, written from the published formulas in float64."""
    heads, kv_heads, dim, n = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], len(tokens)
    eps, sub_norms = c["rms_norm_eps"], c["model_type"] == "bitnet"
    seen: dict[str, NDArray] = {}

    def linear(name: str, x: NDArray) -> NDArray:
        weight = weights[f"model.{name}.weight"]
        if not isinstance(weight, tuple):
            return x @ weight.astype(np.float64).T
        codes, scale = weight
        if c.get("linear_rms_norm_eps"):
            x = rms_norm(x, weights[f"model.{name}.rms_norm.weight"], c["linear_rms_norm_eps"])
        x_codes, x_scale = absmax(x)
        seen[f"{name}.input_codes"] = x_codes
        seen[f"{name}.accumulator"] = x_codes.astype(np.int32) @ codes.astype(np.int32).T
        return seen[f"{name}.accumulator"] * (x_scale.astype(np.float64) * scale.astype(np.float64))

    def feed(name: str, x: NDArray) -> NDArray:
        gate, up = linear(f"{name}.gate_proj", x), linear(f"{name}.up_proj", x)
        x = (np.maximum(gate, 0) ** 2 if c["hidden_act"] == "relu2" else gate / (1 + np.exp(-gate))) * up
        if sub_norms:
            x = rms_norm(x, weights[f"model.{name}.ffn_sub_norm.weight"], eps)
        return linear(f"{name}.down_proj", x)

    def experts(prefix: str, x: NDArray) -> NDArray:
        logits = seen[f"{prefix}mlp.gate.logits"] = linear(f"{prefix}mlp.gate", x)
        chosen, share = route(c, logits)
        seen[f"{prefix}mlp.gate.experts"] = chosen
        y = np.zeros_like(x)
        for expert in np.unique(chosen):
            rows, places = np.nonzero(chosen == expert)
            y[rows] += share[rows, places, None] * feed(f"{prefix}mlp.experts.{expert}", x[rows])
        if c.get("shared_expert_intermediate_size"):
            gate = 1 / (1 + np.exp(-linear(f"{prefix}mlp.shared_expert_gate", x)))
            y += gate * feed(f"{prefix}mlp.shared_expert", x)
        return y

    angles = np.arange(n)[:, None] * c["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(x: NDArray) -> NDArray:
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    h = weights["model.embed_tokens.weight"][tokens].astype(np.float64)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"layers.{layer}."
        norm = {key: weights.get(f"model.{prefix}{key}.weight") for key in
                ("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "self_attn.q_norm",
                 "self_attn.k_norm")}
        x = seen[f"{prefix}input_layernorm"] = rms_norm(h, norm["input_layernorm"], eps)
        q = linear(f"{prefix}self_attn.q_proj", x).reshape(n, heads, dim)
        k = linear(f"{prefix}self_attn.k_proj", x).reshape(n, kv_heads, dim)
        if c["model_type"] == "qwen3":
            q, k = (rms_norm(a, norm[f"self_attn.{b}_norm"], eps) for a, b in ((q, "q"), (k, "k")))
        q, k = rotate(q), rotate(k)
        v = linear(f"{prefix}self_attn.v_proj", x).reshape(n, kv_heads, dim)
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        attended = np.einsum("hqk,khd->qhd", e / e.sum(-1, keepdims=True), v).reshape(n, heads * dim)
        seen[f"{prefix}self_attn.output"] = attended
        if sub_norms:
            attended = rms_norm(attended, norm["self_attn.attn_sub_norm"], eps)
        h = h + linear(f"{prefix}self_attn.o_proj", attended)
        x = rms_norm(h, norm["post_attention_layernorm"], eps)
        h = seen[f"{prefix}output"] = h + (experts(prefix, x) if c.get("num_experts") else feed(f"{prefix}mlp", x))
    seen["norm"] = rms_norm(h, weights["model.norm.weight"], eps)
    head = weights["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    seen["logits"] = seen["norm"] @ head.astype(np.float64).T
    return seen
