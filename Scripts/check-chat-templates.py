#!/usr/bin/env python3
"""Make the golden outputs of the chat template tests with the Jinja2 package, set up as Hugging Face sets it up.

    pip install jinja2
    Scripts/check-chat-templates.py     # rewrites Tests/FlashInferEngineTests/Fixtures/templates/golden.json

The whole templates are the .jinja files beside it; SNIPPETS are one construct each. An output of null means that
rendering fails there.
"""
import datetime
import json
import pathlib

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "Tests/FlashInferEngineTests/Fixtures/templates"
NOW = datetime.datetime(2026, 3, 7, 16, 5, 9)

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather in a \"place\" <now> & later",
     "parameters": {"type": "object", "properties": {"place": {"type": "string", "enum": ["Zürich", "東京"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 14.5}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {}}},
]
QUESTION = {"role": "user", "content": "What is the capital of France?"}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function",
     "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2}}}]}
CONVERSATIONS = {
    "question": {"messages": [QUESTION]},
    "no prompt": {"messages": [QUESTION], "add_generation_prompt": False},
    "system": {"messages": [{"role": "system", "content": " Be brief. "}, QUESTION]},
    "turns": {"messages": [QUESTION, {"role": "assistant", "content": "  Paris.\n"},
                           {"role": "user", "content": "And of Peru?\r\n"}]},
    "thinking": {"messages": [QUESTION, {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nParis."},
                              {"role": "user", "content": "Sure? 👍🏽"}], "enable_thinking": False},
    "reasoning": {"messages": [QUESTION, {"role": "assistant", "content": "Paris.", "reasoning_content": "\nHm\n"}]},
    "tools": {"messages": [QUESTION, CALL, {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "abcdefghi"},
                           {"role": "assistant", "content": "Sunny."}], "tools": TOOLS},
    "wrong order": {"messages": [{"role": "assistant", "content": "Hi"}, QUESTION]},
    "empty": {"messages": [{"role": "user", "content": ""}]},
}

SNIPPETS = [
    "{{ 1 + 2 * 3 ** 2 // 4 - 7 % 4 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ 1.0 }} {{ 1e20 }}",
    "{{ 'a' ~ 1 + 2 ~ none ~ true ~ 1.5 }} {{ [1, 'b', none, true, 2.5, {'k': 'it\\'s'}] }} {{ ('x', 'y') }}",
    "{{ 'abc'[::-1] }} {{ 'abcdef'[1:-1:2] }} {{ [1,2,3,4][-2:] }} {{ [1,2,3][5:] }} {{ 'héllo'[1] }} {{ [1,2,3][-1] }}",
    "{{ [1,2,3,4,5][::-2] }} {{ [1,2,3][10::-1] }} {{ [1,2,3][-10:2] }} {{ 'abc'[:0] }}|{{ [1,2,3][2:0:-1] }}",
    "{% for i in range(3) %}{{ i }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
    "{% for i in [] %}x{% else %}empty{% endfor %} {% for c in 'añ👍' %}[{{ c }}]{% endfor %}",
    "{% for k, v in {'b': 1, 'a': 2}.items() %}{{ loop.index }}{{ k }}={{ v }};{% endfor %} {{ {'b': 1}.get('z', 'no') }}",
    "{% for x in [1,2,3,4,5,6] if x % 2 == 0 %}{{ loop.index0 }}:{{ x }}/{{ loop.length }}/{{ loop.revindex }} {% endfor %}",
    "{% for x in [3,1,2] %}{{ loop.previtem if loop.previtem is defined else '-' }}<{{ x }}>{{ loop.nextitem | default('-') }} {% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for a in [1,2] %}{% for b in [1,2] %}{{ loop.depth }}{{ a }}{{ b }}{{ loop.cycle('x', 'y') }} {% endfor %}{% endfor %}",
    "{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% set a, b = 1, 'two' %}{{ a }}{{ b }} {% set c %}block {{ a }}{% endset %}[{{ c }}]",
    "{% macro f(x, y=2, z='q') %}({{ x }}{{ y }}{{ z }}){% endmacro %}{{ f(1) }}{{ f(1, z=3) }}{{ f(x='k', y=none) }}{{ f(1,2,3) ~ '!' }}",
    "{% macro fact(n) %}{{ n * (fact(n - 1) | int) if n > 1 else 1 }}{% endmacro %}{{ fact(10) }}",
    "{% if x is defined %}d{% elif y is undefined and not z %}u{% else %}e{% endif %}{{ x }}{{ x | default('dx') }}{{ '' | default('f', true) }}",
    "{{ x.y }}", "{{ none.y is defined }}", "{{ x['y'] }}", "{{ x() }}", "{{ 1 + 'a' }}", "{{ 1 // 0 }}", "{{ 'a' < 1 }}",
    "{{ 'b' in 'abc' }} {{ 2 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 'z' not in 'abc' }} {{ not 1 == 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }}",
    "{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 'a' }} {{ [1] == [1] }} {{ none == false }} {{ {'a': 1} == {'a': 1} }} {{ 'a' != 'b' }}",
    "{{ 'yes' if 1 else 'no' }}{{ 'x' if 0 }}{{ 0 or 'or' }}{{ 1 and 'and' }}{{ none or '' or 'last' }}{{ not '' }}",
    "{{ ' a b '|trim }}|{{ 'aB'|upper }}|{{ 'aB'|lower }}|{{ 'hello wORLD'|capitalize }}|{{ \"hello w's-x\"|title }}|{{ 'abc'|length }}|{{ [1,2]|count }}",
    "{{ [1,2,'c']|join('-') }} {{ [{'a': 1}, {'a': 2}]|join(',', attribute='a') }} {{ ['x','y']|first }} {{ 'xyz'|last }} {{ [3,1,2]|sort }} {{ ['b','A']|sort|join }}",
    "{{ 'aXbXc'|replace('X', '--') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'abc'.replace('', '.') }} {{ 'añb'.replace('', '.') }}",
    "{{ [{'r': 'a', 'n': 1}, {'r': 'b'}, {'r': 'a', 'n': 3}]|selectattr('r', 'equalto', 'a')|map(attribute='n')|list }}",
    "{{ [{'r': 'a'}, {'r': 'b'}, {}]|rejectattr('r', 'eq', 'a')|list|length }} {{ [{'x': 0}, {'x': 1}]|selectattr('x')|list }} {{ [1,2,3]|select('odd')|list }} {{ [1,0,2]|reject|list }}",
    "{{ ['a','b']|map('upper')|join }} {{ [' a ']|map('trim')|list }} {{ [1,2,3]|sum }} {{ [3,9,4]|max }} {{ [3,9,4]|min }} {{ [1,1,2]|unique|list }} {{ 'abc'|reverse }} {{ [1,2]|reverse|list }}",
    "{{ '3'|int + 1 }} {{ 'x'|int }} {{ '2.7'|int }} {{ 2.7|int }} {{ '1.5'|float }} {{ -3|abs }} {{ 5|string + 'x' }} {{ 'ab'|list }} {{ 2.5|round }} {{ 2.567|round(2) }}",
    "{{ {'z': [1, 2.0, none, true], 'a': {'k': 'v\\n\"q\" é 👍 <>&\\''}}|tojson }}",
    "{{ {'z': [1, {'b': []}], 'a': {}}|tojson(indent=2) }}", "{{ 'tab\\t\\u0001\\x7f'|tojson }}", "{{ [3, 'x']|tojson(indent=4) }}",
    "{{ {'b': 1, 'a': 2}|items|list }} {{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1}.keys()|list }} {{ {'b': 1}.values()|list }}",
    "{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a\\n'.rstrip('\\n') }}|{{ ' a'.lstrip() }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}",
    "{{ 'a-b-c'.rsplit('-', 1) }} {{ ' a b  c '.split(none, 1) }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ 'abcabc'.rfind('b') }} {{ 'aXa'.count('a') }} {{ 'a\\nb\\n'.splitlines() }}",
    "{{ '12'.isdigit() }} {{ 'ab'.upper().lower().title() }} {{ '-'.join(['a', 'b']) }} {{ 'xay'.removeprefix('x').removesuffix('y') }}",
    "{{ 1 is number }} {{ 'a' is string }} {{ [] is iterable }} {{ {} is mapping }} {{ none is none }} {{ 1 is not none }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 'a' is in ['a'] }} {{ 1 is sameas 1 }}",
    "{{ not x is defined }} {{ 'a' is equalto 'a' and true }} {{ [1] is sequence }} {{ 'ab' is mapping }} {{ false is false }} {{ true is true }} {{ 5 is gt 3 }} {{ 5 is lt(3) }}",
    "a  {%- if true -%}  b  {%- endif -%}  c", "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "  {{ 'x' }}  \n  {# c #}\n y", "{% if true %}\n\nx{% endif %}\n\n",
    "x {%+ if true %} y {% endif +%}\nz", "  {%+ if true %}y{% endif %}", "{#- a -#}  b  {{- 'c' -}}  d\r\ne\rf", "\n\n{% set a = 1 %}  \n{{ a }}\n",
    "{% raw %}{{ not }} {% here %}{% endraw %}!", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}['a']['b'] }}{{ '{{' }}", "{{ 'a' 'b' }}{{ 'q\\'\\\\\\n\\d' }}",
    "{{ strftime_now('%d %b %Y %H:%M:%S %j %A %B %p %I %y %%') }}", "{{ raise_exception('no ' ~ 1) }}", "{% for m in messages %}{{ m.role }}{{ m['content'] }}{% endfor %}",
    "{% generation %}g{% endgeneration %}", "{{ 'line1\\nline2\\n\\nx'|indent(2) }}|{{ 'a\\nb'|indent(2, true) }}", "{{ '<a href=\"x\">'|escape }} {{ dict(a=1)['a'] }} {{ range(5, 0, -2)|list }}",
    "{{ [1, 2] + [3] }} {{ 'ab' * 3 }} {{ messages[0].role.upper() }} {{ messages|length }} {{ messages[-1]['content'][:4] }} {{ loop is defined }}",
    "{{ 'ß'|upper }} {{ 'İ'|lower|length }} {{ 'e\\u0301' == '\\u00e9' }} {{ 'a\\r\\nb'|length }} {{ 'a\\r\\nb'.split('\\n') }}",
    "{{ 10|string|length }} {{ (1, 2)[0] }} {{ {'a': 1}.a }} {{ 1.5 + 1 }} {{ 3 * 1.0 }} {{ 1_000 }} {{ 2 * 3 ~ 'x' }} {{ -2 ** 2 }} {{ -3|abs }}",
    "{% if messages[0]['role'] == 'user' and (messages|length > 0 or x.y) %}ok{% endif %}{% if not (x and x.y) %}safe{% endif %}",
]


def environment():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.policies["json.dumps_kwargs"] = {"sort_keys": False}

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


def render(source, variables):
    values = dict(add_generation_prompt=True, bos_token="<s>", eos_token="</s>", tools=None, documents=None)
    values.update(variables)
    try:
        return environment().from_string(source).render(**values)
    except Exception:
        return None


def main():
    golden = []
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, variables in CONVERSATIONS.items():
            golden.append({"template": path.name, "name": name, "variables": variables,
                           "output": render(source, variables)})
    for source in SNIPPETS:
        variables = {"messages": [QUESTION]}
        golden.append({"source": source, "name": source, "variables": variables, "output": render(source, variables)})
    (FOLDER / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(len(golden), "cases,", sum(g["output"] is None for g in golden), "of them fail on purpose")


if __name__ == "__main__":
    main()
