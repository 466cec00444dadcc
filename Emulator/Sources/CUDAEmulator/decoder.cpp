// Names, constants and calls. Calls are inlined: nothing that is compiled here recurses.

#include "decoder.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>

namespace emulator {

bool parse_type(std::string_view text, Type &type) {
    if (text == "pred") {
        type = {'p', 4};
        return true;
    }
    if (text.size() < 2 || !strchr("bsuf", text[0])) return false;
    for (char c : text.substr(1)) {
        if (!isdigit((unsigned char)c)) return false;
    }
    const int bits = atoi(std::string(text.substr(1)).c_str());
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64 && bits != 128) return false;
    type = {text[0], (uint8_t)(bits / 8)};
    return true;
}

Decoder::Decoder(const Source &source, Module &module, const Function &entry)
    : text(source), module(module), entry(entry) {}

void Decoder::unknown(const std::string &why) const {
    throw Fault("PTX line " + std::to_string(current->ptx_line) + ": " + why + ": " + current->text());
}

Slot Decoder::allocate(unsigned bytes, bool is_predicate) {
    Slot slot;
    slot.size = (uint8_t)bytes;
    const uint32_t all = is_predicate ? 4 : bytes * 32;
    const uint32_t alignment = is_predicate ? 4 : 32;
    slot.offset = (kernel->register_bytes + alignment - 1) / alignment * alignment;
    kernel->register_bytes = slot.offset + all;
    return slot;
}

Slot Decoder::constant(uint64_t bits, unsigned bytes) {
    if (bytes < 8) bits &= (1ull << 8 * bytes) - 1;
    auto found = constants.find({bits, bytes});
    if (found != constants.end()) return found->second;
    InitialValue value;
    value.slot = allocate(bytes);
    value.bits = bits;
    kernel->initial.push_back(value);
    return constants[{bits, bytes}] = value.slot;
}

Slot Decoder::initial(const std::string &key, InitialValue value, unsigned bytes) {
    auto found = named.find(key);
    if (found != named.end()) return found->second;
    value.slot = allocate(bytes);
    kernel->initial.push_back(value);
    return named[key] = value.slot;
}

const Decoder::Place *Decoder::find(const std::string &name) const {
    std::string scope = current ? current->scope : "";
    for (;;) {
        auto found = places.find(instance + scope + " " + name);
        if (found != places.end()) return &found->second;
        if (scope.empty()) break;
        scope.resize(scope.rfind('/'));
    }
    auto found = places.find(" " + name);
    return found == places.end() ? nullptr : &found->second;
}

Slot Decoder::symbol(const Place &place, const std::string &name) {
    InitialValue value;
    value.bits = place.offset;
    switch (place.kind) {
    case Place::shared: return constant(place.offset, 8);
    case Place::global: return constant(place.offset, 8);
    case Place::local: value.source = InitialValue::local; break;
    case Place::parameter: value.source = InitialValue::parameter; break;
    case Place::reg: return place.slot;
    }
    return initial("@" + std::to_string(value.source) + "+" + std::to_string(value.bits), value, 8);
}

Slot Decoder::source(const std::string &operand, unsigned bytes) {
    if (operand.empty()) unknown("an operand is missing");
    const char first = operand[0];
    if (isdigit((unsigned char)first) || first == '-') {
        if (operand.size() > 2 && first == '0' && (operand[1] == 'f' || operand[1] == 'F')) {
            return constant(strtoull(operand.c_str() + 2, nullptr, 16), bytes);
        }
        if (operand.size() > 2 && first == '0' && (operand[1] == 'd' || operand[1] == 'D')) {
            return constant(strtoull(operand.c_str() + 2, nullptr, 16), bytes);
        }
        const uint64_t bits =
            first == '-' ? (uint64_t)strtoll(operand.c_str(), nullptr, 0) : strtoull(operand.c_str(), nullptr, 0);
        return constant(bits, bytes);
    }
    if (const Place *place = find(operand)) return symbol(*place, operand);
    if (first == '%') {
        InitialValue value;
        value.source = InitialValue::special;
        value.name = operand;
        return initial(operand, value, bytes < 4 ? 4 : bytes);
    }
    if (operand == "WARP_SZ") return constant(32, bytes);
    unknown("unknown name " + operand);
}

Slot Decoder::source(size_t index, unsigned bytes) {
    if (index >= count()) unknown("an operand is missing");
    return source(operand(index), bytes);
}

Slot Decoder::predicate(size_t index) {
    if (index >= count()) unknown("an operand is missing");
    const std::string &text = operand(index);
    if (isdigit((unsigned char)text[0]) || text[0] == '-') return constant(text == "0" ? 0 : 0xffffffffu, 4);
    return source(text, 4);
}

Slot Decoder::destination(const std::string &operand, unsigned bytes) {
    if (operand == "_") return allocate(bytes);
    const Place *place = find(operand);
    if (!place || place->kind != Place::reg) unknown("no register " + operand);
    return place->slot;
}

Slot Decoder::destination(size_t index, unsigned bytes) {
    if (index >= count()) unknown("an operand is missing");
    return destination(operand(index), bytes);
}

std::vector<std::string> Decoder::elements(size_t index) const {
    const std::string &all = operand(index);
    if (all[0] == '{') return split_operands(std::string_view(all).substr(1, all.size() - 2));
    return {all};
}

void Decoder::address(const std::string &operand, Instruction &instruction) {
    std::string_view all = operand;
    if (all.front() == '[') all = trimmed(all.substr(1, all.size() - 2));
    size_t plus = all.find_first_of("+-", 1);
    std::string base(trimmed(all.substr(0, plus)));
    if (plus != std::string_view::npos) {
        if (all[plus] == '+') plus++;
        instruction.immediate = strtoll(std::string(all.substr(plus)).c_str(), nullptr, 0);
    }
    instruction.a = source(base, 8);
}

void Decoder::address(size_t index, Instruction &instruction) {
    if (index >= count()) unknown("an operand is missing");
    address(operand(index), instruction);
}

std::vector<Type> Decoder::types() const {
    std::vector<Type> all;
    for (const std::string &part : current->parts) {
        Type type;
        if (&part != &current->parts[0] && parse_type(part, type)) all.push_back(type);
    }
    return all;
}

Type Decoder::type() const {
    const std::vector<Type> all = types();
    if (all.empty()) unknown("no type");
    return all.back();
}

void Decoder::declare(const Declaration &one) {
    Place place;
    if (one.space == "reg") {
        place.slot = allocate(one.is_predicate ? 4 : one.bytes, one.is_predicate);
    } else if (one.space == "shared") {
        place.kind = Place::shared;
        uint32_t &end = kernel->static_shared_bytes;
        end = (end + one.alignment - 1) / one.alignment * one.alignment;
        place.offset = end;
        end += one.bytes;
    } else {
        // Call parameters and what the compiler puts on the stack.
        place.kind = Place::local;
        uint32_t &end = kernel->local_bytes;
        const uint32_t alignment = one.alignment < 8 ? 8 : one.alignment;
        end = (end + alignment - 1) / alignment * alignment;
        place.offset = end;
        end += one.bytes;
    }
    places[instance + one.scope + " " + one.name] = place;
}

void Decoder::call(const Statement &statement) {
    size_t next = 0;
    std::vector<std::string> results, arguments;
    auto list = [](const std::string &text) { return split_operands(std::string_view(text).substr(1, text.size() - 2)); };
    if (statement.operands[next][0] == '(') results = list(statement.operands[next++]);
    const std::string &name = statement.operands[next++];
    if (next < statement.operands.size()) arguments = list(statement.operands[next]);
    const Function *callee = nullptr;
    for (const Function &function : text.functions) {
        if (function.name == name) callee = &function;
    }
    if (!callee || callee->is_entry) unknown("no function " + name);
    std::map<std::string, Place> passed;
    for (size_t i = 0; i < results.size(); i++) passed[callee->results[i].name] = *find(results[i]);
    for (size_t i = 0; i < arguments.size(); i++) passed[callee->parameters[i].name] = *find(arguments[i]);
    const std::string outer = instance;
    if (outer.size() > 200) unknown("calls nest too deeply");
    instance = outer + "#" + std::to_string(instances++);
    for (const auto &[parameter, place] : passed) places[instance + " " + parameter] = place;
    const Statement *caller = current;
    emit(*callee);
    current = caller;
    // Returns jump here.
    labels[instance + "$return"] = (uint32_t)kernel->code.size();
    instance = outer;
}

void Decoder::emit(const Function &function) {
    for (const Declaration &one : function.variables) {
        if (one.space != "shared") declare(one);
    }
    size_t label = 0;
    for (uint32_t index = 0; index <= function.statements.size(); index++) {
        while (label < function.labels.size() && function.labels[label].second == index) {
            labels[instance + function.labels[label++].first] = (uint32_t)kernel->code.size();
        }
        if (index == function.statements.size()) break;
        current = &function.statements[index];
        const std::string &op = current->parts[0];
        if (op == "call") {
            if (!current->guard.empty()) unknown("a guarded call");
            call(*current);
        } else {
            decode(*current);
        }
    }
}

void Decoder::decode(const Statement &statement) {
    Instruction instruction;
    instruction.ptx_line = statement.ptx_line;
    instruction.file = statement.file;
    instruction.line = statement.line;
    instruction.text = statement.text();
    if (!statement.guard.empty()) {
        instruction.guarded = true;
        instruction.guard_negated = statement.guard_negated;
        instruction.guard = source(statement.guard, 4);
    }
    const std::string &op = statement.parts[0];
    if (op == "bra" || (op == "ret" && !instance.empty())) {
        instruction.kind = Kind::branch;
        branches.emplace_back(
            (uint32_t)kernel->code.size(), op == "ret" ? instance + "$return" : instance + "|" + statement.scope + " " + operand(0));
    } else if (op == "ret" || op == "exit") {
        instruction.kind = Kind::exit;
    } else if (
        !decode_arithmetic(*this, instruction) && !decode_bits(*this, instruction) && !decode_conversion(*this, instruction) &&
        !decode_memory(*this, instruction) && !decode_warp(*this, instruction) && !decode_matrix(*this, instruction) &&
        !decode_bulk(*this, instruction)) {
        unknown();
    }
    kernel->code.push_back(std::move(instruction));
}

std::unique_ptr<Kernel> Decoder::decode() {
    kernel = std::make_unique<Kernel>();
    kernel->name = entry.name;
    kernel->files = text.files;
    kernel->maximum_threads = entry.maximum_threads;
    kernel->blocks_a_processor = entry.blocks_a_processor;
    kernel->cluster = entry.cluster;
    kernel->static_shared_bytes = reserved_shared_bytes;
    for (const auto &[name, bytes] : module.globals) {
        Place place;
        place.kind = Place::global;
        place.offset = (uint64_t)(uintptr_t)bytes->data();
        places[" " + name] = place;
    }
    for (const Declaration &one : entry.parameters) {
        Place place;
        place.kind = Place::parameter;
        uint32_t &end = kernel->parameter_bytes;
        end = (end + one.alignment - 1) / one.alignment * one.alignment;
        place.offset = end;
        kernel->parameters.emplace_back(end, one.bytes);
        end += one.bytes;
        places[" " + one.name] = place;
    }
    // Static shared memory of the module first, then the functions', then the dynamic part.
    for (const Declaration &one : text.variables) {
        if (one.space == "shared" && one.bytes > 0) declare(one);
    }
    std::vector<std::string> dynamic;
    uint32_t alignment = 16;
    for (const Declaration &one : text.variables) {
        if (one.space != "shared" || one.bytes > 0) continue;
        dynamic.push_back(one.name);
        alignment = std::max(alignment, one.alignment);
    }
    // A function's shared variables stand once, however often it is called; so they are declared before its code.
    for (const Function &function : text.functions) {
        for (Declaration one : function.variables) {
            one.scope.clear();
            if (one.space == "shared") declare(one);
        }
    }
    kernel->static_shared_bytes = (kernel->static_shared_bytes + alignment - 1) / alignment * alignment;
    for (const std::string &name : dynamic) {
        Place place;
        place.kind = Place::shared;
        place.offset = kernel->static_shared_bytes;
        places[" " + name] = place;
    }
    Function own = entry;
    emit(own);
    // Falling off the end ends the thread.
    Instruction end;
    end.kind = Kind::exit;
    end.text = "exit";
    kernel->code.push_back(end);
    for (const auto &[index, label] : branches) {
        const size_t bar = label.find('|');
        if (bar == std::string::npos) {
            kernel->code[index].target = labels.at(label);
            continue;
        }
        const std::string prefix = label.substr(0, bar);
        const size_t blank = label.find(' ', bar);
        std::string scope = label.substr(bar + 1, blank - bar - 1);
        const std::string name = label.substr(blank);
        for (;;) {
            auto found = labels.find(prefix + scope + name);
            if (found != labels.end()) {
                kernel->code[index].target = found->second;
                break;
            }
            if (scope.empty()) throw Fault("no label" + name);
            scope.resize(scope.rfind('/'));
        }
    }
    return std::move(kernel);
}

std::unique_ptr<Module> load_module(const char *text) {
    const Source source = parse(text);
    auto module = std::make_unique<Module>();
    for (const Declaration &one : source.variables) {
        if (one.space == "global") module->globals[one.name] = std::make_unique<std::vector<uint8_t>>(one.value);
    }
    for (const Function &function : source.functions) {
        if (function.is_entry) module->kernels[function.name] = Decoder(source, *module, function).decode();
    }
    return module;
}

}  // namespace emulator
