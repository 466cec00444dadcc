// Division by numbers that the host has prepared.
#pragma once

#include "fi_division.h"

/// n divided by what the host has prepared.
static __device__ __forceinline__ unsigned int divided(unsigned int n, const fi_division &by) {
    return by.multiplier == 0 ? n : __umulhi(n, by.multiplier) >> by.shift;
}
