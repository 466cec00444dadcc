// What runs: blocks of warps, and the memory that they see.
#pragma once

#include <cstring>

#include "program.h"

namespace emulator {

/// Lanes of a warp that are at one place.
struct Group {
    uint32_t pc = 0, mask = 0;
    enum State : uint8_t { running, collective, barrier } state = running;
    uint8_t barrier_index = 0;
};

struct Dimensions {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return (uint64_t)x * y * z; }
};

struct Launch {
    const Kernel *kernel = nullptr;
    Dimensions grid, block;
    uint32_t dynamic_shared_bytes = 0;
    std::vector<uint8_t> parameters;
};

struct Block;

struct Warp {
    Block *block = nullptr;
    unsigned index = 0;
    /// Lanes that have not ended.
    uint32_t live = 0;
    std::vector<Group> groups;
    uint8_t *registers = nullptr;
    bool gives_way = false;
    /// Of each lane, the cluster barrier's phase at which it arrived.
    uint64_t arrivals[32] = {};

    template <class T>
    T *lanes(Slot slot) const {
        return (T *)(registers + slot.offset);
    }
    /// The low bytes of a register that may be wider than T.
    template <class T>
    T read(Slot slot, int lane) const {
        T value;
        memcpy(&value, registers + slot.offset + lane * slot.size, sizeof value);
        return value;
    }
    void write(Slot slot, int lane, uint64_t bits) const {
        memcpy(registers + slot.offset + lane * slot.size, &bits, slot.size);
    }
    uint32_t &predicate(Slot slot) const { return *(uint32_t *)(registers + slot.offset); }
};

struct Barrier {
    uint32_t arrived = 0, expected = 0, votes = 0;
    bool any = false, all = true;
};

/// Blocks that may read each other's shared memory, in the order of their ranks; mostly one.
struct Cluster {
    std::vector<std::unique_ptr<Block>> blocks;
    /// Of the cluster's barrier.
    uint32_t arrived = 0;
    uint64_t phase = 0;

    uint32_t live_threads() const;
    bool is_done() const;
};

struct Block {
    Cluster *cluster = nullptr;
    const Launch *launch = nullptr;
    Dimensions index;
    /// Aligned so that swizzled addresses are those of the hardware.
    uint8_t *shared = nullptr, *local = nullptr;
    uint32_t shared_bytes = 0;
    std::vector<Warp> warps;
    Barrier barriers[16];
    std::vector<uint8_t> storage;

    uint32_t live_threads() const {
        uint32_t count = 0;
        for (const Warp &warp : warps) count += (uint32_t)__builtin_popcount(warp.live);
        return count;
    }
};

inline uint32_t Cluster::live_threads() const {
    uint32_t count = 0;
    for (const auto &block : blocks) count += block->live_threads();
    return count;
}
inline bool Cluster::is_done() const { return live_threads() == 0; }

/// Runs a launch to its end. Throws ``Fault``.
void run(const Launch &launch, unsigned processors);

/// Throws unless [address, address + bytes) is in one allocation of the device.
void check_device_memory(uint64_t address, uint64_t bytes, const char *what);

/// Where the number of a block of the cluster, plus one, stands in a 32-bit address in its shared memory.
constexpr unsigned cluster_address_shift = 24;

/// The host's address of shared memory: of the warp's own block, or of that whose number the address has.
inline uint8_t *shared_address(const Warp &warp, uint64_t address, uint64_t bytes) {
    const uint64_t number = address >> cluster_address_shift;
    if (number > warp.block->cluster->blocks.size()) throw Fault("shared address " + std::to_string(address));
    const Block &block = number == 0 ? *warp.block : *warp.block->cluster->blocks[number - 1];
    address &= (1u << cluster_address_shift) - 1;
    if (address < reserved_shared_bytes || address + bytes > block.shared_bytes) {
        throw Fault(
            "shared address " + std::to_string(address) + " of " + std::to_string(bytes) + " bytes; the block has " +
            std::to_string(reserved_shared_bytes) + " to " + std::to_string(block.shared_bytes));
    }
    return block.shared + address;
}

template <class Body>
inline void for_lanes(uint32_t mask, Body body) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) body(__builtin_ctz(rest));
}

}  // namespace emulator
