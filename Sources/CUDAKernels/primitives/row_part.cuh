// A block's part of a row, in groups of four entries that are aligned as in memory. A block of a cluster holds its part in shared
// memory as float32, so that the row is read once; one block alone reads it anew each time.
//
// Each warp has a run of groups for itself, so what a warp sums is of neighbouring entries. Entries of the first and of the last
// group that are not the part's are neutral: -inf for logits, 0 for probabilities.
//
// FI_INPUT: storage type. FI_FORM: 0 for logits, 1 for probabilities. FI_TEAM: see team.cuh. FI_PAST_L1: what is not held is not kept in L1,
// which is small beside lists.
#pragma once

#include "primitives/async.cuh"
#include "primitives/distribution.cuh"
#include "primitives/team.cuh"

#define FI_WARPS (FI_THREADS / 32)
#ifdef FI_PAST_L1
#define FI_LOAD "ld.global.L1::no_allocate"
#else
#define FI_LOAD "ld.global"
#endif

#if FI_TEAM > 1
#define FI_HELD 1
/// The part's entries, from entry `pad` on: memory for one part of FI_TEAM, rounded up to 64 entries, and 4 more.
extern __shared__ __align__(16) float fi_held[];
#else
#define FI_HELD 0
#endif

static __device__ __forceinline__ float fi_neutral() { return FI_FORM == 0 ? -fi_infinity() : 0.0f; }

/// The part of a row that this block has. All threads have the same numbers, but for `begin` and `end`.
struct fi_row_part {
    /// Of group 0: the first entry's address, rounded down to four entries.
    unsigned long long address;
    /// The entries: `count` from place `first` on, after `pad` others in group 0.
    unsigned int first, count, pad;
    /// All, and this warp's.
    unsigned int groups, begin, end;

    /// The place in the row of entry `index` of the groups; of others, one that no entry has.
    __device__ __forceinline__ unsigned int place(unsigned int index) const { return first + index - pad; }
    __device__ __forceinline__ bool has(unsigned int index) const { return index - pad < count; }

    /// Groups of a warp's run: whole steps of a warp, of four groups a lane where rows are long.
    __device__ __forceinline__ unsigned int run() const {
        const unsigned int step = !FI_HELD && groups >= 4 * FI_THREADS ? 4 : 1;
        return (groups + step * FI_THREADS - 1) / (step * FI_THREADS) * (32 * step);
    }
    __device__ __forceinline__ void spread() {
        groups = (pad + count + 3) / 4;
        const unsigned int run = this->run();
        const unsigned int from = threadIdx.x / 32 * run;
        begin = from < groups ? from : groups;
        end = groups - begin < run ? groups : begin + run;
    }
};

/// Which warp has an entry.
static __device__ __forceinline__ unsigned int fi_warp_of(const fi_row_part &part, unsigned int index) {
    return index / 4 / part.run();
}

static __device__ __forceinline__ fi_row_part fi_take_part(unsigned long long address, unsigned int width) {
    const fi_team_part own = fi_part_of_row(width);
    fi_row_part part;
    part.first = own.first;
    part.count = own.count;
    address += (unsigned long long)own.first * fi_size(FI_INPUT);
    part.pad = (unsigned int)(address % (4 * fi_size(FI_INPUT))) / fi_size(FI_INPUT);
    part.address = address - part.pad * fi_size(FI_INPUT);
    part.spread();
    return part;
}

/// A whole group, from what is known to be global memory. Volatile, as the compiler moves other assembly to where it is not known that
/// there is such a group.
static __device__ __forceinline__ fi_packed<FI_INPUT, 4> fi_load_group(unsigned long long address, unsigned int group) {
    fi_packed<FI_INPUT, 4> packed;
    if constexpr (fi_size(FI_INPUT) == 4) {
        asm volatile(FI_LOAD ".v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(packed.word[0]), "=r"(packed.word[1]), "=r"(packed.word[2]), "=r"(packed.word[3])
            : "l"(address + 16ull * group));
    } else {
        asm volatile(FI_LOAD ".v2.u32 {%0, %1}, [%2];"
            : "=r"(packed.word[0]), "=r"(packed.word[1]) : "l"(address + 8ull * group));
    }
    return packed;
}

static __device__ __forceinline__ float4 fi_group(const fi_packed<FI_INPUT, 4> &packed) {
    float x[4];
    fi_unpack<FI_INPUT, 4>(packed, x);
    return make_float4(x[0], x[1], x[2], x[3]);
}

/// The first or the last group: rare, so one copy of it will do.
static __device__ __noinline__ float4 fi_read_edge(unsigned long long address, unsigned int group, unsigned int pad, unsigned int count) {
    float x[4];
#pragma unroll
    for (unsigned int i = 0; i < 4; i++) {
        float entry[1] = {fi_neutral()};
        if (4 * group + i - pad < count) fi_read<FI_INPUT, 1>(address, 4ll * group + i, entry);
        x[i] = entry[0];
    }
    return make_float4(x[0], x[1], x[2], x[3]);
}

/// A group from memory, which may be the first or the last.
static __device__ __forceinline__ float4 fi_read_group(const fi_row_part &part, unsigned int group) {
    if (part.has(4 * group) && part.has(4 * group + 3)) return fi_group(fi_load_group(part.address, group));
    return fi_read_edge(part.address, group, part.pad, part.count);
}

/// The entries as they are: what is held, or from memory.
struct fi_raw_groups {
    /// Whether they are made of the row's entries alone, by `of`.
    static constexpr bool reads_row = true;
    /// Whether a walk over them reads a thread's groups at once, which is code for what is common.
    static constexpr bool walks_at_once = false;
    const fi_row_part &part;
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
#if FI_HELD
        return ((const float4 *)fi_held)[group];
#else
        return fi_read_group(part, group);
#endif
    }
    /// What a pass makes of entries that it has read.
    __device__ __forceinline__ float4 of(float4 x, unsigned int) const { return x; }
};

/// Four entries of a row of another tensor, of `type`, whose first and last group may have fewer; `output` is the address of group 0.
template <int type>
static __device__ __forceinline__ void fi_write_group(
    const fi_row_part &part, unsigned long long output, unsigned int group, float4 x
) {
    const float entries[4] = {x.x, x.y, x.z, x.w};
    if (output % (4 * fi_size(type)) == 0 && part.has(4 * group) && part.has(4 * group + 3)) {
        fi_write<type, 4>(output, 4ll * group, entries);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float entry[1] = {entries[i]};
        if (part.has(4 * group + i)) fi_write<type, 1>(output, 4ll * group + i, entry);
    }
}

/// The address of group 0 in another row of `type`.
template <int type>
static __device__ __forceinline__ unsigned long long fi_output_of(const fi_row_part &part, unsigned long long address) {
    return address + (unsigned long long)part.first * fi_size(type) - part.pad * fi_size(type);
}

/// The greater one, or NaN.
static __device__ __forceinline__ void fi_raise(float &greatest, float x) {
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(greatest) : "f"(x));
}
static __device__ __forceinline__ void fi_raise(float &greatest, float4 x) {
    fi_raise(greatest, x.x);
    fi_raise(greatest, x.y);
    fi_raise(greatest, x.z);
    fi_raise(greatest, x.w);
}

/// Some of four groups: `number` from group `from` on.
template <unsigned int from, unsigned int number> struct fi_some {
    static constexpr unsigned int begin = from, end = from + number;
};

#if !FI_HELD
/// Where this warp's run ends, in one register: twice the groups that are the part's alone, and 1 more where another one follows. Group 0 may not
/// be one.
static __device__ __forceinline__ unsigned int fi_run_ends(const fi_row_part &part) {
    const unsigned int most = (part.pad + part.count) / 4;
    unsigned int ends = part.end <= most ? 2 * part.end : 2 * most + 1;
    // Kept, and not worked out again in each step for want of registers.
    asm volatile("" : "+r"(ends));
    return ends;
}

/// The same as `fi_load_four`, which may be beyond the part's end.
static __device__ __forceinline__ void fi_read_edges(const fi_row_part &part, unsigned int start, float4 (&x)[4]) {
#pragma unroll
    for (unsigned int i = 0; i < 4; i++) {
        const unsigned int group = start + 32 * i + threadIdx.x % 32;
        x[i] = make_float4(fi_neutral(), fi_neutral(), fi_neutral(), fi_neutral());
        if (group < part.end) x[i] = fi_read_edge(part.address, group, part.pad, part.count);
    }
}

/// Four groups of each lane of this warp from group `start` on, 32 from one to the next: loaded at once.
static __device__ __forceinline__ void fi_load_four(
    const fi_row_part &part, unsigned int ends, unsigned int start, float4 (&x)[4]
) {
    const unsigned int lane = threadIdx.x % 32;
    if (2 * start + 256 <= ends && (start > 0 || part.pad == 0)) {
        fi_packed<FI_INPUT, 4> packed[4];
        // Distances from one address are part of the instructions.
        const unsigned long long from = part.address + 4ull * fi_size(FI_INPUT) * (start + lane);
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) packed[i] = fi_load_group(from, 32 * i);
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) x[i] = fi_group(packed[i]);
    } else {
        fi_read_edges(part, start, x);
    }
}

/// Whether rows whose entries are listed are read by halves of a step: float32 logits. Those of 16 bits are slower by it, and probabilities spill.
#define FI_HALVES (FI_FORM == 0 && FI_INPUT == FI_FLOAT32)
#if FI_HALVES
/// Two groups from group `i` of four on, where `is_there`.
static __device__ __forceinline__ void fi_load_two(bool is_there, unsigned long long from, unsigned int i, float4 (&x)[4]) {
    if (is_there) {
        const fi_packed<FI_INPUT, 4> first = fi_load_group(from, 32 * i), second = fi_load_group(from, 32 * i + 32);
        x[i] = fi_group(first);
        x[i + 1] = fi_group(second);
    }
    // Loads are not moved beyond it, to where they would be of no use.
    __syncwarp();
}

/// The same as `fi_each_four` where the first of them are loaded, by halves: `visit(x, group, half, begin)`, which calls `begin()` once what it
/// visits is there. One half is loaded while something is done with the other: both at once would be waited for together.
template <class Visit>
static __device__ __forceinline__ void fi_each_half(const fi_row_part &part, unsigned int ends, float4 (&x)[4], Visit &&visit) {
    const unsigned int lane = threadIdx.x % 32;
    bool is_whole = false;
    unsigned long long from = part.address + 4ull * fi_size(FI_INPUT) * (part.begin + lane);
#pragma unroll 1
    for (unsigned int start = part.begin; 2 * start < ends;) {
        const unsigned int group = start + lane;
        visit(x, group, fi_some<0, 2>(), [&] { fi_load_two(is_whole, from, 2, x); });
        visit(x, group, fi_some<2, 2>(), [&] {
            start += 128;
            is_whole = 2 * start + 256 <= ends;
            from += 512ull * fi_size(FI_INPUT);
            fi_load_two(is_whole, from, 0, x);
        });
        if (!is_whole && 2 * start < ends) fi_read_edges(part, start, x);
    }
}
#else
/// The same as `fi_each_four` where the first of them are loaded.
template <class Visit>
static __device__ __forceinline__ void fi_each_four(const fi_row_part &part, unsigned int ends, float4 (&x)[4], Visit &&visit) {
    const unsigned int lane = threadIdx.x % 32;
#pragma unroll 1
    for (unsigned int start = part.begin; 2 * start < ends;) {
        visit(x, start + lane);
        start += 128;
        if (2 * start < ends) fi_load_four(part, ends, start, x);
    }
}
#endif
#endif

/// Calls `visit(x, group)` for four groups of each lane of this warp at a time, of which `group` is the first, and 32 are from one to
/// the next; entries that are not the part's are neutral. What is not held is loaded at once; the loads of other warps run beside.
template <class Visit>
static __device__ __forceinline__ void fi_each_four(const fi_row_part &part, Visit &&visit) {
    const unsigned int lane = threadIdx.x % 32;
    const float4 neutral = make_float4(fi_neutral(), fi_neutral(), fi_neutral(), fi_neutral());
#if FI_HELD
#pragma unroll 1
    for (unsigned int start = part.begin; start < part.end; start += 128) {
        float4 x[4];
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) {
            const unsigned int group = start + 32 * i + lane;
            x[i] = group < part.end ? ((const float4 *)fi_held)[group] : neutral;
        }
        visit(x, start + lane);
    }
#else
    const unsigned int ends = fi_run_ends(part);
#pragma unroll 1
    for (unsigned int start = part.begin; 2 * start < ends; start += 128) {
        float4 x[4];
        fi_load_four(part, ends, start, x);
        visit(x, start + lane);
    }
#endif
}

/// Entries that a thread passes over between two calls of `flush`, at most; of held parts, all are fewer.
#define FI_FLUSH_GROUPS 64

/// Calls `visit(group's entries, group)` for the groups of this warp, one lane each, and `flush()` now and then, after the last one too.
/// `unroll` groups at once, whose work overlaps: 1 for what is rare, as each is compiled anew.
template <unsigned int unroll, class Groups, class Visit, class Flush>
static __device__ __forceinline__ void fi_each_group(
    const fi_row_part &part, const Groups &groups, Visit &&visit, Flush &&flush
) {
    const unsigned int lane = threadIdx.x % 32;
    if constexpr (!FI_HELD && unroll > 1 && Groups::reads_row) {
        unsigned int steps = 0;
        fi_each_four(part, [&](const float4 (&x)[4], unsigned int group) {
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) visit(groups.of(x[i], group + 32 * i), group + 32 * i);
            if (++steps % (FI_FLUSH_GROUPS / 4) == 0) flush();
        });
        flush();
    } else {
#pragma unroll 1
        for (unsigned int start = part.begin + lane; start < part.end; start += 32 * FI_FLUSH_GROUPS) {
            const unsigned int end = part.end - start < 32 * FI_FLUSH_GROUPS || FI_HELD ? part.end : start + 32 * FI_FLUSH_GROUPS;
            unsigned int group = start;
            if constexpr (unroll > 1) {
#pragma unroll 1
                for (; group + 32 * (unroll - 1) < end; group += 32 * unroll) {
#pragma unroll
                    for (unsigned int i = 0; i < unroll; i++) visit(groups(group + 32 * i), group + 32 * i);
                }
            }
#pragma unroll 1
            for (; group < end; group += 32) visit(groups(group), group);
            flush();
            if (FI_HELD) break;
        }
    }
}

/// The same of a pass that has nothing to flush.
template <unsigned int unroll, class Groups, class Visit>
static __device__ __forceinline__ void fi_each_group(const fi_row_part &part, const Groups &groups, Visit &&visit) {
    fi_each_group<unroll>(part, groups, visit, [] {});
}

#if FI_HELD
/// Begins to bring the warp's groups to shared memory, all of them at once: float32 beside the program, other types through registers.
/// A lane brings what it passes over itself, so that none waits for others.
static __device__ __forceinline__ void fi_bring(const fi_row_part &part) {
    const unsigned int lane = threadIdx.x % 32;
    // Groups that are the part's alone.
    const unsigned int least = part.pad > 0 ? 1 : 0, most = (part.pad + part.count) / 4;
    const unsigned int begin = part.begin + lane, end = part.end < most ? part.end : most;
    float4 *const held = (float4 *)fi_held;
    if constexpr (fi_size(FI_INPUT) == 4) {
#pragma unroll 4
        for (unsigned int group = begin < least ? begin + 32 : begin; group < end; group += 32) {
            copy_async<16>(shared_address(held + group), (const void *)(part.address + 16ull * group), true);
        }
    } else {
        // As many as registers allow: a part of 16,384 entries at once.
        constexpr unsigned int steps = FI_THREADS > 384 ? 8 : 12;
#pragma unroll 1
        for (unsigned int start = begin; start < end; start += 32 * steps) {
            // Distances from one address are part of the instructions.
            const unsigned long long from = part.address + 4ull * fi_size(FI_INPUT) * start;
            float4 *const to = held + start;
            const unsigned int left = end - start, skipped = start < least ? 1 : 0;
            fi_packed<FI_INPUT, 4> packed[steps];
#pragma unroll
            for (unsigned int i = 0; i < steps; i++) {
                if (32 * i < left && i >= skipped) packed[i] = fi_load_group(from, 32 * i);
            }
#pragma unroll
            for (unsigned int i = 0; i < steps; i++) {
                if (32 * i < left && i >= skipped) to[32 * i] = fi_group(packed[i]);
            }
        }
    }
    // Up to two groups are not: the first and the last.
    const auto bring = [&](unsigned int group) {
        if (group % 32 == lane && group >= part.begin && group < part.end) held[group] = fi_read_group(part, group);
    };
    if (least == 1) bring(0);
    if (most < part.groups && most >= least) bring(most);
}

/// Waits for what the thread's `fi_bring` has begun.
static __device__ __forceinline__ void fi_wait_brought() {
    if constexpr (fi_size(FI_INPUT) == 4) copy_wait_all();
}
#else
static __device__ __forceinline__ void fi_bring(const fi_row_part &) {}
static __device__ __forceinline__ void fi_wait_brought() {}
#endif
