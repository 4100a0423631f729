"""Held-out text is scored document by document as a plain loop over tokens would."""

import math

import pytest
import torch
from torch.nn import functional as F

from tritwise import TritwiseError
from tritwise.config import ModelConfig
from tritwise.config.tokens import END_OF_TEXT
from tritwise.data import Document, document_text, train_tokenizer
from tritwise.model import Decoder
from tritwise.train.evaluate import held_out_bits_per_byte, held_out_by_document, whole

CONTEXT = 48


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    texts = ["x = 1\n", "def f(a):\n    return a + 'é'\n" * 3, "y = 2\n" * 40]
    documents = [Document("r", f"{n}.py", "python", text, len(text), "0", split="held_out", position=n)
                 for n, text in enumerate(texts)]
    tokenizer = train_tokenizer([document_text(d) for d in documents], 280)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    model = Decoder(ModelConfig(vocab_size=280, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                num_attention_heads=2, initializer_range=0.3))
    model.initialise(torch.Generator().manual_seed(0))
    return model, tokenizer, file, documents


def test_a_document_has_the_nats_that_a_loop_over_its_tokens_finds(setting):
    model, tokenizer, file, documents = setting
    found = held_out_by_document(model, file, documents, context=CONTEXT, stride=CONTEXT // 2)
    assert [each.bytes for each in found] == [len(d.text.encode()) for d in documents]
    for document, each in list(zip(documents, found, strict=True))[:2]:  # those that fit into one window
        ids = [tokenizer.token_to_id(END_OF_TEXT), *tokenizer.encode(document_text(document)).ids]
        assert len(ids) <= CONTEXT
        with torch.inference_mode():
            nats = [F.cross_entropy(model(torch.tensor([ids[:n]]))[0, -1], torch.tensor(ids[n])).item()
                    for n in range(1, len(ids))]
        assert each.tokens == len(nats)
        # Float32 sums of other batches: some rounding errors of logits near 1.
        assert each.total_nats == pytest.approx(math.fsum(nats), rel=1e-5)


def test_all_documents_together_are_the_sum_of_each(setting):
    model, _, file, documents = setting
    alone = [held_out_bits_per_byte(model, file, [d], context=CONTEXT, stride=CONTEXT // 2) for d in documents]
    assert alone[2].tokens > CONTEXT  # several windows
    together = held_out_bits_per_byte(model, file, documents, context=CONTEXT, stride=CONTEXT // 2)
    assert (together.tokens, together.bytes) == (whole(alone).tokens, whole(alone).bytes)
    assert together.bits_per_byte == pytest.approx(whole(alone).bits_per_byte, rel=1e-5)


def test_nothing_to_score_is_said(setting):
    model, _, file, _ = setting
    with pytest.raises(TritwiseError, match="nothing to score"):
        held_out_bits_per_byte(model, file, [], context=CONTEXT, stride=CONTEXT // 2)
