// A tensor map as the emulated driver writes it into the 128 bytes that the real one fills in a way of its own.
#pragma once

#include <cstdint>

namespace emulator {

struct TensorMap {
    static constexpr uint32_t mark = 0x70616d54;
    uint32_t magic;
    uint8_t rank, element_bytes, swizzle, fill;
    uint64_t address;
    uint32_t dimensions[5];
    uint32_t box[5];
    uint64_t strides[4];
};
static_assert(sizeof(TensorMap) <= 128);

}  // namespace emulator
