import FlashInferEngine
import Testing

/// Templates from strangers: whatever they hold, rendering ends, with text or a typed error.
struct ChatTemplateLimitTests {
    private func render(_ source: String) throws(ChatTemplateError) -> String {
        try ChatTemplate(source).render(messages: [ChatMessage(role: "user", content: "Hi")])
    }

    @Test(arguments: [
        // Time.
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        // Memory.
        "{{ 'x' * 1000000000000 }}", "{{ range(1000000000) }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l|list }}",
        "{{ ('x' * 1000000).replace('x', 'y' * 1000) }}", "{{ ('x' * 4000000)|list|join('y' * 4000000) }}",
        // Stack.
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}",
    ])
    func wildTemplatesEndWithALimit(_ source: String) {
        #expect(throws: ChatTemplateError.self) { try render(source) }
    }

    @Test(arguments: ["(", "[", "{", "not ", "-", "a.", "a[", "f(", "x|abs|", "1+", "a if b else ", "{'a':"])
    func nestedExpressionsEndWithALimit(_ part: String) {
        let many = String(repeating: part, count: 20_000)
        #expect(throws: ChatTemplateError.self) { try render("{{ \(many)1 }}") }
        #expect(throws: ChatTemplateError.self) { try render("{% set x = \(many)1 %}") }
    }

    @Test func nestedBlocksEndWithALimit() {
        for block in ["{% if a %}", "{% for x in y %}", "{% macro f() %}", "{% set x %}"] {
            #expect(throws: ChatTemplateError.self) { try render(String(repeating: block, count: 20_000)) }
        }
    }

    @Test(arguments: [
        "{{", "{%", "{#", "{% if", "{% if x %}", "{% for x %}", "{% for x in %}", "{% endif %}", "{% else %}", "{{ }}",
        "{{ 1 1 }}", "{{ 'a }}", "{{ a.}}", "{{ a[ }}", "{{ a|nofilter }}", "{{ a is notest }}", "{% include 'x' %}",
        "{% raw %}", "{% set %}", "{% set x %}", "{% macro %}", "{{ 99999999999999999999 }}", "{{ \"\\ud800\" }}",
        "{% import os %}", "{{ a b }}", "{{ ] }}", "{{ @ }}", "{{ [1,2][1:2:3:4] }}",
    ])
    func brokenTemplatesAreRefused(_ source: String) {
        #expect(throws: ChatTemplateError.self) { try ChatTemplate(source) }
    }

    @Test(arguments: [
        "{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 2 }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ 2 ** 64 }}", "{{ 5 % 0 }}", "{{ 5.0 / 0 }}",
        "{{ [1,2][::0] }}", "{{ range(1, 2, 0) }}", "{{ 'a'.split('') }}", "{{ {1: 2} }}", "{{ messages.pop() }}",
        "{{ messages[0].clear() }}", "{{ raise_exception }}{{ raise_exception('x') }}", "{{ 5|join }}",
        "{{ none|first }}",
        "{% break %}",
    ])
    func impossibleOperationsAreErrors(_ source: String) {
        #expect(throws: ChatTemplateError.self) { try render(source) }
    }

    @Test func extremeIndicesAreDefined() throws {
        #expect(try render("{{ [1,2][9223372036854775807:] }}{{ [1,2][-9223372036854775807:] }}") == "[][1, 2]")
        #expect(try render("{{ [1,2,3][::9223372036854775807] }}{{ [1,2,3][::-9223372036854775807] }}") == "[1][3]")
        #expect(try render("{{ [1][99] is defined }}{{ 'abc'[-99] is defined }}") == "FalseFalse")
        #expect(try render("{{ range(9223372036854775806, 9223372036854775807, 5)|list }}") == "[9223372036854775806]")
        #expect(try render("{{ 1e308 * 10 }} {{ (1e308 * 10)|int }}") == "inf 0")
    }

    /// Random mixtures of template parts: any outcome but a trap or a hang.
    @Test func randomTemplatesEnd() {
        let parts = [
            "{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "\n", "if", "for", "in", "set", "x", "=", "endif", "endfor",
            "else", "elif", "macro", "endmacro", "(", ")", "[", "]", "{", "}", "|", "join", "'a'", "\"", "1", ".", ",",
            ":", "~", "+", "**", "is", "not", "defined", "loop", "messages", "raw", "endraw", "namespace", "range",
            "é", "tojson", "*", "//", "%", "break", "99999999", "-1",
        ]
        var state: UInt64 = 7
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(truncatingIfNeeded: state >> 33) % bound
        }
        var rendered = 0
        for _ in 0..<5000 {
            var source = ""
            for _ in 0..<random(30) { source += parts[random(parts.count)] + (random(2) == 0 ? " " : "") }
            if (try? render(source)) != nil { rendered += 1 }
            if (try? render("{{ \(source) }}")) != nil { rendered += 1 }
        }
        #expect(rendered > 0)
    }
}
