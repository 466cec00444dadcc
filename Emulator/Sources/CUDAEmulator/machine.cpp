// The scheduler: lanes of a warp in groups that are at one place, warps of a block in turn, as many blocks side by side as the
// processors hold.
//
// Of a warp's groups the one that is furthest behind runs, so that lanes which parted meet again. A warp runs a number of
// instructions at a time, or until it waits; so every warp that can go on does, and loops that wait for others end.

#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace emulator {
namespace {

constexpr int turn_length = 2000;
/// How long a launch may take: a loop that polls for ever is not told from a slow kernel but by patience.
constexpr std::chrono::seconds patience(600);

std::string where(const Kernel &kernel, const Instruction &instruction) {
    std::string text = "PTX line " + std::to_string(instruction.ptx_line) + " '" + instruction.text.substr(0, 200) + "'";
    auto file = kernel.files.find(instruction.file);
    if (file != kernel.files.end()) text = file->second + ":" + std::to_string(instruction.line) + ", " + text;
    return text;
}

uint64_t special(const std::string &name, const Block &block, unsigned warp, unsigned lane) {
    const Dimensions &size = block.launch->block, &grid = block.launch->grid;
    const unsigned thread = warp * 32 + lane;
    if (name == "%tid.x") return thread % size.x;
    if (name == "%tid.y") return thread / size.x % size.y;
    if (name == "%tid.z") return thread / size.x / size.y;
    if (name == "%ntid.x") return size.x;
    if (name == "%ntid.y") return size.y;
    if (name == "%ntid.z") return size.z;
    if (name == "%ctaid.x") return block.index.x;
    if (name == "%ctaid.y") return block.index.y;
    if (name == "%ctaid.z") return block.index.z;
    if (name == "%nctaid.x") return grid.x;
    if (name == "%nctaid.y") return grid.y;
    if (name == "%nctaid.z") return grid.z;
    if (name == "%laneid") return lane;
    if (name == "%warpid") return warp;
    if (name == "%nwarpid") return block.warps.size();
    if (name == "%lanemask_lt") return (1u << lane) - 1;
    if (name == "%lanemask_le") return (2u << lane) - 1;
    if (name == "%lanemask_eq") return 1u << lane;
    if (name == "%lanemask_gt") return ~((2u << lane) - 1);
    if (name == "%lanemask_ge") return ~((1u << lane) - 1);
    if (name == "%dynamic_smem_size") return block.launch->dynamic_shared_bytes;
    if (name == "%total_smem_size") return block.shared_bytes - reserved_shared_bytes;
    if (name == "%smid") return block.index.x;
    if (name == "%nsmid") return grid.x;
    const uint32_t cluster = block.launch->kernel->cluster;
    if (name == "%cluster_ctarank" || name == "%cluster_ctaid.x") return block.index.x % cluster;
    if (name == "%cluster_nctarank" || name == "%cluster_nctaid.x") return cluster;
    if (name == "%clusterid.x") return block.index.x / cluster;
    if (name == "%nclusterid.x") return grid.x / cluster;
    if (name == "%clock" || name == "%clock64" || name == "%globaltimer") return 0;
    throw Fault("unknown register " + name);
}

/// Registers, local and shared memory of a block, poisoned where the hardware's are undefined.
void prepare(Block &block, const Launch &launch, Dimensions index) {
    const Kernel &kernel = *launch.kernel;
    const unsigned threads = (unsigned)launch.block.count(), warps = (threads + 31) / 32;
    block.launch = &launch;
    block.index = index;
    block.shared_bytes = kernel.static_shared_bytes + launch.dynamic_shared_bytes;
    const size_t registers = (kernel.register_bytes + 63) / 64 * 64;
    const size_t local = (kernel.local_bytes + 15) / 16 * 16;
    const size_t locals = (threads * local + 63) / 64 * 64;
    block.storage.assign(4096 + block.shared_bytes + 64 + locals + warps * registers + 64, 0xff);
    // Swizzles look at address bits up to the tenth.
    uint8_t *at = block.storage.data();
    at += (4096 - (uintptr_t)at % 4096) % 4096;
    block.shared = at;
    at += (block.shared_bytes + 63) / 64 * 64;
    block.local = at;
    at += locals;
    block.warps.resize(warps);
    for (unsigned w = 0; w < warps; w++) {
        Warp &warp = block.warps[w];
        warp.block = &block;
        warp.index = w;
        warp.registers = at;
        at += registers;
        const unsigned lanes = std::min(32u, threads - w * 32);
        warp.live = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
        warp.groups = {Group{0, warp.live}};
        for (const InitialValue &value : kernel.initial) {
            const bool differs = value.name.starts_with("%tid") || value.name.starts_with("%lane");
            const uint64_t common = value.source == InitialValue::special && !differs ? special(value.name, block, w, 0) : 0;
            for (unsigned lane = 0; lane < 32; lane++) {
                uint64_t bits = value.bits;
                switch (value.source) {
                case InitialValue::special: bits = differs ? special(value.name, block, w, lane) : common; break;
                case InitialValue::local: bits += (uint64_t)(uintptr_t)(block.local + (w * 32 + lane) * local); break;
                case InitialValue::parameter: bits += (uint64_t)(uintptr_t)launch.parameters.data(); break;
                default: break;
                }
                if (lane < lanes || value.source != InitialValue::local) warp.write(value.slot, (int)lane, bits);
            }
        }
    }
    for (Barrier &barrier : block.barriers) barrier = Barrier();
}

/// Lets go of those that wait at a barrier, if all it waits for have come.
void release(Block &block, unsigned index) {
    Barrier &barrier = block.barriers[index];
    const uint32_t expected = barrier.expected ? barrier.expected : block.live_threads();
    if (barrier.arrived == 0 || barrier.arrived < expected) return;
    if (barrier.arrived > expected) {
        throw Fault(
            "barrier " + std::to_string(index) + " expects " + std::to_string(expected) + " threads, and " +
            std::to_string(barrier.arrived) + " came");
    }
    for (Warp &warp : block.warps) {
        for (Group &group : warp.groups) {
            if (group.state != Group::barrier || group.barrier_index != index) continue;
            const Instruction &i = block.launch->kernel->code[group.pc];
            if (i.kind == Kind::barrier_reduce && i.mode == 3) {
                for_lanes(group.mask, [&](int lane) { warp.lanes<uint32_t>(i.d)[lane] = barrier.votes; });
            } else if (i.kind == Kind::barrier_reduce) {
                uint32_t &d = warp.predicate(i.d);
                const bool result = i.mode == 1 ? barrier.any : barrier.all;
                d = (d & ~group.mask) | (result ? group.mask : 0);
            }
            group.state = Group::running;
            group.pc++;
        }
    }
    barrier = Barrier();
}

/// A group comes to a barrier; it waits unless it only arrives.
void arrive(Warp &warp, Group &group, const Instruction &i, uint32_t mask) {
    Block &block = *warp.block;
    const int lane = __builtin_ctz(mask);
    const uint32_t index = warp.lanes<uint32_t>(i.a)[lane];
    if (index > 15) throw Fault("barrier " + std::to_string(index));
    Barrier &barrier = block.barriers[index];
    const uint32_t expected = i.b.size ? warp.lanes<uint32_t>(i.b)[lane] : 0;
    if (barrier.arrived && barrier.expected != expected) throw Fault("a barrier with two numbers of threads");
    barrier.expected = expected;
    barrier.arrived += (uint32_t)__builtin_popcount(mask);
    if (i.kind == Kind::barrier_reduce) {
        const uint32_t votes = i.count ? ~warp.predicate(i.c) : warp.predicate(i.c);
        barrier.any |= (votes & mask) != 0;
        barrier.all &= (votes & mask) == mask;
        barrier.votes += (uint32_t)__builtin_popcount(votes & mask);
    }
    if (i.kind == Kind::barrier_arrive) {
        group.pc++;
    } else {
        group.state = Group::barrier;
        group.barrier_index = (uint8_t)index;
    }
    release(block, index);
}

/// Joins groups at one place that can go on together.
void merge(std::vector<Group> &groups) {
    for (size_t a = 0; a < groups.size(); a++) {
        for (size_t b = a + 1; b < groups.size();) {
            const bool same = groups[a].pc == groups[b].pc && groups[a].state != Group::barrier && groups[b].state != Group::barrier;
            if (!same) {
                b++;
                continue;
            }
            groups[a].mask |= groups[b].mask;
            groups[a].state = Group::running;
            groups.erase(groups.begin() + (ptrdiff_t)b);
        }
    }
}

/// Runs a warp until its turn ends or it waits. Whether anything was done.
bool advance(Warp &warp) {
    const Kernel &kernel = *warp.block->launch->kernel;
    const Instruction *const code = kernel.code.data();
    int left = turn_length;
    bool moved = false;
    warp.gives_way = false;
    while (left > 0 && !warp.gives_way) {
        if (warp.groups.size() > 1) merge(warp.groups);
        size_t chosen = warp.groups.size();
        for (size_t n = 0; n < warp.groups.size(); n++) {
            if (warp.groups[n].state != Group::running) continue;
            if (chosen == warp.groups.size() || warp.groups[n].pc < warp.groups[chosen].pc) chosen = n;
        }
        if (chosen == warp.groups.size()) return moved;
        // Where it may meet others.
        uint32_t meeting = 0xffffffffu;
        for (size_t n = 0; n < warp.groups.size(); n++) {
            const Group &other = warp.groups[n];
            if (n != chosen && other.state != Group::barrier) meeting = std::min(meeting, other.pc);
        }
        uint32_t pc = warp.groups[chosen].pc;
        const uint32_t mask = warp.groups[chosen].mask;
        bool again = true;
        while (again && left-- > 0) {
            const Instruction &i = code[pc];
            uint32_t executing = mask;
            if (i.guarded) executing &= i.guard_negated ? ~warp.predicate(i.guard) : warp.predicate(i.guard);
            Group &group = warp.groups[chosen];
            try {
                switch (i.kind) {
                case Kind::plain:
                    if (executing) i.handler(warp, i, executing);
                    pc++;
                    moved = true;
                    break;
                case Kind::cluster_arrive: {
                    Cluster &cluster = *warp.block->cluster;
                    for_lanes(executing, [&](int lane) { warp.arrivals[lane] = cluster.phase; });
                    cluster.arrived += (uint32_t)__builtin_popcount(executing);
                    pc++;
                    moved = true;
                    break;
                }
                case Kind::cluster_wait: {
                    Cluster &cluster = *warp.block->cluster;
                    if (cluster.arrived && cluster.arrived >= cluster.live_threads()) {
                        cluster.arrived = 0;
                        cluster.phase++;
                    }
                    bool passes = true;
                    for_lanes(executing, [&](int lane) { passes &= warp.arrivals[lane] < cluster.phase; });
                    if (passes) {
                        pc++;
                        moved = true;
                    } else {
                        warp.gives_way = true;
                        again = false;
                    }
                    break;
                }
                case Kind::branch:
                    moved = true;
                    if (executing == mask) {
                        pc = i.target;
                    } else if (executing == 0) {
                        pc++;
                    } else {
                        pc++;
                        group.mask = mask & ~executing;
                        warp.groups.push_back(Group{i.target, executing});
                        again = false;
                    }
                    break;
                case Kind::exit:
                    moved = true;
                    warp.live &= ~executing;
                    group.mask = mask & ~executing;
                    pc++;
                    again = false;
                    break;
                case Kind::collective: {
                    if (!executing) {
                        pc++;
                        break;
                    }
                    const uint32_t needed = warp.lanes<uint32_t>(i.members)[__builtin_ctz(executing)] & warp.live;
                    if ((executing & needed) == needed) {
                        i.handler(warp, i, executing);
                        pc++;
                        moved = true;
                    } else {
                        group.state = Group::collective;
                        again = false;
                    }
                    break;
                }
                default:
                    if (!executing) {
                        pc++;
                        break;
                    }
                    if (executing != mask) throw Fault("part of a group comes to a barrier");
                    moved = true;
                    group.pc = pc;
                    arrive(warp, group, i, executing);
                    pc = warp.groups[chosen].pc;
                    again = false;
                    break;
                }
            } catch (const Fault &fault) {
                const Block &block = *warp.block;
                throw Fault(
                    kernel.name + ", block (" + std::to_string(block.index.x) + ", " + std::to_string(block.index.y) + ", " +
                    std::to_string(block.index.z) + "), warp " + std::to_string(warp.index) + ": " + fault.what() + "\n  at " +
                    where(kernel, i));
            }
            if (pc >= meeting || warp.gives_way) again = false;
        }
        warp.groups[chosen].pc = pc;
        if (warp.groups[chosen].mask == 0) {
            warp.groups.erase(warp.groups.begin() + (ptrdiff_t)chosen);
            // Fewer threads to wait for.
            for (unsigned index = 0; index < 16; index++) {
                if (warp.block->barriers[index].arrived && warp.block->barriers[index].expected == 0) release(*warp.block, index);
            }
            for (Group &group : warp.groups) {
                if (group.state == Group::collective) group.state = Group::running;
            }
        }
    }
    return moved;
}

[[noreturn]] void deadlock(const Launch &launch, const std::vector<std::unique_ptr<Cluster>> &clusters) {
    std::string text = launch.kernel->name + ": nothing goes on:";
    for (const auto &cluster : clusters) {
        if (!cluster) continue;
        for (const auto &block : cluster->blocks) {
            for (const Warp &warp : block->warps) {
                for (const Group &group : warp.groups) {
                    if (text.size() > 4000) break;
                    text += "\n  block " + std::to_string(block->index.x) + " warp " + std::to_string(warp.index) + " lanes " +
                            std::to_string(group.mask) + " at " + where(*launch.kernel, launch.kernel->code[group.pc]);
                }
            }
        }
    }
    throw Fault(text);
}

/// Makes the blocks of cluster number `number`.
std::unique_ptr<Cluster> make_cluster(const Launch &launch, uint64_t number) {
    auto cluster = std::make_unique<Cluster>();
    for (uint64_t rank = 0; rank < launch.kernel->cluster; rank++) {
        const uint64_t block = number * launch.kernel->cluster + rank;
        cluster->blocks.push_back(std::make_unique<Block>());
        cluster->blocks.back()->cluster = cluster.get();
        const Dimensions index{
            (uint32_t)(block % launch.grid.x), (uint32_t)(block / launch.grid.x % launch.grid.y),
            (uint32_t)(block / launch.grid.x / launch.grid.y)};
        prepare(*cluster->blocks.back(), launch, index);
    }
    return cluster;
}

}  // namespace

void run(const Launch &launch, unsigned processors) {
    const uint64_t clusters = launch.grid.count() / launch.kernel->cluster;
    const uint64_t resident = std::max(1u, launch.kernel->blocks_a_processor * processors / launch.kernel->cluster);
    std::vector<std::unique_ptr<Cluster>> running((size_t)std::min(clusters, resident));
    uint64_t next = 0, ended = 0;
    const auto start = std::chrono::steady_clock::now();
    while (ended < clusters) {
        bool moved = false;
        for (std::unique_ptr<Cluster> &cluster : running) {
            if (!cluster && next < clusters) {
                cluster = make_cluster(launch, next++);
                moved = true;
            }
            if (!cluster) continue;
            for (const auto &block : cluster->blocks) {
                for (Warp &warp : block->warps) {
                    if (warp.live) moved |= advance(warp);
                }
            }
            if (cluster->is_done()) {
                cluster.reset();
                ended++;
                moved = true;
            }
        }
        if (!moved || std::chrono::steady_clock::now() - start > patience) deadlock(launch, running);
    }
}

}  // namespace emulator
