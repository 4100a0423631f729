"""Whether two models are the same: every way in which they can differ is found, and named first."""

import importlib.util
import sys
import warnings
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from corpus.peer_gguf import finish, writer_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.evaluate import Tolerance, verify
from tritwise.evaluate.verification import SAMPLE_TEXT
from tritwise.evaluate.weights import relation
from tritwise.formats import TernaryTensor, open_model, write_model, write_quantised
from tritwise.formats.gguf_names import gguf_name
from tritwise.formats.reader import linear_names
from tritwise.ternary import absmean

VOCABULARY = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "de"]
CONFIG = ModelConfig(vocab_size=len(VOCABULARY), hidden_size=256, intermediate_size=256, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                     tie_word_embeddings=True)
UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING, NORM = "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"
TEXT = "def ab(de):\n    return ab + de\n" * 6


def weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Latent weights, the embedding large: predictions are far from uniform, so the likeliest token stands out."""
    rng = np.random.default_rng(seed)
    sizes = {True: 0.05, False: 0.1}
    tensors = {name: rng.normal(0, sizes[len(shape) > 1], shape).astype(np.float32) + np.float32(len(shape) == 1)
               for name, shape in config.tensor_shapes().items()}
    return tensors | {EMBEDDING: rng.normal(0, 0.2, tensors[EMBEDDING].shape).astype(np.float32)}


def tokenizer_file(folder: Path, merges: list[tuple[str, str]]) -> Path:
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(VOCABULARY)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_gguf(path: Path, config: ModelConfig, tensors: dict[str, np.ndarray], arch: str, *, kind: str = "TQ2_0",
               embedding: str = "F32") -> Path:
    """A file by the gguf package: block linears as `kind` with their absmean scale in float16, all else float32."""
    writer = writer_of(path, arch, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_merges(["a b", "d e"])
    linears = linear_names(config)
    for name, weight in tensors.items():
        values, stored = weight, embedding if name == EMBEDDING else "F32"
        if name in linears:
            codes, scale = absmean(weight)
            values, stored = codes * np.float32(np.float16(scale)), kind
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):  # llama.cpp turns pairs of neighbours
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        number = gguf.GGMLQuantizationType[stored]
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, number), raw_dtype=number)
    finish(writer)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    write_model(root / "model", CONFIG, weights(CONFIG), form="packed", dtype="float32",
                tokenizer_file=tokenizer_file(root, [("a", "b"), ("d", "e")]))
    return root / "model"


def changed(packed: Path, out: Path, changes: dict[str, object], **settings) -> Path:
    """The packed model with other tensors or settings."""
    directory = open_model(packed)
    tensors = {name: directory.read(name) for name in directory.names()}
    config = directory.config.with_changes(**settings) if settings else directory.config
    write_quantised(out, config, tensors | changes, dtype="float32", tokenizer_file=packed / "tokenizer.json")
    return out


def relations(report, role: str) -> set[str]:
    return {tensor.relation for tensor in report.tensors if tensor.role == role}


@pytest.mark.parametrize(("form", "linear_class"), [("online", "autobitlinear"), ("packed", "bitlinear")])
def test_a_model_in_other_forms_is_the_same_model(packed, tmp_path, form, linear_class):
    write_model(tmp_path / "other", CONFIG, weights(CONFIG), form=form, linear_class=linear_class, dtype="float32",
                tokenizer_file=packed / "tokenizer.json")
    report = verify(packed, tmp_path / "other", text=TEXT)
    assert report.agrees
    assert {tensor.codes_differ for tensor in report.tensors if tensor.role == "block linear"} == {0}
    assert relations(report, "block linear") <= {"equal", "B is 1 / (1 / A) in float32"}
    assert relations(report, "norm") == relations(report, "embedding") == {"equal"}
    assert report.predictions.agreement == 1
    assert report.predictions.tokens == len(open_text(packed)) - 1


def open_text(path: Path) -> list[int]:
    tokenizer = Tokenizer.from_str(open_model(path).tokenizer_json())
    return tokenizer.encode(TEXT).ids


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_a_gguf_file_is_the_same_model_with_scales_in_float16(packed, tmp_path, kind):
    path = write_gguf(tmp_path / "model.gguf", CONFIG, weights(CONFIG), "bitnet", kind=kind)
    report = verify(packed, path, text=TEXT)
    assert report.agrees, report.differences
    assert relations(report, "block linear") == {"B is A in float16"}
    assert 0 < report.predictions.divergence < 0.01
    back = verify(path, packed)
    assert relations(back, "block linear") == {"A is B in float16"}
    assert "256 random token ids" in back.sample


def test_an_embedding_in_8_bits_is_reported_and_accepted_and_refused_below_its_tolerance(packed, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", CONFIG, weights(CONFIG), "bitnet", embedding="Q8_0")
    report = verify(packed, path)
    embedding = next(tensor for tensor in report.tensors if tensor.name == EMBEDDING)
    a, b = open_model(packed).read(EMBEDDING), open_model(path).read(EMBEDDING)
    assert embedding.relation == "different"
    assert embedding.relative_difference == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-4)
    assert embedding.largest_difference == pytest.approx(np.abs(a - b).max())
    assert report.agrees, report.differences
    strict = verify(packed, path, tolerance=Tolerance(matrix=1e-3))
    assert strict.first_difference.startswith(f"the values of {EMBEDDING} changed by 0.00")


def test_one_flipped_code_is_found_and_named(packed, tmp_path):
    tensor = open_model(packed).read(UP)
    codes = tensor.codes().copy()
    codes[17, 31] = -codes[17, 31] or 1
    other = changed(packed, tmp_path / "flipped", {UP: TernaryTensor.from_codes(codes, tensor.scale[0])})
    report = verify(packed, other)
    assert not report.agrees
    assert report.first_difference == f"{UP} has 1 of 65,536 codes that are not the same"
    assert {t.name: t.codes_differ for t in report.tensors if t.codes_differ} == {UP: 1}


@pytest.mark.parametrize(("dtype", "named"), [(ml_dtypes.bfloat16, "B is A in bfloat16"),
                                              (np.float16, "B is A in float16")])
def test_a_rounded_scale_is_named_and_accepted(packed, tmp_path, dtype, named):
    tensor = open_model(packed).read(UP)
    rounded = tensor.scale.astype(dtype).astype(np.float32)
    other = changed(packed, tmp_path / "rounded", {UP: TernaryTensor(tensor.packed, rounded, tensor.shape)})
    report = verify(packed, other)
    assert report.agrees, report.differences
    assert [t.relation for t in report.tensors if t.relation != "equal"] == [named]


def test_a_scale_that_no_rounding_explains_differs_unless_it_is_allowed(packed, tmp_path):
    tensor = open_model(packed).read(UP)
    scale = tensor.scale * np.float32(1.001)
    other = changed(packed, tmp_path / "scaled", {UP: TernaryTensor(tensor.packed, scale, tensor.shape)})
    assert verify(packed, other).first_difference.startswith(f"the scale of {UP} changed by 0.000999 relative")
    assert verify(packed, other, tolerance=Tolerance(scale=0.002)).agrees


def test_a_norm_has_no_tolerance(packed, tmp_path):
    other = changed(packed, tmp_path / "norm", {NORM: open_model(packed).read(NORM) * np.float32(1.0001)})
    assert NORM in verify(packed, other).first_difference


def test_the_first_difference_is_that_of_the_tokenizers(packed, tmp_path):
    directory = open_model(packed)
    other = changed(packed, tmp_path / "tokens", {NORM: directory.read(NORM) * np.float32(2)})
    tokenizer_file(other, [("a", "b")])
    report = verify(packed, other, text=TEXT)
    assert report.first_difference == ("the tokenizers differ: token 0 of the text is 257 ('de' in A) in A and 67 ('d' "
                                       "in A) in B (156 and 174 tokens)")
    assert NORM in report.differences[1]
    assert verify(packed, other).first_difference.startswith("the tokenizers differ")  # on SAMPLE_TEXT
    assert "de" in SAMPLE_TEXT


@pytest.mark.parametrize(("settings", "said"), [
    ({"hidden_act": "relu2"}, "hidden_act is silu in A and relu2 in B"),
    ({"rms_norm_eps": 1e-3}, "rms_norm_eps is 1e-05 in A and 0.001 in B"),
    ({"rope_theta": 5e5}, "the rotary embedding (theta 10000 in A, 500000 in B"),
])
def test_settings_that_change_the_arithmetic_come_before_what_they_cause(packed, tmp_path, settings, said):
    report = verify(packed, changed(packed, tmp_path / "other", {}, **settings))
    assert said in report.first_difference
    assert {tensor.relation for tensor in report.tensors} == {"equal"}
    assert report.predictions.divergence > 0


@pytest.mark.parametrize(("settings", "said"), [
    ({"vocab_size": 300}, "the vocabularies differ: A has 258 tokens, B 300"),
    ({"num_hidden_layers": 1}, "the shapes differ: only A has model.layers.1."),
    ({"intermediate_size": 128}, "the shapes differ: model.layers.0.mlp.gate_proj.weight is [256, 256] in A and"),
    ({"tie_word_embeddings": False, "vocab_size": 300}, "the vocabularies differ"),
    ({"use_rms_norm": True}, "the shapes differ: only B has model.layers.0.self_attn.q_proj.rms_norm.weight"),
])
def test_other_shapes_are_said_first_and_nothing_else_is_compared(packed, tmp_path, settings, said):
    config = CONFIG.with_changes(**settings)
    write_model(tmp_path / "other", config, weights(config), form="packed")
    report = verify(packed, tmp_path / "other")
    assert report.first_difference.startswith(said)
    assert report.tensors == ()
    assert report.predictions is None


def test_another_eps_of_the_norms_inside_of_linears_is_said(tmp_path):
    config = CONFIG.with_changes(use_rms_norm=True)
    tensors = weights(config)
    for name, eps in (("a", 1e-6), ("b", 0.5)):
        write_model(tmp_path / name, config.with_changes(linear_rms_norm_eps=eps), tensors, form="packed")
    report = verify(tmp_path / "a", tmp_path / "b")
    assert report.first_difference.endswith("linear_rms_norm_eps is 1e-06 in A and 0.5 in B")


def test_a_head_of_its_own_that_is_the_embedding_makes_no_difference(packed, tmp_path):
    head = open_model(packed).read(EMBEDDING)
    other = changed(packed, tmp_path / "untied", {"lm_head.weight": head}, tie_word_embeddings=False)
    assert verify(packed, other).agrees
    untied = changed(packed, tmp_path / "head", {"lm_head.weight": -head}, tie_word_embeddings=False)
    assert verify(packed, untied).first_difference.startswith("the values of lm_head.weight changed by 2 relative")


def test_relations_are_exact_and_the_first_that_holds_for_every_value():
    a = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    half = a.astype(np.float16)
    assert relation(a, a) == ("equal", 0.0, 0.0)
    assert relation(a, half)[0] == "B is A in float16"
    assert relation(half, a)[0] == "A is B in float16"
    assert relation(a, a.astype(ml_dtypes.bfloat16))[0] == "B is A in bfloat16"
    almost = half.astype(np.float32)
    almost[2999] = np.nextafter(almost[2999], 9)
    text, relative, largest = relation(a, almost)
    assert text == "different"
    assert relative == pytest.approx(np.linalg.norm(a - almost) / max(np.linalg.norm(a), np.linalg.norm(almost)))
    assert largest == np.abs(a.astype(np.float64) - almost).max()
    assert relation(np.zeros(3, np.float32), np.zeros(3, np.float32)) == ("equal", 0.0, 0.0)


@pytest.fixture
def eager():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.compile as a decorator, inside of transformers
        yield


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
@pytest.mark.parametrize("linear_type", ["ternary", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_is_of_the_same_opinion(packed, tmp_path, eager, model_type, linear_type, dtype):
    config = CONFIG.with_changes(model_type=model_type, linear_type=linear_type)
    form = "float" if linear_type == "dense" else "packed"
    write_model(tmp_path / "model", config, weights(config), form=form, dtype=dtype,
                tokenizer_file=packed / "tokenizer.json")
    report = verify(tmp_path / "model", peer="transformers", text=TEXT, threads=1)
    assert report.agrees, report.differences
    assert (report.b, report.tensors) == (None, ())
    if linear_type == "dense":
        assert report.predictions.largest_difference < 1e-3
        path = write_gguf(tmp_path / "model.gguf", config, weights(config), "llama", kind="F32")
        if model_type == "llama" and dtype == "float32":
            assert verify(tmp_path / "model", path, peer="transformers").agrees


def test_transformers_is_of_another_opinion_of_another_model(packed, tmp_path, eager):
    other = changed(packed, tmp_path / "other", {NORM: -open_model(packed).read(NORM)})
    report = verify(packed, other, peer="transformers")
    assert NORM in report.first_difference
    assert any("KL(A || B)" in sentence for sentence in report.differences)


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None,
                    reason="`make test-llama-cpp` runs it: llama-cpp-python takes ten minutes to compile")
@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_llama_cpp_is_of_the_same_opinion(packed, tmp_path, kind):
    path = write_gguf(tmp_path / "model.gguf", CONFIG, weights(CONFIG), "bitnet", kind=kind)
    report = verify(packed, path, peer="llama.cpp", text=TEXT)
    assert report.agrees, report.differences
    assert report.predictions.divergence > 0
    path.write_bytes(path.read_bytes().replace(b"bitnet.block_count", b"bitnet.block_kount"))
    with pytest.raises(TritwiseError):
        verify(path, peer="llama.cpp")


def test_what_cannot_be_asked_is_an_error(packed, tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "model.gguf", CONFIG, weights(CONFIG), "bitnet")
    with pytest.raises(TritwiseError, match="there is nothing to compare with"):
        verify(packed)
    with pytest.raises(TritwiseError, match=r"transformers cannot be asked about .*model.gguf\nwhy: .*dense"):
        verify(path, peer="transformers")
    with pytest.raises(TritwiseError, match="there is no program 'mlx'"):
        verify(packed, peer="mlx")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else found(name))
    with pytest.raises(TritwiseError, match=r"llama.cpp cannot be asked\nwhy: llama_cpp .*\ntry: pip install"):
        verify(path, peer="llama.cpp")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys)
    with pytest.raises(TritwiseError, match=r"llama.cpp cannot be asked about .*\nwhy: it opens GGUF files"):
        verify(packed, peer="llama.cpp")
