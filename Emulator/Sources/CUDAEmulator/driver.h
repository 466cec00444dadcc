// What the driver's files share: its memory, its streams, and what became of it.
#pragma once

#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "machine.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace emulator {

enum Status {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    no_device = 100,
    invalid_context = 201,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    capture_unsupported = 900,
    capture_invalidated = 901,
    unknown = 999,
};

struct Allocations {
    std::shared_mutex mutex;
    std::map<uint64_t, uint64_t> sizes;
    size_t device_bytes = 0;

    static Allocations &all() {
        static Allocations own;
        return own;
    }

    /// Filled with NaNs: what nobody wrote shows.
    void *make(size_t bytes, bool is_device) {
        const size_t rounded = (bytes + 255) / 256 * 256;
        void *memory = aligned_alloc(256, rounded);
        if (!memory) return nullptr;
        memset(memory, 0xff, rounded);
        std::unique_lock lock(mutex);
        sizes[(uint64_t)(uintptr_t)memory] = bytes;
        if (is_device) device_bytes += bytes;
        return memory;
    }

    bool remove(uint64_t address, bool is_device) {
        {
            std::unique_lock lock(mutex);
            auto found = sizes.find(address);
            if (found == sizes.end()) return false;
            if (is_device) device_bytes -= found->second;
            sizes.erase(found);
        }
        free((void *)(uintptr_t)address);
        return true;
    }

    bool contains(uint64_t address, uint64_t bytes, uint64_t &start, uint64_t &end) {
        std::shared_lock lock(mutex);
        auto found = sizes.upper_bound(address);
        if (found == sizes.begin()) return false;
        --found;
        start = found->first;
        end = found->first + found->second;
        return address >= start && address + bytes <= end;
    }
};

/// Raised when memory is given back, as threads remember where they last looked.
inline std::atomic<uint64_t> generation{1};

using Action = std::function<int()>;

struct Graph {
    std::vector<Action> actions;
};

struct Stream {
    Graph *capturing = nullptr;
    /// What is submitted runs one after another, whichever threads submit it.
    std::recursive_mutex order;
};

/// The status that every call gives once a kernel has gone astray.
inline std::atomic<int> sticky{0};

constexpr uintptr_t the_context = 0x1000;

unsigned processors();
Stream &stream_of(uintptr_t stream);
/// Does it now, or records it.
int submit(uintptr_t stream, Action action);
int fail(const std::string &why);

}  // namespace emulator
