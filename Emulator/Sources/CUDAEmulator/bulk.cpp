// Barriers in shared memory that count arrivals and bytes, and the copies of boxes that complete on them.

#include "decoder.h"
#include "lanes.h"
#include "tensor_map.h"

namespace emulator {
namespace {

/// The eight bytes of an mbarrier, in a way of the emulator's own.
struct CountingBarrier {
    int64_t phase : 1, expected : 20, pending : 20, bytes : 23;

    void turn() {
        if ((pending & 0xfffff) == 0 && bytes == 0) {
            phase = ~phase;
            pending = expected;
        }
    }
};
static_assert(sizeof(CountingBarrier) == 8);

CountingBarrier &barrier_at(Warp &warp, uint64_t address) {
    if (address % 8) throw Fault("misaligned mbarrier");
    return *(CountingBarrier *)shared_address(warp, address, 8);
}

uint64_t address_of(const Warp &warp, const Instruction &i, int lane) {
    const uint64_t base = i.a.size == 4 ? warp.lanes<uint32_t>(i.a)[lane] : warp.lanes<uint64_t>(i.a)[lane];
    return base + (uint64_t)i.immediate;
}

void initialize(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        CountingBarrier &barrier = barrier_at(warp, address_of(warp, i, lane));
        barrier.phase = 0;
        barrier.bytes = 0;
        barrier.expected = barrier.pending = (int64_t)warp.lanes<uint32_t>(i.b)[lane];
    });
}

void invalidate(Warp &, const Instruction &, uint32_t) {}

/// `i.mode`: 1 expects bytes, 2 arrives, 3 both.
void arrive(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        CountingBarrier &barrier = barrier_at(warp, address_of(warp, i, lane));
        if (i.mode & 1) barrier.bytes = barrier.bytes + (int64_t)warp.lanes<uint32_t>(i.b)[lane];
        if (i.mode & 2) {
            const int64_t count = !(i.mode & 1) && i.b.size ? (int64_t)warp.lanes<uint32_t>(i.b)[lane] : 1;
            if ((barrier.pending & 0xfffff) < count) throw Fault("more arrivals at an mbarrier than it expects");
            barrier.pending = barrier.pending - count;
            barrier.turn();
        }
    });
}

void test(Warp &warp, const Instruction &i, uint32_t mask) {
    uint32_t done = 0;
    for_lanes(mask, [&](int lane) {
        const CountingBarrier &barrier = barrier_at(warp, address_of(warp, i, lane));
        const uint32_t parity = warp.lanes<uint32_t>(i.b)[lane] & 1;
        done |= (uint32_t)((uint32_t)(barrier.phase & 1) != parity) << lane;
    });
    uint32_t &d = warp.predicate(i.d);
    d = (d & ~mask) | done;
    if (done != mask) warp.gives_way = true;
}

uint32_t swizzled(uint32_t address, uint8_t swizzle) {
    // 0 none, 1 to 3: 32, 64 and 128 bytes wide.
    const uint32_t turn = (1u << swizzle) - 1;
    return swizzle == 0 ? address : address ^ ((address >> 7 & turn) << 4);
}

/// A box of a tensor, to shared memory; what lies outside of the tensor is zero. list: coordinates, and if `i.mode` the blocks of the
/// cluster that it goes to, bit by bit; `i.b` the map, `i.c` the barrier.
void copy_box(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        TensorMap map;
        memcpy(&map, (const void *)(uintptr_t)(warp.lanes<uint64_t>(i.b)[lane]), sizeof map);
        if (map.magic != TensorMap::mark) throw Fault("no tensor map where a copy of a box looks for one");
        if (map.rank != i.list.size() - (i.mode ? 1 : 0)) throw Fault("a copy of a box of another rank than its tensor map's");
        const uint64_t to = address_of(warp, i, lane);
        if (to % 128) throw Fault("misaligned box in shared memory");
        const uint64_t at = (i.c.size == 4 ? warp.lanes<uint32_t>(i.c)[lane] : warp.lanes<uint64_t>(i.c)[lane]) + i.target;
        uint64_t elements = 1;
        for (int n = 0; n < map.rank; n++) elements *= map.box[n];
        // Block 0 is the warp's own.
        std::vector<uint64_t> blocks = {0};
        if (i.mode) {
            blocks.clear();
            const uint32_t those = warp.lanes<uint16_t>(i.list.back())[lane];
            for (uint64_t rank = 0; rank < 16; rank++) {
                if (those >> rank & 1) blocks.push_back((rank + 1) << cluster_address_shift);
            }
        }
        for (uint64_t index = 0; index < elements; index++) {
            uint64_t rest = index, from = map.address;
            bool inside = true;
            for (int n = 0; n < map.rank; n++) {
                const int64_t at = (int64_t)(rest % map.box[n]) + (int32_t)warp.lanes<uint32_t>(i.list[(size_t)n])[lane];
                rest /= map.box[n];
                inside &= at >= 0 && at < (int64_t)map.dimensions[n];
                from += (uint64_t)at * (n == 0 ? map.element_bytes : map.strides[n - 1]);
            }
            const uint32_t place = swizzled((uint32_t)(to + index * map.element_bytes), map.swizzle);
            if (inside) check_device_memory(from, map.element_bytes, "copy of a box");
            for (uint64_t block : blocks) {
                uint8_t *target = shared_address(warp, place | block, map.element_bytes);
                if (inside) memcpy(target, (const void *)(uintptr_t)from, map.element_bytes);
                else memset(target, 0, map.element_bytes);
            }
        }
        for (uint64_t block : blocks) {
            CountingBarrier &barrier = barrier_at(warp, at | block);
            barrier.bytes = barrier.bytes - (int64_t)(elements * map.element_bytes);
            barrier.turn();
        }
    });
}

/// Bytes of shared memory to a block of the cluster: from `i.b` on, as many as list says, to `i.a`; `i.c` is the barrier.
void copy_to_block(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        const uint64_t to = address_of(warp, i, lane), bytes = warp.lanes<uint32_t>(i.list[0])[lane];
        const uint64_t from = i.b.size == 4 ? warp.lanes<uint32_t>(i.b)[lane] : warp.lanes<uint64_t>(i.b)[lane];
        const uint64_t at = i.c.size == 4 ? warp.lanes<uint32_t>(i.c)[lane] : warp.lanes<uint64_t>(i.c)[lane];
        if ((to | from | bytes) % 16) throw Fault("misaligned bulk copy");
        memmove(shared_address(warp, to, bytes), shared_address(warp, from, bytes), bytes);
        CountingBarrier &barrier = barrier_at(warp, at);
        barrier.bytes = barrier.bytes - (int64_t)bytes;
        barrier.turn();
    });
}

}  // namespace

bool decode_bulk(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    const std::string &op = statement.parts[0];
    if (op == "mbarrier") {
        if (statement.has("init")) {
            decoder.address((size_t)0, i);
            i.b = decoder.source(1, 4);
            i.handler = initialize;
        } else if (statement.has("inval")) {
            i.handler = invalidate;
        } else if (statement.has("arrive") || statement.parts[1] == "expect_tx") {
            const bool arrives = statement.has("arrive"), expects = statement.has("expect_tx");
            const size_t first = arrives ? 1 : 0;
            if (arrives && decoder.operand(0) != "_") decoder.unknown("the state of an arrival");
            decoder.address(first, i);
            if (decoder.count() > first + 1) i.b = decoder.source(first + 1, 4);
            i.mode = (uint8_t)((expects ? 1 : 0) | (arrives ? 2 : 0));
            i.handler = arrive;
        } else if ((statement.has("try_wait") || statement.has("test_wait")) && statement.has("parity")) {
            i.d = decoder.destination(0, 4);
            decoder.address(1, i);
            i.b = decoder.source(2, 4);
            i.handler = test;
        } else {
            return false;
        }
        return true;
    }
    if (op == "cp" && statement.has("mbarrier") && statement.has("noinc")) {
        // Copies have ended where they began, so that it is an arrival.
        decoder.address((size_t)0, i);
        i.mode = 2;
        i.handler = arrive;
        return true;
    }
    if (op == "cp" && statement.has("bulk") && statement.has("tensor") && statement.has("mbarrier::complete_tx::bytes")) {
        decoder.address((size_t)0, i);
        const std::string &source = decoder.operand(1);
        const std::vector<std::string> parts = split_operands(std::string_view(source).substr(1, source.size() - 2));
        Instruction map;
        decoder.address(parts[0], map);
        if (map.immediate) decoder.unknown("an offset of a tensor map");
        i.b = map.a;
        for (const std::string &one : split_operands(std::string_view(parts[1]).substr(1, parts[1].size() - 2))) {
            i.list.push_back(decoder.source(one, 4));
        }
        Instruction barrier;
        decoder.address(2, barrier);
        i.c = barrier.a;
        i.target = (uint32_t)barrier.immediate;
        if (statement.has("multicast::cluster")) {
            i.mode = 1;
            i.list.push_back(decoder.source(3, 2));
        }
        i.handler = copy_box;
        return true;
    }
    if (op == "cp" && statement.has("bulk") && statement.has("shared::cta") && statement.has("mbarrier::complete_tx::bytes")) {
        decoder.address((size_t)0, i);
        Instruction source, barrier;
        decoder.address(1, source);
        decoder.address(3, barrier);
        if (source.immediate || barrier.immediate) decoder.unknown("an offset of a bulk copy");
        i.b = source.a;
        i.c = barrier.a;
        i.list.push_back(decoder.source(2, 4));
        i.handler = copy_to_block;
        return true;
    }
    if (op == "cp" && statement.has("bulk") &&
        (statement.has("commit_group") || statement.has("wait_group") || statement.has("prefetch"))) {
        i.handler = invalidate;
        return true;
    }
    return false;
}

}  // namespace emulator
