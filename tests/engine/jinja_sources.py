# ruff: noqa: E501 (a template a line)
"""Templates of one construct each that jinja2 renders, and templates that have to be refused."""

CONSTRUCTS = """
{{ messages[0]['content'].strip() }}|{{ messages[1].content | trim }}|{{ messages[0].content.lstrip() }}
{{ 'a-b-c'.split('-') }}{{ ' a  b '.split() }}{{ 'a-b-c'.split('-', 1)[-1] }}{{ 'a,b'.split(',')|join('; ') }}
{% for m in messages[::-1] %}{{ m.role }}{{ loop.index }}{{ loop.revindex0 }},{% endfor %}
{{ messages[1:]|length }}{{ messages[-1].role }}{{ 'abc'[::-1] }}{{ 'abcdef'[1:4] }}{{ messages[:1]|map(attribute='role')|list }}{{ [tool]|map(attribute='parameters.type')|list }}{{ [[1, 2]]|map(attribute='1')|list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages|rejectattr('role','eq','user')|map(attribute='role')|join }}
{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.found }}{{ ns.n }}
{% set x = 1 %}{% for i in range(3) %}{% set x = i %}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}{% for k, v in tool.items() %}{{ k }};{% endfor %}{% for k in tool %}{{ k }}{% endfor %}
{% for m in messages if m.role != 'system' %}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}
{{ tool | tojson }}{{ tool | tojson(indent=2) }}{{ messages | tojson }}{{ tool|tojson(separators=(',', ':'), sort_keys=true) }}{{ 'é'|tojson(ensure_ascii=true) }}
{{ messages }}{{ [1, 2.0, none, true, 'x'] }}{{ (1,) }}{{ {'a': 'b'} }}{{ none }}{{ true }}{{ 1.0 }}{{ undefined_name }}
{% macro show(a, b='d', c=none) %}<{{ a }}{{ b }}{{ c }}{{ n }}>{% endmacro %}{{ show(1) }}{{ show(1, c=2) }}{{ show('x', 'y') }}
{{ 1 + 2 * 3 - 4 / 2 }}{{ 7 // 2 }}{{ -7 % 3 }}{{ 2 ** 3 ** 2 }}{{ -n|abs }}{{ (-n)|abs }}{{ 1 ~ 'a' ~ none }}{{ 'a' * 3 }}{{ [0] * 2 }}{{ [1] + [2] }}
{{ 'b' in 'abc' }}{{ 'x' not in messages[0] }}{{ not 1 == 2 }}{{ 1 < 2 < 3 }}{{ 1 == 1.0 }}{{ n > 5 and n < 9 or false }}{{ 'a' < 'b' }}{{ [1] == [1] }}
{{ n is defined }}{{ q is defined }}{{ q is not defined }}{{ none is none }}{{ n is number }}{{ 'a' is string }}{{ tool is mapping }}{{ 'a' is iterable }}{{ [] is sequence }}{{ n is odd }}{{ n is not string }}{{ true is true }}{{ n is divisibleby 7 }}{{ n is integer }}{{ pi is float }}{{ true is boolean }}
{{ 'x' if n == 7 else 'y' }}{{ 'x' if n == 8 }}{{ (n if n else 0) + 1 }}{{ q or 'd' }}{{ q | default('d') }}{{ '' | default('e', true) }}{{ none|d(1) }}
{{ 'hello world-foo (bar'|title }}{{ 'hello WORLD'|capitalize }}{{ 'aB'|upper }}{{ 'aB'|lower }}{{ 'hello wOrld'.title() }}{{ 'aB'.upper() }}{{ 'ab'.capitalize() }}
{{ 'a.b'.replace('.', '--') }}{{ 'aaa'|replace('a', 'b', 2) }}{{ 'abc'.startswith('a') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.find('c') }}{{ 'xxaxx'.strip('x') }}{{ 'xxaxx'.rstrip('x') }}{{ 'a\\nb'.splitlines() }}{{ 'aba'.count('a') }}
{{ tool.get('name') }}{{ tool.get('q') }}{{ tool.get('q', 4) }}{{ tool.keys()|list }}{{ tool.parameters.properties.values()|list }}{{ tool|items|list }}{{ tool.parameters.properties|dictsort }}
{{ '3'|int + 1 }}{{ 'x'|int }}{{ '2.5'|float }}{{ 3|string ~ 'a' }}{{ [3,1,2]|sort }}{{ [3,1,2]|max }}{{ [1,1,2]|unique|list }}{{ [1,2]|first }}{{ [1,2]|last }}{{ [3,4]|reverse|list }}{{ 2.567|round(1) }}{{ 'abc'|list }}{{ 'ab'|length }}{{ [1,2]|count }}
{{ 'a\\nb'|indent }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'x' 'y' }}|{{ "it's" }}|{{ 'it\\'s' }}|{{ '\\u00e9\\t' }}|{{ '%s and %d' % ('a', 3) }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = (1, 2) %}{{ t }}{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }}{% endfor %}
{% set text %}inside {{ n }}{% endset %}{{ text|upper }}{% set up | upper %}abc{% endset %}{{ up }}
{% generation %}answer{% endgeneration %}{% raw %}{{ not run }}{% endraw %}{# nothing #}end
{{ messages[2].content | selectattr('type', '==', 'text') | map(attribute='text') | join('') }}{{ messages[2]['content'][0]['text'] }}{{ messages|map('length')|list }}
{{ loop is defined }}{{ dict(a=1).a }}{{ tool['parameters']['type'] }}{{ messages[0].nothing }}{{ messages.0.role }}{{ [nothing] }}
""".strip().splitlines()

NEST = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
HOSTILE = [
    "{{ 'a' * 10**9 }}", "{{ ('a' * 10**9)|length }}", "{{ 10**9 * 'a' }}", "{{ [0] * 10**9 }}", "{{ 9**999999 }}",
    "{% for i in range(10**9) %}{% endfor %}", "{{ range(10**9)|list }}", "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    *(NEST + use for use in ("{{ ns.x }}", "{{ ns.x|tojson }}", "{{ ns.x == ns.y }}", "{{ ns.x in [ns.y] }}", "{{ ns.x|string }}", "{{ ns.x ~ '' }}",
                             "{{ [ns.x]|join }}", "{{ raise_exception(ns.x) }}", "{{ '%s' % ns.x }}", "{{ dict(a=ns.x)|tojson }}", "{{ [ns.x].index(ns.y) }}")),
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|tojson }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{{ " + "m(" * 40 + "'a' * 1000" + ")" * 40 + " }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{{ " + "[" * 3000 + "]" * 3000 + " }}", "{{ " + "not " * 3000 + "1 }}", "{{ " + "-" * 3000 + "1 }}",
    "{% if true %}" * 1500 + "{% endif %}" * 1500, "{{ 1" + " + 1" * 3000 + " }}", "{{ a" + ".b" * 3000 + " }}", "{{ 'a'" + "|upper" * 3000 + " }}",
    "{{ 'a' if 1 else " * 900 + "1" + " }}" * 900, "x" * 100_000, "{{ a }}" * 9000, "{{ " + "9" * 5000 + " }}", "{# " * 20_000, "{{ '" + "a" * 60_000,
    "{{ ''.__class__ }}", "{{ messages.__class__.__mro__ }}", "{{ ''['__class__'] }}", "{{ messages['__class__'] }}", "{{ messages[0]['__class__'] }}",
    "{{ ''|attr('__class__') }}", "{{ [messages]|map(attribute='__class__')|list }}", "{{ raise_exception.__globals__ }}", "{{ strftime_now._x }}",
    "{{ ''.format(1) }}", "{{ '{0.__class__}'.format(1) }}", "{{ ''.encode() }}", "{{ messages.append(1) }}", "{{ messages.pop() }}", "{{ messages[0].update({}) }}",
    "{{ messages.clear() }}", "{{ ''.join.__self__ }}", "{% set messages.x = 1 %}", "{% set loop.x = 1 %}", "{{ namespace(__init__=1).__init__ }}",
    "{{ 'a'.ljust(10**9) }}", "{{ 'a'.zfill(10**9) }}", "{{ 'a'|center(10**9) }}", "{{ 'a\n'|indent(10**9) }}", "{{ ('a\n' * 9000)|indent(9000) }}",
    "{{ '%1000000000d' % 1 }}", "{{ '%0.999999999f' % 1.0 }}", "{{ '%*d' % (999999999, 1) }}", "{{ strftime_now('%999999999d') }}", "{{ strftime_now('%E' * 40) }}",
    "{{ ('a' * 1000)|replace('a', 'b' * 100000) }}", "{{ ('a' * 60000).replace('', 'b' * 6000) }}", "{{ messages|tojson(indent=99999999) }}",
    "{{ messages|tojson(separators=['a' * 100000, 'b']) }}", "{{ ('b' * 60000).join(['a'] * 9000) }}", "{{ (['a'] * 9000)|join('b' * 60000) }}",
    "{% set x = 'a ' * 60000 %}{% for i in range(9999) %}{% set y = x.split() %}{% endfor %}", "{% set x = 'a' * 60000 %}{% for i in range(9999) %}{% set y = x|upper %}{% endfor %}",
    "{% set x = 'a' * 60000 %}{% for i in range(9999) %}{{ x[::-1]|length }}{% endfor %}", "{% set x = range(9000)|list %}{% for i in range(999) %}{% set y = x|sort %}{% endfor %}",
    "{% set x = range(9000)|list %}{% for i in range(999) %}{{ -1 in x }}{% endfor %}", "{{ range(9000)|list|unique|length }}",
    "{% set x = 'ab' * 30000 %}{% for i in range(9999) %}{{ x.strip('a')|length }}{% endfor %}", "{% set x = 'ab' * 30000 %}{% for i in range(9999) %}{{ x == x }}{% endfor %}",
    "{% set x = ' ' * 60000 %}{% for i in range(9999) %}{{ x|trim }}{% endfor %}", "{% set x = '1' * 60000 %}{% for i in range(9999) %}{{ x|int }}{% endfor %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% block a %}{% endblock %}", "{{ lipsum() }}", "{{ debug() }}", "{{ cycler }}{{ cycler() }}",
    "{% do 1 %}", "{% call x() %}{% endcall %}", "{{ undefined.x }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ 1 + none }}", "{{ messages | nothing }}", "{{ 1 is nothing }}",
    "{{ messages() }}", "{{ range('a') }}", "{{ range(1, 2, 0) }}", "{{ {[]: 1} }}", "{% for a, b in [1] %}{% endfor %}", "{% break %}", "{{ 'a' < 1 }}", "{{ (-8) ** 0.5 }}",
    "{{ 10.0 ** 999 }}", "{{ 1e999|int + 'a' }}", "{{ raise_exception }}", "{{ range }}", "{{ namespace(a=1) }}", "{{ strftime_now(1) }}", "{{ ''.join([1]) }}", "{{ 'a'.split('') }}",
    "{{", "{% if %}", "{{ 'a }}", "{{ a b }}", "{{ ) }}", "{{ 1 + }}", "{% endif %}", "{% %}", "{{ }}", "{{ $ }}", "{{ f(a=1, 2) }}", "{{ a[1 }}", "{% set = 1 %}", "{% macro m( %}",
]
