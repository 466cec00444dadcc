// Loads, stores, atomic operations, copies into shared memory and fences.

#include <type_traits>

#include "decoder.h"
#include "lanes.h"

namespace emulator {
namespace {

enum Space : uint8_t { generic, global, shared, own };

/// The host's address of what a lane reads or writes.
template <Space space>
uint8_t *resolve(const Warp &warp, uint64_t address, unsigned bytes, const char *what) {
    if (address % bytes) throw Fault("misaligned " + std::string(what) + " of " + std::to_string(bytes) + " bytes");
    if constexpr (space == shared) return shared_address(warp, address, bytes);
    uint8_t *host = (uint8_t *)(uintptr_t)address;
    if constexpr (space == generic) {
        const Block &block = *warp.block;
        for (const auto &other : block.cluster->blocks) {
            if (host >= other->shared && host < other->shared + other->shared_bytes) {
                return shared_address(other->warps[0], (uint64_t)(host - other->shared), bytes);
            }
        }
        const uint8_t *start = block.storage.data();
        if (host >= start && host + bytes <= start + block.storage.size()) return host;
        const std::vector<uint8_t> &parameters = block.launch->parameters;
        if (host >= parameters.data() && host + bytes <= parameters.data() + parameters.size()) return host;
    }
    if constexpr (space != own) check_device_memory(address, bytes, what);
    return host;
}

uint64_t address_of(const Warp &warp, const Instruction &i, int lane) {
    // A shared address may be in a 32-bit register.
    const uint64_t base = i.a.size == 4 ? warp.lanes<uint32_t>(i.a)[lane] : warp.lanes<uint64_t>(i.a)[lane];
    return base + (uint64_t)i.immediate;
}

/// `i.size` bytes an element, `i.list` the registers; `i.mode` whether a narrow integer keeps its sign.
template <Space space>
void load(Warp &warp, const Instruction &i, uint32_t mask) {
    const unsigned bytes = i.size * (unsigned)i.list.size();
    for_lanes(mask, [&](int lane) {
        const uint8_t *from = resolve<space>(warp, address_of(warp, i, lane), bytes, "read");
        for (const Slot &slot : i.list) {
            uint64_t bits = 0;
            memcpy(&bits, from, i.size);
            if (i.mode && i.size < 8) bits = (uint64_t)((int64_t)(bits << (64 - 8 * i.size)) >> (64 - 8 * i.size));
            warp.write(slot, lane, bits);
            from += i.size;
        }
    });
}

template <Space space>
void store(Warp &warp, const Instruction &i, uint32_t mask) {
    const unsigned bytes = i.size * (unsigned)i.list.size();
    for_lanes(mask, [&](int lane) {
        uint8_t *to = resolve<space>(warp, address_of(warp, i, lane), bytes, "write");
        for (const Slot &slot : i.list) {
            memcpy(to, warp.registers + slot.offset + lane * slot.size, i.size);
            to += i.size;
        }
    });
}

enum AtomicOperation : uint8_t { add, minimum, maximum, exchange, compare_exchange, bit_and, bit_or, bit_xor, increment, decrement };

template <class T>
T updated(uint8_t how, T old, T b, T c) {
    switch (how) {
    case add: return (T)(old + b);
    case minimum: return b < old ? b : old;
    case maximum: return b > old ? b : old;
    case exchange: return b;
    case compare_exchange: return old == b ? c : old;
    default: break;
    }
    if constexpr (std::is_integral_v<T>) {
        switch (how) {
        case bit_and: return old & b;
        case bit_or: return old | b;
        case bit_xor: return old ^ b;
        case increment: return old >= b ? 0 : old + 1;
        case decrement: return old == 0 || old > b ? b : old - 1;
        default: break;
        }
    }
    return old;
}

template <class T, Space space>
void atomic(Warp &warp, const Instruction &i, uint32_t mask) {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    for_lanes(mask, [&](int lane) {
        Bits *place = (Bits *)resolve<space>(warp, address_of(warp, i, lane), sizeof(T), "atomic access");
        const T b = warp.lanes<T>(i.b)[lane];
        const T c = i.c.size ? warp.lanes<T>(i.c)[lane] : T();
        // Launches of other host threads may count in the same memory.
        Bits old = __atomic_load_n(place, __ATOMIC_SEQ_CST), next;
        T value;
        do {
            memcpy(&value, &old, sizeof value);
            const T result = updated<T>(i.mode, value, b, c);
            memcpy(&next, &result, sizeof next);
        } while (!__atomic_compare_exchange_n(place, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        if (i.d.size) memcpy(warp.registers + i.d.offset + lane * i.d.size, &value, sizeof value);
    });
}

template <Space space>
Handler atomic_of(Type type) {
    switch (type.kind) {
    case 'f': return type.bytes == 4 ? (Handler)atomic<float, space> : type.bytes == 8 ? atomic<double, space> : nullptr;
    case 's': return type.bytes == 4 ? (Handler)atomic<int32_t, space> : atomic<int64_t, space>;
    default: return type.bytes == 4 ? (Handler)atomic<uint32_t, space> : type.bytes == 8 ? atomic<uint64_t, space> : nullptr;
    }
}

/// `cp.async`: done at once; bytes beyond the source's are zero.
void copy_to_shared(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        uint8_t *to = resolve<shared>(warp, address_of(warp, i, lane), i.size, "asynchronous copy");
        const uint64_t from = warp.lanes<uint64_t>(i.b)[lane] + (uint64_t)(int64_t)i.target;
        const uint32_t bytes = i.c.size ? warp.lanes<uint32_t>(i.c)[lane] : i.size;
        if (bytes > i.size) throw Fault("an asynchronous copy of more bytes than its size");
        memset(to, 0, i.size);
        if (bytes) memcpy(to, resolve<global>(warp, from, 1, "read") , bytes);
        if (bytes) check_device_memory(from, bytes, "read");
        if (from % i.size && bytes) throw Fault("misaligned asynchronous copy");
    });
}

void nothing(Warp &, const Instruction &, uint32_t) {}

/// `createpolicy`: what L2 is told of accesses, which changes no result.
void create_policy(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) { memset(warp.registers + i.d.offset + lane * i.d.size, 0, i.d.size); });
}

Space space_of(const Statement &statement) {
    for (const std::string &part : statement.parts) {
        if (part == "shared" || part.substr(0, 8) == "shared::") return shared;
        if (part == "global" || part == "const") return global;
        if (part == "param" || part == "local" || part.substr(0, 7) == "param::") return own;
    }
    return generic;
}

bool decode_atomic(Decoder &decoder, Instruction &i, Space space) {
    const Statement &statement = decoder.statement();
    const bool has_result = statement.parts[0] == "atom";
    static const char *const names[] = {"add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"};
    bool found = false;
    for (uint8_t n = 0; n < 10; n++) {
        if (statement.has(names[n])) i.mode = n, found = true;
    }
    if (!found) return false;
    const Type type = decoder.type();
    const size_t first = has_result ? 1 : 0;
    if (has_result) i.d = decoder.destination(0, type.bytes);
    decoder.address(first, i);
    i.b = decoder.source(first + 1, type.bytes);
    if (i.mode == compare_exchange) i.c = decoder.source(first + 2, type.bytes);
    i.handler = space == shared ? atomic_of<shared>(type) : space == global ? atomic_of<global>(type) : atomic_of<generic>(type);
    return i.handler != nullptr;
}

}  // namespace

bool decode_memory(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    const std::string &op = statement.parts[0];
    const Space space = space_of(statement);
    if (op == "ld" || op == "ldu" || op == "st") {
        const Type type = decoder.type();
        const bool is_load = op != "st";
        i.size = type.bytes;
        i.mode = type.is_signed();
        decoder.address(is_load ? 1 : 0, i);
        for (const std::string &element : decoder.elements(is_load ? 0 : 1)) {
            i.list.push_back(is_load ? decoder.destination(element, type.bytes) : decoder.source(element, type.bytes));
        }
        if (is_load) i.handler = space == shared ? load<shared> : space == global ? load<global> : space == own ? load<own> : load<generic>;
        else i.handler = space == shared ? store<shared> : space == global ? store<global> : space == own ? store<own> : store<generic>;
        return true;
    }
    if (op == "atom" || op == "red") {
        if (op == "red" && statement.has("async")) return false;
        return decode_atomic(decoder, i, space);
    }
    if (op == "cp" && statement.parts[1] == "async" && !statement.has("bulk")) {
        if (statement.has("commit_group") || statement.has("wait_group") || statement.has("wait_all")) {
            i.handler = nothing;
            return true;
        }
        if (statement.has("mbarrier")) return false;
        decoder.address((size_t)0, i);
        // The source's offset takes the place of a branch's target.
        Instruction source;
        decoder.address(1, source);
        i.b = source.a;
        i.target = (uint32_t)(int32_t)source.immediate;
        i.size = (uint8_t)atoi(decoder.operand(2).c_str());
        // The last operand may be a policy.
        if (decoder.count() > (statement.has("L2::cache_hint") ? 4 : 3)) i.c = decoder.source(3, 4);
        i.handler = copy_to_shared;
        return true;
    }
    if (op == "createpolicy" && statement.has("fractional")) {
        i.d = decoder.destination(0, 8);
        i.handler = create_policy;
        return true;
    }
    if (op == "fence" || op == "membar" || op == "prefetch" || op == "prefetchu" || op == "discard" || op == "applypriority" ||
        op == "griddepcontrol") {
        i.handler = nothing;
        return true;
    }
    return false;
}

}  // namespace emulator
