"""Scores of cross-file tasks against transformers' loss, and the windows that they are scored in."""

import math

import pytest
import torch
from test_cross_file import ALL, repository
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from tritwise.common.errors import TritwiseError
from tritwise.config.cross_file import CrossFileWindow
from tritwise.config.pre_tokenizers import CODE
from tritwise.config.tokens import SPECIAL_TOKENS
from tritwise.engine import load
from tritwise.evaluate import find_tasks
from tritwise.evaluate.cross_file import ARMS, CrossFileScore, score, scores
from tritwise.evaluate.cross_file.line_match import match

USER = """
    from . import shapes
    from .shapes import Shape

    def größe(x):
        return shapes.unit(x, 'é') + 1  # a comment

    class Square(Shape):
        def paint(self):
            return [self.colour, 3]

    wide = shapes.LIMIT
"""
CONTEXT = 128


@pytest.fixture(scope="module")
def tasks():
    found = find_tasks(repository(user=USER), ALL)
    assert [task.reference for task in found] == ["unit(x, 'é') + 1", "Shape):", "colour, 3]", "LIMIT"]
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tasks):
    """transformers' model, the directory it saved, and a tokenizer with the project's way to cut code."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=420, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
                         bos_token_id=None, eos_token_id=None, initializer_range=0.15)
    theirs = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("llama")
    theirs.save_pretrained(path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CODE), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    texts = [task.prefix + task.reference for task in tasks] + [f.text for t in tasks for f in t.dependencies]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.encode_special_tokens = True
    tokenizer.save(str(path / "tokenizer.json"))
    return theirs, path, tokenizer


def parts(tokenizer: Tokenizer, task, arm: str, cross: int, room: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The window of a task and, for each id of its file, the characters it stands for; made from offsets."""
    end = tokenizer.token_to_id(SPECIAL_TOKENS[0])
    others = [end]
    for file in {"alone": (), "dependencies": task.dependencies, "others": task.others}[arm]:
        others += [*tokenizer.encode(file.text).ids, end]
    whole = tokenizer.encode(task.prefix + task.reference)
    before = [n for n, (_, stop) in enumerate(whole.offsets) if stop <= len(task.prefix)]
    prefix = whole.ids[:len(before)][-room:]
    return [*others[-cross:], *prefix, *whole.ids[len(before):]], whole.offsets[len(before):]


@pytest.mark.parametrize("arm", ["alone", "dependencies", "others"])
@pytest.mark.parametrize("context", [CONTEXT, 64])
def test_bits_are_transformers_loss_on_the_answer_behind_the_other_files(reference, tasks, arm, context):
    theirs, path, tokenizer = reference
    settings = CrossFileWindow(context=context, cross_file_share=0.5, max_tokens=12)
    with load(path, cache_type="f32") as model:
        ours = score(model, tasks, settings, arms=[arm], generate=[])
    cut = 0
    for task, found in zip(tasks, ours.arms[arm], strict=True):
        whole = tokenizer.encode(task.prefix + task.reference)
        answer = sum(stop > len(task.prefix) for _, stop in whole.offsets)
        ids, places = parts(tokenizer, task, arm, context // 2, context - context // 2 - max(12, answer))
        assert len(ids) <= context
        cut += len(ids) >= context - 12
        labels = torch.tensor([[-100] * (len(ids) - len(places)) + ids[-len(places):]])
        names = labels.clone()
        for n, (start, _) in enumerate(places):
            if start >= len(task.prefix) + len(task.name):
                names[0, len(ids) - len(places) + n] = -100
        with torch.no_grad():
            for expected, value in ((labels, found.bits), (names, found.name_bits)):
                loss = float(theirs(torch.tensor([ids]), labels=expected).loss) * int((expected != -100).sum())
                # Dense logits agree to 1e-4 relative; a sum over tokens no worse.
                assert math.isclose(value, loss / math.log(2), rel_tol=1e-4)
    assert cut or arm != "dependencies" or context == CONTEXT  # the small window cuts something
    summary = ours.summary()[arm]
    assert math.isclose(summary["bits_per_byte"], sum(s.bits for s in ours.arms[arm]) / sum(ours.bytes))
    assert summary["exact"] is None
    assert ours.bytes == tuple(len(task.reference.encode()) for task in tasks)


def test_the_answer_begins_with_the_sign_that_stands_in_one_token_with_the_name(reference, tasks):
    _, path, tokenizer = reference
    assert ".unit" in [tokenizer.decode([id_]) for id_ in range(420)]
    with load(path) as model:
        found = score(model, tasks, CrossFileWindow(max_tokens=8))
        for number, task in enumerate(tasks):
            for arm in ARMS:
                made = found.arms[arm][number]
                assert "\n" not in made.generated
                assert match(made.generated, task.reference) == (
                    made.exact, made.edit_similarity, made.identifiers_exact, made.identifier_f1)
        # The greedy line by hand: the likeliest token that begins with the full stop, then the likeliest ones.
        task = tasks[0]
        ids = [tokenizer.token_to_id(SPECIAL_TOKENS[0]), *tokenizer.encode(task.prefix[:-1]).ids]
        row = model.logits(ids)[-1]
        stops = [n for n in range(420) if tokenizer.decode([n]).startswith(".")]
        ids.append(max(stops, key=lambda n: (row[n], -n)))
        text = tokenizer.decode(ids[-1:]) + model.generate(ids, max_tokens=7).text
        assert found.arms["alone"][0].generated == text.split("\n")[0].removeprefix(".")


def test_a_model_that_knows_the_line_matches_exactly(reference, tasks, monkeypatch):
    monkeypatch.setattr(scores, "_generated", lambda model, heads, prompts, most, arm: [
        task.reference if arm == "definition" else "" for task in tasks])
    with load(reference[1]) as model:
        summary = score(model, tasks, CrossFileWindow(max_tokens=8)).summary()
    assert [summary["definition"][name] for name in ("exact", "edit_similarity", "identifier_f1")] == [1, 1, 1]
    assert [summary["alone"][name] for name in ("exact", "edit_similarity", "identifier_f1")] == [0, 0, 0]


def test_the_definition_is_shown_from_its_line_on(reference, tasks, monkeypatch):
    _, path, tokenizer = reference
    windows = []
    with load(path) as model:
        score_of = model.score
        monkeypatch.setattr(model, "score", lambda fed: score_of(windows.append(each) or each for each in fed))
        score(model, tasks[2:3], CrossFileWindow(cross_file_share=0.5, max_tokens=8), arms=["definition"], generate=[])
    shown = tokenizer.decode(windows[0].ids, skip_special_tokens=False)
    assert shown.startswith("<|end_of_text|># pkg/shapes.py\n        self.colour = None\n")
    assert "paint" in shown
    assert "class Shape" not in shown.split("<|end_of_text|>")[1]


def test_scores_are_the_same_again_whatever_the_slots_and_go_through_json(reference, tasks):
    _, path, _ = reference
    results = []
    for slots, chunk in ((1, 7), (4, 512)):
        with load(path, slots=slots, prefill_chunk=chunk) as model:
            results.append(score(model, tasks, CrossFileWindow(max_tokens=8)))
    assert results[0] == results[1]
    assert CrossFileScore.from_json(results[0].to_json()) == results[0]


def test_what_cannot_be_scored_is_a_clear_error(reference, tasks):
    with load(reference[1]) as model:
        for call, message in (
            (lambda: score(model, []), "nothing to score"),
            (lambda: score(model, tasks, CrossFileWindow(context=CONTEXT + 1)), "does not fit"),
            (lambda: score(model, tasks, CrossFileWindow(context=64, max_tokens=50)), "does not fit"),
            (lambda: score(model, tasks, arms=["all"]), "no arm 'all'"),
        ):
            with pytest.raises(TritwiseError, match=message):
                call()
