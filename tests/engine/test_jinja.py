"""Templates render to what jinja2 renders as transformers sets it up, and hostile ones are refused in no time."""

import time
import tracemalloc

import pytest
from chat_templates import PUBLISHED
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja_sources import CONSTRUCTS, HOSTILE
from transformers.utils.chat_template_utils import _compile_jinja_template as reference

from tritwise import TritwiseError
from tritwise.engine.jinja import Template, TemplateRefusal
from tritwise.engine.jinja_tokens import string_constants

VALUES = {
    "messages": [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "Hé <b> 'q' \"w\"\n"},
        {"role": "assistant", "content": [{"type": "text", "text": "ok"}, {"type": "image"}]},
    ],
    "bos_token": "<s>",
    "add_generation_prompt": True,
    "tools": None,
    "n": 7,
    "pi": 3.5,
    "tool": {"name": "f", "parameters": {"type": "object", "properties": {"b": {"type": "int"}, "a": 1}}},
}


@pytest.mark.parametrize("source", CONSTRUCTS)
def test_each_construct_renders_as_jinja2_renders_it(source):
    expected = reference(source).render(**VALUES)
    assert Template(source).render(VALUES)[0] == expected
    # Written by a user, with every character in a control token, it is the same text.
    theirs = {key: VALUES[key] for key in ("messages", "tool")}
    others = {key: value for key, value in VALUES.items() if key not in theirs}
    everything = "".join(map(chr, range(0x21, 0x7F))) + "é"
    assert Template(source).render(others, written=theirs, controls=[everything])[0] == expected


@pytest.mark.parametrize(
    "source",
    [
        "  {% if true %}  \n x\n  {% endif %}\ny",
        "{%- if true -%} x {%- endif -%} y",
        "a  {{- 'b' -}}  c",
        "a\n\n  {#- x -#}\n b",
        "x\r\n{% if true %}\r\ny{% endif %}\n\n",
        "  {%+ if true %}\n z{% endif +%}\n",
        "{{ 'a' }}\n{{ 'b' }}\n",
        "\n\n{% set a = 1 %}\n\n",
        "a {# c #}\n b",
        "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n",
        "{{ '%}' }}{% if '}}' %}x{% endif %}",
        "",
        "\n",
        "{",
        " {% raw %} a {% endraw %} \n b",
    ],
)
def test_white_space_is_left_and_taken_as_by_jinja2(source):
    assert Template(source).render({})[0] == reference(source).render()


@given(
    st.lists(
        st.sampled_from(
            [
                "{% if a %}",
                "{% endif %}",
                "{%- if a -%}",
                "{%- endif -%}",
                "{{ a }}",
                "{{- a -}}",
                "{# c #}",
                "{#- c -#}",
                "\n",
                " ",
                "  ",
                "x",
                "{% for i in b %}",
                "{% endfor %}",
                "{%+ set c = 1 +%}",
            ]
        ),
        max_size=14,
    )
)
@settings(max_examples=150, deadline=None)
@example(["{% if a %}", "\n", "  ", "{% endif %}", "\n", "\n"])
def test_tags_and_white_space_in_any_order_give_what_jinja2_gives(pieces):
    source = "".join(pieces)
    try:
        expected = reference(source).render(a="A", b=[1, 2])
    except Exception:  # jinja2 refuses it as malformed
        with pytest.raises(TritwiseError):
            Template(source).render({"a": "A", "b": [1, 2]})
        return
    assert Template(source).render({"a": "A", "b": [1, 2]})[0] == expected


def test_a_date_is_todays_and_the_templates_own_refusal_is_told():
    source = "{{ strftime_now('%d %b %Y') }}"
    assert Template(source).render({})[0] == reference(source).render()
    with pytest.raises(TemplateRefusal, match="only 1 role"):
        Template("{{ raise_exception('only ' ~ 1 ~ ' role') }}").render({})


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[-60:])
def test_a_hostile_or_broken_template_is_refused_within_50_ms_and_50_mb(source):
    def refused():
        with pytest.raises((TritwiseError, TemplateRefusal)):
            Template(source).render(
                {"messages": []}, written={"messages": [{"role": "user", "content": "x"}]}, controls=["<|x|>"]
            )

    seconds = []
    for _ in range(3):  # the best of three: this machine's other work is not the template's
        start = time.process_time()
        refused()
        seconds.append(time.process_time() - start)
        if seconds[-1] < 0.05:
            break
    assert min(seconds) < 0.05
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_long_conversation_is_within_the_budget():
    messages = [{"role": "user" if n % 2 == 0 else "assistant", "content": "word </b> " * 3000} for n in range(60)]
    for source in PUBLISHED.values():
        values = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
        found = Template(source).render(values, written={"messages": messages}, controls=["<|end|>"])[0]
        assert found == reference(source).render(messages=messages, **values)


@given(st.lists(st.text(st.sampled_from("<|ab>/ \n\U000f0000"), max_size=6), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_characters_of_a_user_stay_marked_through_every_operation(texts):
    sources = [
        "{{ t.strip() }}",
        "{{ t|upper }}",
        "{{ t.split('|')|join('#') }}",
        "{{ t.replace('a', 'b<') }}",
        "{{ t[::-1] }}",
        "{{ t|tojson }}",
        "{{ '<' ~ t ~ '|>' }}",
        "{{ [t] }}",
        "{{ t|title }}",
        "{{ t|replace('|', '|') }}",
        "{{ t.lstrip('<') }}",
    ]
    for source in sources:
        for text in texts:
            expected = reference(source).render(t=text)
            found, marks = Template(source).render({}, written={"t": text}, controls=["<|a/b|>"])
            assert found == expected
            # What a template adds are these characters, and none of them is taken for a user's.
            mine = sum(marks)
            constants = sum(found.count(c) for c in "<|ab>/")
            assert mine <= constants
            if source in ("{{ t.strip() }}", "{{ t[::-1] }}", "{{ t.lstrip('<') }}"):
                assert mine == constants


def test_constants_of_a_template_are_found():
    assert string_constants("a{{ 'x' }}{% if \"y\\n\" %}z{% endif %}{# 'no' #}") == {"x", "y\n"}
