// A kernel, decoded from PTX: instructions whose operands are places in a warp's register file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

/// What a kernel did that the hardware would not allow, or that the emulator does not know.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Warp;
struct Instruction;

/// Executes an instruction for the lanes of a mask.
using Handler = void (*)(Warp &warp, const Instruction &instruction, uint32_t mask);

/// How the scheduler treats an instruction.
enum class Kind : uint8_t {
    plain,
    branch,
    exit,
    /// Waits for the lanes of a mask.
    collective,
    barrier_sync,
    barrier_arrive,
    barrier_reduce,
    cluster_arrive,
    cluster_wait,
};

/// A place in the register file: lanes side by side, `size` bytes each; a predicate is one word with a bit for each lane.
struct Slot {
    uint32_t offset = 0;
    uint8_t size = 0;
};

struct Instruction {
    Handler handler = nullptr;
    Kind kind = Kind::plain;
    bool guarded = false, guard_negated = false;
    uint8_t size = 0;
    /// Meaning depends on the handler: count of vector elements, rounding, modes.
    uint8_t count = 0, mode = 0;
    Slot guard;
    /// Destinations first. Lists of any length are in `list`.
    Slot d, d2, a, b, c;
    int64_t immediate = 0;
    uint32_t target = 0;
    /// The mask of a collective.
    Slot members;
    std::vector<Slot> list;
    uint32_t ptx_line = 0, file = 0, line = 0;
    std::string text;
};

/// What a slot holds when a warp starts.
struct InitialValue {
    enum Source : uint8_t { constant, special, shared_base, local, parameter };
    Slot slot;
    Source source = constant;
    uint64_t bits = 0;
    std::string name;
};

struct Kernel {
    std::string name;
    std::vector<Instruction> code;
    std::vector<InitialValue> initial;
    uint32_t register_bytes = 0;
    uint32_t local_bytes = 0;
    uint32_t parameter_bytes = 0;
    std::vector<std::pair<size_t, size_t>> parameters;
    /// Shared memory from its first byte on, the reserved part included, and where the dynamic part begins.
    uint32_t static_shared_bytes = 0;
    std::map<uint32_t, std::string> files;
    /// What its launch bounds promise.
    unsigned maximum_threads = 1024, blocks_a_processor = 1;
    /// Neighbouring blocks that read each other's shared memory.
    unsigned cluster = 1;
};

struct Module {
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
    /// Module variables.
    std::map<std::string, std::unique_ptr<std::vector<uint8_t>>> globals;
};

/// The first bytes of a block's shared memory belong to the system, as on the hardware.
constexpr uint32_t reserved_shared_bytes = 1024;

/// Reads PTX. Throws ``Fault`` with the line of what it does not know.
std::unique_ptr<Module> load_module(const char *text);

}  // namespace emulator
