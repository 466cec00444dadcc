// The reader of PTX's text.

#include "statement.h"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace emulator {

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && isspace((unsigned char)text.front())) text.remove_prefix(1);
    while (!text.empty() && isspace((unsigned char)text.back())) text.remove_suffix(1);
    return text;
}

std::vector<std::string> split_operands(std::string_view text) {
    std::vector<std::string> all;
    int depth = 0;
    size_t start = 0;
    for (size_t i = 0; i <= text.size(); i++) {
        const char c = i < text.size() ? text[i] : ',';
        if (c == '{' || c == '[' || c == '(') depth++;
        if (c == '}' || c == ']' || c == ')') depth--;
        if (c == ',' && (depth == 0 || i == text.size())) {
            const std::string_view part = trimmed(text.substr(start, i - start));
            if (!part.empty()) all.emplace_back(part);
            start = i + 1;
        }
    }
    return all;
}

namespace {

uint32_t type_bytes(std::string_view type) {
    if (type == "pred") return 4;
    const size_t digit = type.find_first_of("0123456789");
    if (digit == std::string_view::npos) throw Fault("unknown type ." + std::string(type));
    return (uint32_t)atoi(std::string(type.substr(digit)).c_str()) / 8;
}

struct Reader {
    const char *text;
    size_t at = 0;
    uint32_t line = 1, file = 0, source_line = 0;

    [[noreturn]] void fail(const std::string &why) const {
        throw Fault("PTX line " + std::to_string(line) + ": " + why);
    }

    /// Passes over blanks and comments.
    void skip() {
        for (;;) {
            while (isspace((unsigned char)text[at])) {
                if (text[at] == '\n') line++;
                at++;
            }
            if (text[at] == '/' && text[at + 1] == '/') {
                while (text[at] && text[at] != '\n') at++;
            } else if (text[at] == '/' && text[at + 1] == '*') {
                while (text[at] && !(text[at] == '*' && text[at + 1] == '/')) {
                    if (text[at] == '\n') line++;
                    at++;
                }
                at += 2;
            } else {
                return;
            }
        }
    }

    /// All to one of `ends`, outside of brackets, which is passed over; comments are left out.
    std::string until(const char *ends, bool within_brackets = false) {
        std::string all;
        int depth = 0;
        for (; text[at]; at++) {
            const char c = text[at];
            if (c == '/' && text[at + 1] == '/') {
                while (text[at] && text[at] != '\n') at++;
            }
            if (text[at] == '\n') line++;
            if (!within_brackets && depth == 0 && strchr(ends, text[at])) {
                at++;
                return all;
            }
            if (c == '(' || c == '[' || c == '{') depth++;
            if (c == ')' || c == ']' || c == '}') depth--;
            all += isspace((unsigned char)text[at]) ? ' ' : text[at];
        }
        fail("the text ends within a statement");
    }
};

/// `.align 16 .b8 name[12] = {…}`, without the space's word.
Declaration declaration(std::string_view text, std::string space) {
    Declaration found;
    found.space = std::move(space);
    std::string value;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) {
        value = std::string(trimmed(text.substr(equals + 1)));
        text = trimmed(text.substr(0, equals));
    }
    size_t i = 0;
    auto word = [&] {
        while (i < text.size() && isspace((unsigned char)text[i])) i++;
        const size_t start = i;
        while (i < text.size() && !isspace((unsigned char)text[i])) i++;
        return std::string(text.substr(start, i - start));
    };
    std::string next = word();
    while (!next.empty() && next[0] == '.') {
        if (next == ".align") {
            found.alignment = (uint32_t)atoi(word().c_str());
        } else if (next == ".ptr" || next == ".global" || next == ".shared" || next == ".const") {
        } else {
            found.element = type_bytes(next.substr(1));
            found.is_predicate = next == ".pred";
        }
        next = word();
    }
    // The name, with what may stand apart from it.
    next += std::string(text.substr(i));
    const size_t bracket = next.find('[');
    uint32_t count = 1;
    if (bracket != std::string::npos) {
        count = (uint32_t)atoi(next.c_str() + bracket + 1);
        next.resize(bracket);
    }
    found.name = std::string(trimmed(next));
    found.bytes = count * found.element;
    if (found.alignment < found.element) found.alignment = found.element;
    if (!value.empty()) {
        if (value.front() == '{') value = value.substr(1, value.size() - 2);
        for (const std::string &number : split_operands(value)) {
            const uint64_t bits = (uint64_t)strtoll(number.c_str(), nullptr, 0);
            for (uint32_t byte = 0; byte < found.element; byte++) found.value.push_back((uint8_t)(bits >> 8 * byte));
        }
    }
    found.value.resize(found.bytes);
    return found;
}

/// `.reg .b32 %r<12>` or `.reg .pred p, q`.
void registers(std::string_view text, const std::string &scope, std::vector<Declaration> &all) {
    text = trimmed(text);
    const size_t blank = text.find_first_of(" \t");
    const std::string_view type = text.substr(1, blank - 1);
    for (const std::string &name : split_operands(text.substr(blank))) {
        Declaration one;
        one.space = "reg";
        one.scope = scope;
        one.element = one.bytes = type_bytes(type);
        one.is_predicate = type == "pred";
        const size_t angle = name.find('<');
        if (angle == std::string::npos) {
            one.name = name;
            all.push_back(one);
            continue;
        }
        const int count = atoi(name.c_str() + angle + 1);
        for (int i = 0; i < count; i++) {
            one.name = name.substr(0, angle) + std::to_string(i);
            all.push_back(one);
        }
    }
}

std::vector<Declaration> parameters(std::string_view text) {
    std::vector<Declaration> all;
    for (const std::string &one : split_operands(text)) {
        std::string_view rest = trimmed(one);
        if (rest.substr(0, 6) == ".param") rest.remove_prefix(6);
        all.push_back(declaration(rest, "param"));
    }
    return all;
}

/// The statements between a function's braces; the opening one is passed already.
void body(Reader &reader, Function &function) {
    std::vector<int> scopes;
    int next_scope = 0;
    auto scope = [&] {
        std::string all;
        for (int one : scopes) all += "/" + std::to_string(one);
        return all;
    };
    for (;;) {
        reader.skip();
        const char c = reader.text[reader.at];
        if (c == 0) reader.fail("a function does not end");
        if (c == '{') {
            reader.at++;
            scopes.push_back(next_scope++);
            continue;
        }
        if (c == '}') {
            reader.at++;
            if (scopes.empty()) return;
            scopes.pop_back();
            continue;
        }
        // Not `.local`.
        if (strncmp(reader.text + reader.at, ".loc", 4) == 0 && isspace((unsigned char)reader.text[reader.at + 4])) {
            const size_t start = reader.at;
            while (reader.text[reader.at] && reader.text[reader.at] != '\n') reader.at++;
            sscanf(reader.text + start, ".loc %u %u", &reader.file, &reader.source_line);
            continue;
        }
        // A label?
        size_t end = reader.at;
        while (isalnum((unsigned char)reader.text[end]) || strchr("_$%", reader.text[end])) {
            if (!reader.text[end]) break;
            end++;
        }
        if (end > reader.at && reader.text[end] == ':') {
            function.labels.emplace_back(
                scope() + " " + std::string(reader.text + reader.at, end - reader.at), function.statements.size());
            reader.at = end + 1;
            continue;
        }
        const uint32_t line = reader.line;
        const std::string all = reader.until(";");
        std::string_view text = trimmed(all);
        if (text.empty()) continue;
        if (text[0] == '.') {
            const size_t blank = text.find_first_of(" \t");
            const std::string_view word = text.substr(1, blank - 1);
            const std::string_view rest = blank == std::string_view::npos ? "" : text.substr(blank);
            if (word == "reg") {
                registers(rest, scope(), function.variables);
            } else if (word == "local" || word == "shared" || word == "param") {
                function.variables.push_back(declaration(rest, std::string(word)));
                function.variables.back().scope = scope();
            } else if (word != "pragma" && word != "branchtargets") {
                reader.fail("unknown directive " + std::string(text));
            }
            continue;
        }
        Statement statement;
        statement.ptx_line = line;
        statement.file = reader.file;
        statement.line = reader.source_line;
        statement.scope = scope();
        if (text[0] == '@') {
            const size_t blank = text.find_first_of(" \t");
            std::string_view guard = text.substr(1, blank - 1);
            if (guard[0] == '!') {
                statement.guard_negated = true;
                guard.remove_prefix(1);
            }
            statement.guard = std::string(guard);
            text = trimmed(text.substr(blank));
        }
        const size_t blank = text.find_first_of(" \t");
        std::string_view mnemonic = text.substr(0, blank);
        if (blank != std::string_view::npos) statement.operands = split_operands(text.substr(blank));
        while (!mnemonic.empty()) {
            const size_t dot = mnemonic.find('.');
            statement.parts.emplace_back(mnemonic.substr(0, dot));
            if (dot == std::string_view::npos) break;
            mnemonic.remove_prefix(dot + 1);
        }
        function.statements.push_back(std::move(statement));
    }
}

/// A function from behind `.func` or `.entry` on. Declarations without a body are left out.
void function(Reader &reader, bool is_entry, Source &source) {
    Function found;
    found.is_entry = is_entry;
    reader.skip();
    if (reader.text[reader.at] == '(') {
        reader.at++;
        found.results = parameters(reader.until(")"));
        reader.skip();
    }
    const size_t start = reader.at;
    while (reader.text[reader.at] && !isspace((unsigned char)reader.text[reader.at]) && reader.text[reader.at] != '(') {
        reader.at++;
    }
    found.name = std::string(reader.text + start, reader.at - start);
    reader.skip();
    if (reader.text[reader.at] == '(') {
        reader.at++;
        found.parameters = parameters(reader.until(")"));
    }
    // .maxntid and the like, to the brace.
    std::string notes;
    for (;; reader.at++) {
        const char c = reader.text[reader.at];
        if (c == 0) reader.fail("no body of " + found.name);
        if (c == '\n') reader.line++;
        if (c == ';') {
            reader.at++;
            return;
        }
        if (c == '{') break;
        notes += c;
    }
    reader.at++;
    const size_t threads = notes.find(".maxntid");
    if (threads != std::string::npos) found.maximum_threads = (unsigned)atoi(notes.c_str() + threads + 8);
    const size_t blocks = notes.find(".minnctapersm");
    if (blocks != std::string::npos) found.blocks_a_processor = (unsigned)atoi(notes.c_str() + blocks + 13);
    const size_t cluster = notes.find(".reqnctapercluster");
    if (cluster != std::string::npos) {
        unsigned x = 1, y = 1, z = 1;
        sscanf(notes.c_str() + cluster + 18, " %u, %u, %u", &x, &y, &z);
        if (y != 1 || z != 1) reader.fail("a cluster that is not a row of blocks");
        found.cluster = x;
    }
    body(reader, found);
    source.functions.push_back(std::move(found));
}

}  // namespace

Source parse(const char *text) {
    Source source;
    Reader reader{text};
    for (;;) {
        reader.skip();
        if (!reader.text[reader.at]) return source;
        if (reader.text[reader.at] != '.') reader.fail("a directive was expected");
        const size_t start = reader.at;
        while (reader.text[reader.at] && !isspace((unsigned char)reader.text[reader.at])) reader.at++;
        const std::string word(reader.text + start, reader.at - start);
        if (word == ".version" || word == ".target" || word == ".address_size") {
            while (reader.text[reader.at] && reader.text[reader.at] != '\n') reader.at++;
        } else if (word == ".file") {
            uint32_t number = 0;
            char name[4096] = "";
            sscanf(reader.text + reader.at, " %u \"%4095[^\"]", &number, name);
            source.files[number] = name;
            while (reader.text[reader.at] && reader.text[reader.at] != '\n') reader.at++;
        } else if (word == ".section") {
            // Debugging information, in braces.
            while (reader.text[reader.at] && reader.text[reader.at] != '}') {
                if (reader.text[reader.at] == '\n') reader.line++;
                reader.at++;
            }
            reader.at++;
        } else if (word == ".visible" || word == ".extern" || word == ".weak" || word == ".common") {
            continue;
        } else if (word == ".entry" || word == ".func") {
            function(reader, word == ".entry", source);
        } else if (word == ".global" || word == ".const" || word == ".shared") {
            const std::string all = reader.until(";");
            source.variables.push_back(declaration(trimmed(all), word == ".shared" ? "shared" : "global"));
        } else {
            reader.fail("unknown directive " + word);
        }
    }
}

}  // namespace emulator
