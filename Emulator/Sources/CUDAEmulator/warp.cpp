// What a warp's lanes do together, and barriers of a block.

#include "decoder.h"
#include "lanes.h"

namespace emulator {
namespace {

enum ShuffleMode : uint8_t { up, down, butterfly, indexed };

void shuffle(Warp &warp, const Instruction &i, uint32_t mask) {
    uint32_t before[32], valid = 0;
    memcpy(before, warp.lanes<uint32_t>(i.a), sizeof before);
    uint32_t *d = warp.lanes<uint32_t>(i.d);
    for_lanes(mask, [&](int lane) {
        const int b = (int)(warp.lanes<uint32_t>(i.b)[lane] & 31);
        const int c = (int)warp.lanes<uint32_t>(i.c)[lane];
        const int segment = c >> 8 & 31, clamp = c & 31;
        const int last = (lane & segment) | (clamp & ~segment & 31), first = lane & segment;
        int from = lane;
        bool inside = false;
        switch (i.mode) {
        case up: from = lane - b, inside = from >= last; break;
        case down: from = lane + b, inside = from <= last; break;
        case butterfly: from = lane ^ b, inside = from <= last; break;
        case indexed: from = first | (b & ~segment), inside = from <= last; break;
        }
        if (!inside) from = lane;
        if (!(mask >> from & 1)) throw Fault("a shuffle reads lane " + std::to_string(from) + ", which takes no part");
        d[lane] = before[from];
        valid |= (uint32_t)inside << lane;
    });
    if (i.d2.size) {
        uint32_t &p = warp.predicate(i.d2);
        p = (p & ~mask) | valid;
    }
}

enum VoteMode : uint8_t { all, any, uniform, ballot };

void vote(Warp &warp, const Instruction &i, uint32_t mask) {
    const uint32_t votes = (i.count ? ~warp.predicate(i.a) : warp.predicate(i.a)) & mask;
    if (i.mode == ballot) {
        for_lanes(mask, [&](int lane) { warp.lanes<uint32_t>(i.d)[lane] = votes; });
        return;
    }
    const bool result = i.mode == all ? votes == mask : i.mode == any ? votes != 0 : votes == 0 || votes == mask;
    uint32_t &d = warp.predicate(i.d);
    d = (d & ~mask) | (result ? mask : 0);
}

template <class T>
void reduce(Warp &warp, const Instruction &i, uint32_t mask) {
    const T *a = warp.lanes<T>(i.a);
    T result = a[__builtin_ctz(mask)];
    for_lanes(mask & (mask - 1), [&](int lane) {
        switch (i.mode) {
        case 0: result = (T)(result + a[lane]); break;
        case 1: result = a[lane] < result ? a[lane] : result; break;
        case 2: result = a[lane] > result ? a[lane] : result; break;
        case 3: result &= a[lane]; break;
        case 4: result |= a[lane]; break;
        default: result ^= a[lane]; break;
        }
    });
    for_lanes(mask, [&](int lane) { warp.lanes<T>(i.d)[lane] = result; });
}

template <class T>
void match_any(Warp &warp, const Instruction &i, uint32_t mask) {
    const T *a = warp.lanes<T>(i.a);
    for_lanes(mask, [&](int lane) {
        uint32_t same = 0;
        for_lanes(mask, [&](int other) { same |= (uint32_t)(a[other] == a[lane]) << other; });
        warp.lanes<uint32_t>(i.d)[lane] = same;
    });
}

void elect(Warp &warp, const Instruction &i, uint32_t mask) {
    const int leader = __builtin_ctz(mask);
    for_lanes(mask, [&](int lane) { warp.lanes<uint32_t>(i.d)[lane] = (uint32_t)leader; });
    uint32_t &p = warp.predicate(i.d2);
    p = (p & ~mask) | 1u << leader;
}

void nothing(Warp &, const Instruction &, uint32_t) {}

void active(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) { warp.lanes<uint32_t>(i.d)[lane] = mask; });
}

/// `d|p`: the second is a predicate.
void destinations(Decoder &decoder, Instruction &i) {
    std::string first = decoder.operand(0);
    const size_t bar = first.find('|');
    if (bar != std::string::npos) {
        const std::string second(trimmed(first.substr(bar + 1)));
        if (second != "_") i.d2 = decoder.destination(second, 4);
        first = std::string(trimmed(first.substr(0, bar)));
    }
    i.d = decoder.destination(first, 4);
}

bool decode_barrier(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    if (statement.has("warp")) {
        i.kind = Kind::collective;
        i.members = decoder.source((size_t)0, 4);
        i.handler = nothing;
        return true;
    }
    if (statement.has("red")) {
        i.kind = Kind::barrier_reduce;
        i.mode = statement.has("or") ? 1 : statement.has("and") ? 2 : statement.has("popc") ? 3 : 0;
        if (!i.mode) return false;
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 4);
        std::string vote = decoder.operand(decoder.count() - 1);
        if (vote[0] == '!') {
            i.count = 1;
            vote.erase(0, 1);
        }
        if (decoder.count() > 3) i.b = decoder.source(2, 4);
        i.c = decoder.source(vote, 4);
        return true;
    }
    i.kind = statement.has("arrive") ? Kind::barrier_arrive : Kind::barrier_sync;
    i.a = decoder.source((size_t)0, 4);
    if (decoder.count() > 1) i.b = decoder.source(1, 4);
    return true;
}

}  // namespace

bool decode_warp(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    const std::string &op = statement.parts[0];
    if (op == "bar" || op == "barrier") {
        if (statement.has("cluster")) {
            i.kind = statement.has("arrive") ? Kind::cluster_arrive : Kind::cluster_wait;
            return true;
        }
        return decode_barrier(decoder, i);
    }
    if (op == "shfl") {
        destinations(decoder, i);
        i.kind = Kind::collective;
        i.mode = statement.has("up") ? up : statement.has("down") ? down : statement.has("bfly") ? butterfly : indexed;
        i.a = decoder.source(1, 4);
        i.b = decoder.source(2, 4);
        i.c = decoder.source(3, 4);
        i.members = decoder.source(4, 4);
        i.handler = shuffle;
        return true;
    }
    if (op == "vote") {
        i.kind = Kind::collective;
        i.mode = statement.has("all") ? all : statement.has("any") ? any : statement.has("uni") ? uniform : ballot;
        i.d = decoder.destination(0, 4);
        std::string voter = decoder.operand(1);
        if (voter[0] == '!') {
            i.count = 1;
            voter.erase(0, 1);
        }
        i.a = decoder.source(voter, 4);
        i.members = decoder.source(2, 4);
        i.handler = vote;
        return true;
    }
    if (op == "redux") {
        static const char *const names[] = {"add", "min", "max", "and", "or", "xor"};
        for (uint8_t n = 0; n < 6; n++) {
            if (statement.has(names[n])) i.mode = n;
        }
        i.kind = Kind::collective;
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 4);
        i.members = decoder.source(2, 4);
        i.handler = decoder.type().is_signed() ? reduce<int32_t> : reduce<uint32_t>;
        return true;
    }
    if (op == "match" && statement.has("any")) {
        i.kind = Kind::collective;
        const unsigned bytes = decoder.type().bytes;
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, bytes);
        i.members = decoder.source(2, 4);
        i.handler = bytes == 4 ? match_any<uint32_t> : match_any<uint64_t>;
        return true;
    }
    if (op == "elect") {
        destinations(decoder, i);
        i.kind = Kind::collective;
        i.members = decoder.source(1, 4);
        i.handler = elect;
        return true;
    }
    if (op == "activemask") {
        i.d = decoder.destination(0, 4);
        i.handler = active;
        return true;
    }
    if (op == "nanosleep" || op == "griddepcontrol" || op == "setmaxnreg") {
        i.handler = nothing;
        return true;
    }
    if (op == "mapa" && !statement.has("shared::cluster")) {
        // A generic address in this block's shared memory, in that of the block with a rank.
        i.d = decoder.destination(0, 8);
        i.a = decoder.source(1, 8);
        i.b = decoder.source(2, 4);
        i.handler = [](Warp &warp, const Instruction &i, uint32_t mask) {
            const Cluster &cluster = *warp.block->cluster;
            for_lanes(mask, [&](int lane) {
                const uint32_t rank = warp.lanes<uint32_t>(i.b)[lane];
                if (rank >= cluster.blocks.size()) throw Fault("rank " + std::to_string(rank) + " of a cluster");
                const uint64_t own = warp.lanes<uint64_t>(i.a)[lane] - (uint64_t)(uintptr_t)warp.block->shared;
                warp.lanes<uint64_t>(i.d)[lane] = own + (uint64_t)(uintptr_t)cluster.blocks[rank]->shared;
            });
        };
        return true;
    }
    if (op == "mapa" && statement.has("u32")) {
        // A 32-bit address of shared memory, likewise.
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 4);
        i.b = decoder.source(2, 4);
        i.handler = [](Warp &warp, const Instruction &i, uint32_t mask) {
            const size_t blocks = warp.block->cluster->blocks.size();
            for_lanes(mask, [&](int lane) {
                const uint32_t rank = warp.lanes<uint32_t>(i.b)[lane];
                if (rank >= blocks) throw Fault("rank " + std::to_string(rank) + " of a cluster");
                warp.lanes<uint32_t>(i.d)[lane] = warp.lanes<uint32_t>(i.a)[lane] | (rank + 1) << cluster_address_shift;
            });
        };
        return true;
    }
    if (op == "trap" || op == "brkpt") {
        i.handler = [](Warp &, const Instruction &, uint32_t) { throw Fault("the kernel trapped"); };
        return true;
    }
    return false;
}

}  // namespace emulator
