"""Whether two models that should be the same are: tensor by tensor, in their tokens and in what they predict.

    verify("model", "model.gguf").agrees
    verify("model", peer="transformers", text=text).first_difference
    verify("model", "model.gguf", peer="llama.cpp")       # predictions of B by llama.cpp
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.common.progress import progress
from tritwise.config import ModelConfig
from tritwise.engine import Model, load
from tritwise.evaluate.agreement import Agreement, agree
from tritwise.evaluate.peers import Peer, PeerName, open_peer
from tritwise.evaluate.weights import DIFFERENT, Opened, TensorComparison, compare_tensors, tensor_names
from tritwise.formats import open_model

# Nothing that the engine could round: differences are those of the models.
_EXACT: dict[str, Any] = {"head": "stored", "cache_type": "f32", "slots": 1}
SAMPLE_TOKENS = 256
# What tokenizers are compared on when no text is given: words, numbers, indentation, signs, other scripts.
SAMPLE_TEXT = ("def größe(values, n=1000):\n    return [x ** 2 / 3.14159 for x in values[:n]]\n\n\n"
               "\tIt's 12:45 -- \"naïve\" 日本語, здравствуй; it'LL cost €25!\r\n   <|x|> 🙂\n")
# Settings that decide what is computed from the weights; shapes are compared by the tensors.
_SETTINGS = ("model_type", "linear_type", "hidden_act", "num_attention_heads", "num_key_value_heads", "head_dim",
             "rms_norm_eps", "linear_rms_norm_eps", "num_experts_per_tok", "norm_topk_prob")


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same model. Ternary codes, norms and routers have no tolerance.

    `scale`: relative difference of a ternary scale beyond equality and named roundings. `matrix`: relative difference
    of a matrix of floats in the Euclidean norm (8 bits cost about 0.01, Q6_K 0.02). `divergence`: mean KL(A || B) in
    nats a token. `agreement`: least share of tokens for which B's likeliest id is A's or one that A finds as likely,
    within 0.2 nats (`Agreement.close_agreement`).
    """

    scale: float = 0.0
    matrix: float = 0.03
    divergence: float = 0.01
    agreement: float = 0.95


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `differences` are sentences, the one that explains most first; none: the models agree.

    `tensors` is empty when there is no B or when its shapes are others; `predictions` is None when vocabularies or
    shapes differ. `sample` says what the predictions were made for; `text` is the document's ids in number.
    """

    a: str
    b: str | None
    peer: str | None
    tensors: tuple[TensorComparison, ...]
    sample: str
    predictions: Agreement | None
    tolerance: Tolerance
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs by more than the tolerance."""
        return not self.differences

    @property
    def first_difference(self) -> str | None:
        """One sentence, None where the models agree."""
        return self.differences[0] if self.differences else None

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dumps`."""
        return asdict(self) | {"agrees": self.agrees, "first_difference": self.first_difference}


def verify(a: str | Path, b: str | Path | None = None, *, text: str | None = None, peer: PeerName | None = None,
           tolerance: Tolerance | None = None, context: int = 512, stride: int | None = None,
           threads: int | None = None) -> Verification:
    """Compare two models that should be the same: directories or GGUF files, by their weights and their predictions.

    With `peer` the second opinion is that program's: on `b`, or on `a` when there is no `b` (then no tensors are
    compared). Predictions are made for `text`, or else for `SAMPLE_TOKENS` random ids that are always the same, in
    windows of at most `context` tokens, `stride` apart. Shows progress.
    Raises TritwiseError for what cannot be opened, for a `text` where A has no tokenizer, and when there is neither
    `b` nor `peer`.
    """
    tolerance = tolerance or Tolerance()
    if b is None and peer is None:
        raise TritwiseError("there is nothing to compare with", why="one model was given, and no other program",
                            fix="give a second model, or --with transformers or --with llama.cpp")
    first = open_model(a)
    second = None if b is None else open_model(b)
    differences: list[str] = []
    tensors: tuple[TensorComparison, ...] = ()
    names = {"a": str(a), "b": None if b is None else str(b), "peer": peer, "tolerance": tolerance}
    of_tensors: list[str] = []
    if second is not None:
        differences += _setting_differences(first.config, second.config)
        if shapes := _shape_differences(first, second):
            return Verification(**names, tensors=(), sample="", predictions=None,
                                differences=(*shapes, *differences))
        tensors = tuple(_compared(first, second))
        of_tensors = _tensor_differences(tensors, tolerance)
    with ExitStack() as stack:
        size = min(context, *(each.config.longest_context for each in (first, second) if each is not None))
        ours = stack.enter_context(load(a, context=size, threads=threads, **_EXACT))
        other: Model | Peer
        if peer is None:
            other = stack.enter_context(load(b, context=size, threads=threads, **_EXACT))
        else:
            other = stack.enter_context(open_peer(peer, b or a, context=size, threads=threads))
        differences += _token_differences(ours, other, SAMPLE_TEXT if text is None else text)
        ids, sample = _sample(ours, text)
        predictions = agree(ours.logits, other.logits, ids, context=size, stride=stride, title="comparing predictions")
    differences += of_tensors
    differences += _prediction_differences(predictions, tolerance)
    return Verification(**names, tensors=tensors, sample=sample, predictions=predictions,
                        differences=tuple(differences))


def compare_weights(a: Opened, b: Opened,
                    tolerance: Tolerance | None = None) -> tuple[tuple[TensorComparison, ...], list[str]]:
    """The tensors of two opened models and what differs by more than the tolerance, without any prediction.

    `a` may be anything with `.config`, `.names()` and `.read(name)`. Shows progress.
    """
    differences = _shape_differences(a, b)
    tensors = () if differences else tuple(_compared(a, b))
    return tensors, [*differences, *_setting_differences(a.config, b.config),
                     *_tensor_differences(tensors, tolerance or Tolerance())]


def _compared(a: Opened, b: Opened) -> Iterator[TensorComparison]:
    with progress("comparing tensors", len(tensor_names(a, b))) as bar:
        for done, tensor in enumerate(compare_tensors(a, b), 1):
            yield tensor
            bar.update(done)


def _sample(model: Model, text: str | None) -> tuple[list[int], str]:
    """Ids to predict, and what they are in words."""
    if text is not None:
        ids = model.codec.document(text)
        return ids, f"{len(ids):,} tokens of the given text"
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, SAMPLE_TOKENS).tolist()
    return ids, f"{SAMPLE_TOKENS} random token ids, always the same (no text was given)"


def _shape_differences(a: Opened, b: Opened) -> list[str]:
    """The first tensor that only one of the models has, or that has another shape; a tied head is the embedding."""
    if a.config.vocab_size != b.config.vocab_size:
        return [f"the vocabularies differ: A has {a.config.vocab_size} tokens, B {b.config.vocab_size}"]
    shapes = [dict(each.config.tensor_shapes()) for each in (a, b)]
    for each in shapes:
        each.setdefault("lm_head.weight", each["model.embed_tokens.weight"])
    for name in dict.fromkeys((*shapes[0], *shapes[1])):
        ours, theirs = (each.get(name) for each in shapes)
        if ours is None or theirs is None:
            return [f"the shapes differ: only {'B' if ours is None else 'A'} has {name}"]
        if ours != theirs:
            return [f"the shapes differ: {name} is {list(ours)} in A and {list(theirs)} in B"]
    return []


def _setting_differences(a: ModelConfig, b: ModelConfig) -> list[str]:
    ours, theirs = ({key: getattr(each, key) for key in _SETTINGS} for each in (a, b))
    for each in (ours, theirs):
        if each["linear_type"] == "binary":  # codes without zeros: the same arithmetic, and GGUF has no name for it
            each["linear_type"] = "ternary"
    found = [f"the settings differ: {key} is {ours[key]} in A and {theirs[key]} in B"
             for key in _SETTINGS if ours[key] != theirs[key]]
    if not np.array_equal(a.rotary()[0], b.rotary()[0]) or a.rotary()[1] != b.rotary()[1]:
        found.append(f"the settings differ: the rotary embedding (theta {a.rope_theta:g} in A, {b.rope_theta:g} in B, "
                     f"scaling {_scaling(a)} in A, {_scaling(b)} in B)")
    return found


def _scaling(config: ModelConfig) -> str:
    return config.rope_scaling.rope_type if config.rope_scaling else "none"


def _token_differences(a: Model, b: Model | Peer, text: str) -> list[str]:
    """Where A and B make different ids of the text; nothing where one of them has no tokenizer."""
    if a.tokenizer is None:
        return []
    if isinstance(b, Model):
        if b.tokenizer is None:
            return []
        ours, theirs = a.codec.document(text), b.codec.document(text)
    else:
        ours, theirs = a.codec.encode(text), b.encode(text)
    if theirs is None or ours == theirs:
        return []
    at, x, y = next((i, x, y) for i, (x, y) in enumerate(zip_longest(ours, theirs)) if x != y)
    return [f"the tokenizers differ: token {at} of the text is {_token(a, x)} in A and {_token(a, y)} in B "
            f"({len(ours)} and {len(theirs)} tokens)"]


def _token(model: Model, id_: int | None) -> str:
    return "missing" if id_ is None else f"{id_} ({model.tokenizer.id_to_token(id_)!r} in A)"


def _tensor_differences(tensors: tuple[TensorComparison, ...], tolerance: Tolerance) -> list[str]:
    """One sentence a kind of difference, with the first tensor it was found in: codes, scales, floats."""
    kinds: dict[str, list[str]] = {"codes": [], "scales": [], "values": []}
    for tensor in tensors:
        if tensor.codes_differ:
            count = int(np.prod(tensor.shape))
            kinds["codes"].append(f"{tensor.name} has {tensor.codes_differ:,} of {count:,} codes that are not the same")
        if tensor.relation == DIFFERENT and tensor.relative_difference > allowed(tensor, tolerance):
            kind, what = ("values", "the values of") if tensor.codes_differ is None else ("scales", "the scale of")
            kinds[kind].append(f"{what} {tensor.name} changed by {tensor.relative_difference:.3g} relative, "
                               f"{tensor.largest_difference:.3g} at most")
    return [found[0] + (f"; so it is in {len(found) - 1} more tensors" if len(found) > 1 else "")
            for found in kinds.values() if found]


def allowed(tensor: TensorComparison, tolerance: Tolerance) -> float:
    """The relative difference that a tensor may have."""
    if tensor.codes_differ is not None:
        return tolerance.scale
    return 0.0 if tensor.role in ("norm", "router") else tolerance.matrix


def _prediction_differences(found: Agreement, tolerance: Tolerance) -> list[str]:
    sentences = []
    if found.divergence > tolerance.divergence:
        sentences.append(f"the predictions differ: KL(A || B) is {found.divergence:.3g} nats a token, "
                         f"{tolerance.divergence:g} is allowed")
    if found.close_agreement < tolerance.agreement:
        sentences.append("the predictions differ: the likeliest token is the same, or one as likely, for "
                         f"{100 * found.close_agreement:.2f} % of the tokens, {100 * tolerance.agreement:g} % is "
                         "asked for")
    return sentences
