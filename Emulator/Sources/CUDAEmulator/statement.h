// PTX as it is written: statements of a function, before they are decoded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "program.h"

namespace emulator {

struct Statement {
    uint32_t ptx_line = 0, file = 0, line = 0;
    /// Empty, or the guard's register, with whether it is negated.
    std::string guard;
    bool guard_negated = false;
    /// "add", "s32"; the parts between the dots.
    std::vector<std::string> parts;
    /// Operands; a list in braces or brackets is one.
    std::vector<std::string> operands;
    /// Braces that enclose it, for names that are declared in them.
    std::string scope;

    bool has(std::string_view part) const {
        for (const std::string &own : parts) {
            if (own == part) return true;
        }
        return false;
    }
    std::string text() const {
        std::string all;
        for (const std::string &part : parts) all += (all.empty() ? "" : ".") + part;
        for (size_t i = 0; i < operands.size(); i++) all += (i == 0 ? " " : ", ") + operands[i];
        return all;
    }
};

/// A variable or register: its type's size, and for arrays and variables their bytes.
struct Declaration {
    std::string space, name, scope;
    uint32_t element = 0, bytes = 0, alignment = 1;
    bool is_predicate = false;
    std::vector<uint8_t> value;
};

struct Function {
    bool is_entry = false;
    std::string name;
    std::vector<Declaration> parameters, results, variables;
    std::vector<Statement> statements;
    /// Labels, with their scope, and the statement they stand before.
    std::vector<std::pair<std::string, uint32_t>> labels;
    unsigned maximum_threads = 1024, blocks_a_processor = 1, cluster = 1;
};

struct Source {
    std::vector<Function> functions;
    std::vector<Declaration> variables;
    std::map<uint32_t, std::string> files;
};

/// Splits a text into functions and statements.
Source parse(const char *text);

/// Splits at commas outside of brackets.
std::vector<std::string> split_operands(std::string_view text);

std::string_view trimmed(std::string_view text);

}  // namespace emulator
