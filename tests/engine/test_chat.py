"""Chats: the prompts of transformers for published templates, and control tokens that no message can forge."""

import json

import pytest
from chat_templates import ADDED, BITNET, LLAMA3, MISTRAL, PUBLISHED, SPECIAL
from engine_fakes import CORPUS, byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import scripted_model
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tritwise import TritwiseError
from tritwise.engine import Model
from tritwise.engine.chat import Chat
from tritwise.engine.text import TextCodec
from tritwise.formats import ChatTemplate

TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>"}
CHATS = [
    [{"role": "user", "content": " What is 2 + 2?\n"}],
    [{"role": "system", "content": "Be brief. <b>"}, {"role": "user", "content": "naïve café 漢字 \U0001f600"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "  c  "}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nwell\n</think>\n\nfour"},
        {"role": "user", "content": "and /no_think"},
    ],
    [{"role": "user", "content": "\U000f0000 and \U0010fffd"}],
]


def added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ADDED])
    tokenizer.encode_special_tokens = True
    return tokenizer


def sentencepiece_like(scheme: str | None) -> Tokenizer:
    """A tokenizer that marks words by a space before them, at the start of a text or of every stretch of it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]) if (scheme is None) else None
    )
    tokenizer.pre_tokenizer = None if scheme is None else pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    characters = sorted(
        {character for text in CORPUS for character in text}
        | set("▁<|>[]/_")
        | {character for name in SPECIAL for character in name}
    )
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=200, show_progress=False, initial_alphabet=characters, special_tokens=["<unk>"]),
    )
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {
    "byte level": added(byte_level_tokenizer(320, ())),
    "first": added(sentencepiece_like("first")),
    "never": added(sentencepiece_like("never")),
    "prepend": added(sentencepiece_like(None)),
}


def chat(source: str, tokenizer: Tokenizer = TOKENIZERS["byte level"]) -> Chat:
    codec = TextCodec(tokenizer, tiny_config(len(tokenizer.get_vocab())))
    return Chat(ChatTemplate(source, TOKENS, "tokenizer_config.json"), codec)


def theirs(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    copy = Tokenizer.from_str(tokenizer.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=copy, **TOKENS, additional_special_tokens=list(SPECIAL))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_text_and_ids_are_those_of_transformers(name, kind):
    reference, mine = theirs(TOKENIZERS[kind]), chat(PUBLISHED[name], TOKENIZERS[kind])
    for messages in CHATS:
        for prompt in (False, True):
            if name == "mistral" and messages[0]["role"] == "system":
                with pytest.raises(TritwiseError, match=r"refuses these messages(.|\n)*roles must alternate"):
                    mine.render(messages)
                continue
            settings_ = {"chat_template": PUBLISHED[name], "add_generation_prompt": prompt}
            expected = reference.apply_chat_template(messages, tokenize=False, **settings_)
            assert mine.render(messages, add_generation_prompt=prompt) == expected
            if name == "qwen" or "<think>" not in messages[1 % len(messages)]["content"]:
                ids = reference.apply_chat_template(messages, return_dict=False, **settings_)
                thoughts = any("<think>" in message["content"] for message in messages)
                if not thoughts:
                    assert mine.ids(messages, add_generation_prompt=prompt) == ids


def test_variables_reach_the_template():
    messages = [{"role": "user", "content": "a"}]
    reference = theirs(TOKENIZERS["byte level"])
    expected = reference.apply_chat_template(
        messages, chat_template=PUBLISHED["qwen"], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert chat(PUBLISHED["qwen"]).render(messages, enable_thinking=False) == expected
    assert expected.endswith("</think>\n\n")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x-y": "<|im_end|>"}}}]
    source = "{{ tools | tojson(indent=4) }}{{ documents }}"
    assert chat(source).render(messages, tools=tools) == json.dumps(tools, indent=4) + "None"
    assert set(chat(source).ids(messages, tools=tools)).isdisjoint(controls())


def controls(tokenizer: Tokenizer = TOKENIZERS["byte level"]) -> set[int]:
    return {tokenizer.token_to_id(name) for name in SPECIAL}


def skeleton(mine: Chat, messages, tokenizer: Tokenizer) -> list[int]:
    return [number for number in mine.ids(messages) if number in controls(tokenizer)]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_no_special_token_in_a_message_becomes_a_control_token(name, kind):
    tokenizer = TOKENIZERS[kind]
    mine = chat(PUBLISHED[name], tokenizer)
    expected = skeleton(mine, [{"role": "user", "content": "harmless"}], tokenizer)
    for special in SPECIAL:
        for text in (
            special,
            f"a {special} b",
            special * 3,
            f"<|{special}|>",
            f"{special[:4]}{special}{special[4:]}",
            f"{special}\n",
        ):
            messages = [{"role": "user", "content": text}]
            assert skeleton(mine, messages, tokenizer) == expected
            if kind != "prepend":  # it begins every stretch with a space, and so decodes to other text
                shown = tokenizer.decode(mine.ids(messages), skip_special_tokens=False)
                assert shown.strip() == mine.render(messages).strip()


GLUE = (
    "{{ messages[0].content }}{{ messages[1].content }}",
    "{{ '<|' + messages[0].content + messages[1].content }}",
    "{{ messages[0].content ~ messages[1].content ~ '|>' }}",
    "<|im_{{ messages[0].content }}{{ messages[1].content }}|>",
    "{{ messages|map(attribute='content')|join }}",
    "{{ (messages[0].content + messages[1].content)|upper|lower }}",
    "{{ (messages[0].content ~ messages[1].content).split('x')|join('') }}",
    "{{ (messages[0].content ~ messages[1].content).replace('x', '') }}",
    "{{ (messages[1].content ~ messages[0].content)[::-1] }}",
    "{{ [messages[0].content ~ messages[1].content]|string }}",
    "{{ (messages[0].content ~ messages[1].content)|tojson }}",
    "{{ messages[0].content.strip() }}{{ messages[1].content.strip() }}",
    "{{ '%s%s' % (messages[0].content, messages[1].content) }}",
    "<|{{ messages[0].name }}{{ messages[1].name }}|>",
)


@pytest.mark.parametrize("source", GLUE)
def test_parts_of_a_special_token_that_the_template_puts_together_are_no_control_token(source):
    """Every way to cut every special token in two, also with what the template itself has of it."""
    for tokenizer in (TOKENIZERS["byte level"], TOKENIZERS["first"]):
        mine, forbidden = chat(source, tokenizer), controls(tokenizer)
        for special in SPECIAL:
            for cut in range(len(special) + 1):
                for first, second in (
                    (special[:cut], special[cut:]),
                    (special[:cut] + "x", "x" + special[cut:]),
                    (special[:cut][::-1], special[cut:][::-1]),
                    (special[2:cut], special[max(cut, 2) : -2]),
                ):
                    messages = [
                        {"role": "user", "content": first, "name": first},
                        {"role": "user", "content": second, "name": second},
                    ]
                    assert forbidden.isdisjoint(mine.ids(messages))


@given(
    st.lists(
        st.sampled_from(
            [
                *SPECIAL,
                *(part for name in SPECIAL for part in (name[:3], name[3:])),
                "<|",
                "|>",
                " ",
                "\n",
                "x",
                "</think>",
            ]
        ),
        max_size=6,
    ).map("".join),
    st.sampled_from(sorted(PUBLISHED)),
    st.sampled_from(sorted(TOKENIZERS)),
)
@settings(max_examples=200, deadline=None)
def test_messages_of_tokens_and_their_parts_leave_the_templates_control_tokens_as_they_are(text, name, kind):
    tokenizer = TOKENIZERS[kind]
    mine = chat(PUBLISHED[name], tokenizer)
    found = skeleton(
        mine,
        [{"role": "user", "content": text}, {"role": "assistant", "content": text}, {"role": "user", "content": text}],
        tokenizer,
    )
    assert found == skeleton(
        mine, [{"role": role, "content": "x"} for role in ("user", "assistant", "user")], tokenizer
    )


def test_a_role_that_is_not_known_is_text():
    mine = chat("{{ '<|' + messages[0].role + '|>' }}")
    assert mine.ids([{"role": "user", "content": ""}]) == [TOKENIZERS["byte level"].token_to_id("<|user|>")]
    assert controls().isdisjoint(mine.ids([{"role": "im_end", "content": ""}]))


def test_white_space_that_a_special_token_takes_is_taken_beside_text_that_looks_like_one():
    tokenizer = byte_level_tokenizer(320, ())
    tokenizer.add_special_tokens(
        [AddedToken("<|user|>", special=True, rstrip=True), AddedToken("<|end|>", special=True, lstrip=True)]
    )
    tokenizer.encode_special_tokens = True
    mine = chat("<|user|> \n {{ messages[0].content }}  <|end|>", tokenizer)
    start, *text, end = mine.ids([{"role": "user", "content": "a<|end|>b"}])
    assert (start, end) == (tokenizer.token_to_id("<|user|>"), tokenizer.token_to_id("<|end|>"))
    assert tokenizer.decode(text) == "a<|end|>b"
    assert mine.ids([{"role": "user", "content": "ab"}]) == [start, *tokenizer.encode("ab").ids, end]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (LLAMA3, {"<|endoftext|>", "<|eot_id|>"}),
        (BITNET, {"<|endoftext|>", "<|eot_id|>"}),
        (MISTRAL, {"<|endoftext|>"}),
        (PUBLISHED["smollm"], {"<|endoftext|>", "<|im_end|>"}),
        (PUBLISHED["falcon3"], {"<|endoftext|>"}),
    ],
)
def test_an_answer_ends_where_the_template_ends_one(source, names):
    tokenizer = TOKENIZERS["byte level"]
    assert {tokenizer.id_to_token(number) for number in chat(source).end_ids} == names


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["x"],
        [{"content": "a"}],
        [{"role": "user", "content": 3}],
        [{"role": 1}],
        [{"role": "user", "content": {1}}],
        [{"role": "user", "content": float("nan")}],
    ],
)
def test_what_is_no_message_is_refused(messages):
    with pytest.raises(TritwiseError, match=r"message"):
        chat(LLAMA3).ids(messages)


def test_a_template_that_cannot_be_used_is_named_with_its_file():
    for source in ("{% include 'x' %}", "{{ 'a' * 10**9 }}"):
        with pytest.raises(TritwiseError, match=r"tokenizer_config\.json: the chat template cannot be used"):
            chat(source).render("a")
    with pytest.raises(TritwiseError, match="variables"):
        chat(LLAMA3).render("a", x={1})


def model_with(source: str | None, answer: list[int]) -> Model:
    tokenizer = TOKENIZERS["byte level"]
    size = tokenizer.get_vocab_size()
    model = scripted_model(answer, tokenizer=tokenizer, vocab_size=size)
    template = None if source is None else ChatTemplate(source, TOKENS, "tokenizer_config.json")
    return Model(tiny_config(size), model.backend, tokenizer=tokenizer, chat_template=lambda: template)


def test_the_model_answers_up_to_the_end_of_its_message_and_sees_the_templates_ids():
    tokenizer = TOKENIZERS["byte level"]
    answer = tokenizer.encode("for i").ids
    model = model_with(BITNET, [*answer, tokenizer.token_to_id("<|eot_id|>"), *answer])
    assert model.render_chat("def add") == "<|begin_of_text|>User: def add<|eot_id|>Assistant: "
    completion = model.chat([{"role": "user", "content": "def add"}], max_tokens=60)
    assert (completion.text, completion.finish_reason) == ("for i", "stop")
    assert completion.prompt_tokens == len(model.chat_codec.ids("def add"))
    assert "".join(model.stream_chat("def add", max_tokens=60)) == "for i"


def test_a_model_without_a_template_says_so():
    model = model_with(None, [50])
    for call in (model.chat, model.render_chat, model.stream_chat):
        with pytest.raises(TritwiseError, match="no chat template"):
            call("a")
