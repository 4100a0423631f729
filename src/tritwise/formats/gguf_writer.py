"""`write_gguf`: a model as one GGUF file that llama.cpp, bitnet.cpp or ik_llama.cpp opens.

| model | architecture | who opens it |
|---|---|---|
| bitnet layout, silu, tied head | bitnet | all three |
| bitnet layout, relu2 | bitnet-b1.58 | bitnet.cpp, ik_llama.cpp |
| llama layout | llama | all three |

| type | inputs a block | scale | who has it |
|---|---|---|---|
| TQ1_0, TQ2_0 | 256 | float16 | llama.cpp, ik_llama.cpp |
| I2_S | 128 | float32 | bitnet.cpp, ik_llama.cpp; in the layout of x86 |
| F32, F16, BF16 | 1 | in each weight | all three; what their `llama-quantize` starts from |

What a target cannot hold is refused before anything is written. A scale is rounded once, to what the type keeps.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.config.rope import rope_divisors
from tritwise.formats.gguf_container import GGUFEntry, write_container
from tritwise.formats.gguf_names import ARCHITECTURES, FIM_ORDER, ROPE_FREQS, gguf_name, q_or_k
from tritwise.formats.gguf_packing import TYPE_NUMBERS, pack_floats, pack_ternary
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes
from tritwise.formats.gguf_vocabulary import control_tokens, tokenizer_metadata, whole_tokenizer
from tritwise.formats.packing import TernaryTensor
from tritwise.formats.reader import linear_names

TernaryType = Literal["TQ1_0", "TQ2_0", "I2_S", "F32", "F16", "BF16"]
FloatType = Literal["F32", "F16", "BF16", "Q8_0"]
Read = Callable[[str], np.ndarray | TernaryTensor]
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
# `general.file_type`, what most matrices are: llama.cpp's llama_ftype, and bitnet.cpp's for I2_S.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "I2_S": 40}
_SAME = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def write_gguf(out: str | Path, config: ModelConfig, read: Read, *, ternary_type: TernaryType = "TQ2_0",
               float_type: FloatType | None = None, tokenizer: str | None = None, ids_only: bool = False,
               chat_template: str | None = None) -> None:
    """Write the file `out`, whole or not at all.

    `read(name)` gives a tensor of `config.tensor_shapes()`, as `open_model(...).read` does: a `TernaryTensor` for the
    linears of ternary and binary models, floats for the others. `ternary_type` is for the former; `float_type` for
    embedding, head and dense linears, which keep the type they come in when it is None; norms are float32.
    `tokenizer` is the content of a tokenizer.json; with `ids_only` other programs get no tokenizer, and the
    tokenizer.json goes along whole.

    Raises TritwiseError, before anything is written, for models that no architecture has, for shapes that do not fill
    the blocks of a type (with the tensor, the rule and the nearest sizes), for tokenizers that GGUF has no name for,
    and, with nothing left behind, for values that a type cannot hold.
    """
    architecture = gguf_architecture(config)
    metadata = _metadata(config, architecture, ternary_type, float_type)
    if tokenizer is not None:
        metadata |= whole_tokenizer(tokenizer) if ids_only else tokenizer_metadata(tokenizer, config.vocab_size)
    else:
        metadata["tokenizer.ggml.model"] = "no_vocab"
    metadata |= control_tokens(config, tokenizer)
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    entries = _entries(config, architecture, read, ternary_type, float_type)
    write_container(out, metadata, entries)


def gguf_architecture(config: ModelConfig) -> str:
    """`general.architecture` for the configuration. Raises TritwiseError where none computes the same."""
    def refused(why: str, fix: str = "") -> TritwiseError:
        return TritwiseError("the model cannot be written as GGUF", why=why, fix=fix)

    if config.num_experts:
        raise refused("no architecture there has ternary experts with this router")
    if config.use_rms_norm:
        raise refused("no architecture there has a norm inside of each linear (use_rms_norm)")
    name = {("bitnet", "silu"): "bitnet", ("bitnet", "relu2"): "bitnet-b1.58", ("llama", "silu"): "llama"}.get(
        (config.model_type, config.hidden_act))
    if name is None:
        raise refused(f"no architecture there has the {config.model_type} layout with {config.hidden_act}")
    if name == "bitnet" and not config.tie_word_embeddings:
        raise refused("the architecture bitnet takes the embedding for the head in every program",
                      "train with tie_word_embeddings = true")
    if config.model_type == "bitnet":
        if config.linear_type == "dense":
            raise refused("programs that have the bitnet layout quantise its inputs, so a dense one is another model")
        if config.num_attention_heads * config.head_dim != config.hidden_size:
            raise refused(f"{config.num_attention_heads} heads of {config.head_dim} are not the hidden size "
                          f"{config.hidden_size}, which the bitnet architectures need")
    return name


def _metadata(config: ModelConfig, architecture: str, ternary_type: str, float_type: str | None) -> dict[str, Any]:
    most = float_type if config.linear_type == "dense" else ternary_type
    values: dict[str, Any] = {"general.architecture": architecture, "general.quantization_version": 2}
    if most is not None:
        values["general.file_type"] = _FILE_TYPES[most]
    if config.fim_order != "psm":
        values[FIM_ORDER] = config.fim_order
    settings = {
        "vocab_size": config.vocab_size, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size, "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads, "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim, "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.head_dim, "rope.freq_base": float(config.rope_theta)} | _scaling(config)
    return values | {f"{architecture}.{key}": value for key, value in settings.items()}


def _scaling(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None:
        return {}
    if scaling.rope_type == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if scaling.rope_type == "llama3" and config.model_type == "llama":
        return {}  # the divisors are a tensor
    if scaling.rope_type == "yarn" and set(scaling.model_dump(exclude_none=True)) == {
            "rope_type", "factor", "original_max_position_embeddings"}:
        return {"rope.scaling.type": "yarn", "rope.scaling.factor": float(scaling.factor),
                "rope.scaling.original_context_length": scaling.original_max_position_embeddings}
    raise TritwiseError("the model cannot be written as GGUF",
                        why=f"its rope_scaling ({scaling.rope_type}) with these settings has no counterpart there")


def _entries(config: ModelConfig, architecture: str, read: Read, ternary_type: str,
             float_type: str | None) -> list[GGUFEntry]:
    linears = linear_names(config)
    entries = []
    for name, shape in config.tensor_shapes().items():
        if name in linears:
            kind = ternary_type
        elif len(shape) == 1:
            kind = "F32"
        else:
            kind = float_type or _same_type(read, name)
        number = TYPE_NUMBERS[kind]
        try:
            tensor_bytes(number, shape)
        except ValueError as error:
            raise TritwiseError(f"{name} {list(shape)} cannot be written as {kind}", why=str(error),
                                fix=_other_types(kind, shape)) from None
        heads = config.head_dim if ARCHITECTURES[architecture].interleaved and q_or_k(name) else None
        entries.append(GGUFEntry(gguf_name(name), number, shape, _Pieces(name, read, kind, heads)))
    if config.rope_scaling is not None and config.rope_scaling.rope_type == "llama3":
        divisors = rope_divisors(config.head_dim, config.rope_theta, config.rope_scaling)
        entries.append(GGUFEntry(ROPE_FREQS, TYPE_NUMBERS["F32"], divisors.shape,
                                 lambda: iter([pack_floats("F32", divisors)])))
    return entries


def _same_type(read: Read, name: str) -> str:
    return _SAME[read(name).dtype.name]


def _other_types(kind: str, shape: tuple[int, ...]) -> str:
    others = ("TQ2_0", "I2_S") if kind in ("TQ1_0", "TQ2_0", "I2_S") else ("F32", "F16", "BF16", "Q8_0")
    fits = [other for other in others if shape[-1] % GGUF_TYPES[TYPE_NUMBERS[other]].inputs == 0]
    return f"{' or '.join(fits)} would hold it" if fits else "train with a width that fits"


class _Pieces:
    """A tensor's bytes, made when they are asked for."""

    def __init__(self, name: str, read: Read, kind: str, head_dim: int | None) -> None:
        self._name, self._read, self._kind, self._head_dim = name, read, kind, head_dim

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        tensor = self._read(self._name)
        try:
            if isinstance(tensor, TernaryTensor):
                yield pack_ternary(self._kind, self._interleaved(tensor.codes()), tensor.scale[0])
            else:
                yield pack_floats(self._kind, self._interleaved(tensor))
        except TritwiseError as error:
            raise TritwiseError(f"{self._name} cannot be written: {error.what}", why=error.why, fix=error.fix) from None

    def _interleaved(self, array: np.ndarray) -> np.ndarray:
        """Rows of q and k of the llama architecture as llama.cpp turns them: both halves of a head row by row."""
        if self._head_dim is None:
            return array
        halves = array.reshape(-1, 2, self._head_dim // 2, array.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
