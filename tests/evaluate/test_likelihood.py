"""Perplexity and bits per byte against transformers' loss, and against their own definition."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from tritwise.common.errors import TritwiseError
from tritwise.config.tokens import SPECIAL_TOKENS
from tritwise.data.windows import scoring_windows
from tritwise.engine import load
from tritwise.evaluate import bits_per_byte, perplexity

TEXT = "def größe(x):\n    return x * 2\n\nfor i in range(3):\n    print(größe(i))\n" * 3
CONTEXT = 64


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """transformers' own model and the directory it saved, with a byte-level tokenizer beside it."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=280, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
                         bos_token_id=None, eos_token_id=None, initializer_range=0.15)
    model = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=280, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(path / "tokenizer.json"))
    return model, path, tokenizer


def transformers_nats(model, ids: list[int], context: int, stride: int) -> tuple[float, int]:
    total, count = 0.0, 0
    for window in scoring_windows(len(ids), context, stride):
        part = torch.tensor([ids[window.start:window.stop]])
        labels = part.clone()
        labels[:, :window.first_scored - window.start] = -100
        scored = window.stop - window.first_scored
        with torch.no_grad():
            total += float(model(part, labels=labels).loss) * scored
        count += scored
    return total, count


@pytest.mark.parametrize(("context", "stride"), [(CONTEXT, 32), (20, 7), (CONTEXT, 63)])
def test_perplexity_is_that_of_transformers_on_the_same_windows(reference, context, stride):
    theirs, path, tokenizer = reference
    ids = [tokenizer.token_to_id(SPECIAL_TOKENS[0]), *tokenizer.encode(TEXT).ids]
    assert len(ids) > 2 * CONTEXT
    total, count = transformers_nats(theirs, ids, context, stride)
    with load(path, prefill_chunk=50) as model:
        ours = perplexity(model, TEXT, context, stride)
        assert perplexity(model, ids, context, stride).total_nats == ours.total_nats
    assert ours.tokens == count == len(ids) - 1
    # Dense logits agree to 1e-4 relative; a mean over tokens no worse.
    assert math.isclose(ours.total_nats, total, rel_tol=1e-4)
    assert math.isclose(ours.perplexity, math.exp(total / count), rel_tol=1e-3)


def test_bits_per_byte_sums_documents_that_are_each_scored_from_their_own_beginning(reference):
    _, path, _ = reference
    documents = [TEXT, "", "x = 1\n", "größe"]
    with load(path) as model:
        whole = bits_per_byte(model, documents, CONTEXT, 32)
        parts = [perplexity(model, text, CONTEXT, 32) for text in documents if text]
    assert whole.bytes == sum(len(text.encode()) for text in documents)
    assert whole.tokens == sum(part.tokens for part in parts)
    assert math.isclose(whole.total_nats, sum(part.total_nats for part in parts), rel_tol=1e-15)
    assert math.isclose(whole.bits_per_byte, whole.total_nats / math.log(2) / whole.bytes, rel_tol=1e-15)
    assert whole.to_json()["bits_per_byte"] == whole.bits_per_byte


def test_the_result_does_not_depend_on_slots_or_chunks(reference):
    _, path, _ = reference
    totals = []
    for slots, chunk in ((1, 1), (3, 17), (4, 512)):
        with load(path, slots=slots, prefill_chunk=chunk) as model:
            totals.append(bits_per_byte(model, [TEXT, TEXT[7:]], CONTEXT, 16).total_nats)
    assert len(set(totals)) == 1


def test_the_score_of_a_window_is_the_log_softmax_of_the_models_logits(reference):
    _, path, _ = reference
    ids = list(np.random.default_rng(0).integers(0, 280, 40))
    with load(path) as model:
        rows = model.logits(ids).astype(np.float64)
        result = perplexity(model, ids)
    log_softmax = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    expected = -log_softmax[np.arange(39), ids[1:]].sum()
    assert math.isclose(result.total_nats, expected, rel_tol=1e-13)
    assert result.bytes is None
    assert result.bits_per_byte is None


def test_what_cannot_be_scored_is_a_clear_error(reference):
    _, path, _ = reference
    with load(path) as model:
        for call, message in (
            (lambda: bits_per_byte(model, ["", ""]), "nothing to score"),
            (lambda: perplexity(model, [5]), "nothing to score"),
            (lambda: perplexity(model, TEXT, 65, 32), "65 tokens does not fit"),
            (lambda: perplexity(model, TEXT, 32, 32), "32 tokens cannot be 32 apart"),
        ):
            with pytest.raises(TritwiseError, match=message):
                call()
