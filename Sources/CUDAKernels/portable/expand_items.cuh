// Writes a queue's items from its row tiles: each of them for every head, section after section of heads (`HeadSections`). The host would take
// longer over them than over all else of a plan.

#include "fi_attention_params.h"

/// A thread has 16 bytes of an item. Kernels read items before they wait for what is ahead of them, so this one lets none start early, and is
/// launched with a fill behind it.
extern "C" __global__ void __launch_bounds__(FI_THREADS) expand_items(const __grid_constant__ fi_expand_params p) {
    constexpr unsigned int parts = sizeof(fi_attention_item) / 16;
    const unsigned int id = blockIdx.x * FI_THREADS + threadIdx.x, index = id / parts, part = id % parts;
    uint4 *items = (uint4 *)p.items;
    if (index < p.lists) {
        // A list without items has a first one of tile -1.
        items[(unsigned long long)index * parts + part] = make_uint4(0, part == 0 ? 0xffffffff : 0, 0, 0);
        return;
    }
    const unsigned int item = index - p.lists, tile = item / p.heads, head = item % p.heads;
    if (tile >= p.row_tiles) return;
    uint4 fields = ((const uint4 *)p.tiles)[(unsigned long long)tile * parts + part];
    // request, tile, head, row
    if (part == 0) fields.z = head;
    const bool is_last = head >= p.last_section;
    const unsigned int first = is_last ? p.last_section : head / p.section_heads * p.section_heads;
    const unsigned int count = is_last ? p.heads - first : min(p.section_heads, p.last_section - first);
    const unsigned long long place = (unsigned long long)p.row_tiles * first + tile * count + (head - first);
    items[(p.lists + place) * parts + part] = fields;
}
