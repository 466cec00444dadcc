// From statements to instructions: names become places in the register file.
#pragma once

#include "statement.h"

namespace emulator {

/// The name, size and kind of a PTX type.
struct Type {
    char kind = 'b';
    uint8_t bytes = 4;
    bool is_float() const { return kind == 'f'; }
    bool is_signed() const { return kind == 's'; }
};

bool parse_type(std::string_view text, Type &type);

class Decoder {
public:
    Decoder(const Source &source, Module &module, const Function &entry);
    std::unique_ptr<Kernel> decode();

    /// Operand `index` as a source of `bytes`: a register, number, special register or symbol.
    Slot source(size_t index, unsigned bytes);
    Slot source(const std::string &text, unsigned bytes);
    /// Operand `index` as a predicate to be read.
    Slot predicate(size_t index);
    /// Operand `index` as a destination; `_` gives a slot that nobody reads.
    Slot destination(size_t index, unsigned bytes);
    Slot destination(const std::string &text, unsigned bytes);
    /// The elements of `{a, b}`, or the one operand.
    std::vector<std::string> elements(size_t index) const;
    /// `[base + offset]`: the base becomes `a`, the offset the immediate.
    void address(size_t index, Instruction &instruction);
    void address(const std::string &text, Instruction &instruction);
    /// The last type of the mnemonic.
    Type type() const;
    std::vector<Type> types() const;

    const Statement &statement() const { return *current; }
    size_t count() const { return current->operands.size(); }
    const std::string &operand(size_t index) const { return current->operands[index]; }
    [[noreturn]] void unknown(const std::string &why = "unknown instruction") const;

private:
    struct Place {
        enum { reg, shared, local, parameter, global } kind = reg;
        Slot slot;
        uint64_t offset = 0;
    };

    const Source &text;
    Module &module;
    const Function &entry;
    std::unique_ptr<Kernel> kernel;
    const Statement *current = nullptr;
    std::string instance;
    int instances = 0;
    std::map<std::string, Place> places;
    std::map<std::pair<uint64_t, unsigned>, Slot> constants;
    std::map<std::string, Slot> named;
    std::vector<std::pair<uint32_t, std::string>> branches;
    std::map<std::string, uint32_t> labels;

    Slot allocate(unsigned bytes, bool is_predicate = false);
    Slot constant(uint64_t bits, unsigned bytes);
    Slot initial(const std::string &key, InitialValue value, unsigned bytes);
    Slot symbol(const Place &place, const std::string &name);
    const Place *find(const std::string &name) const;
    void declare(const Declaration &declaration);
    void emit(const Function &function);
    void call(const Statement &statement);
    void decode(const Statement &statement);
};

/// Each fills in the instruction, or says that it does not know it.
bool decode_arithmetic(Decoder &decoder, Instruction &instruction);
bool decode_bits(Decoder &decoder, Instruction &instruction);
bool decode_conversion(Decoder &decoder, Instruction &instruction);
bool decode_memory(Decoder &decoder, Instruction &instruction);
bool decode_warp(Decoder &decoder, Instruction &instruction);
bool decode_matrix(Decoder &decoder, Instruction &instruction);
bool decode_bulk(Decoder &decoder, Instruction &instruction);

}  // namespace emulator
