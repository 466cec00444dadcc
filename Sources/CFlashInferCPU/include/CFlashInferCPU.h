/// The SIMD micro-kernels of swift-flashinfer's CPU backend: plain C, no state, no allocation.
#pragma once

#include "fi_attention.h"
#include "fi_cpu.h"
#include "fi_convert.h"
#include "fi_linear.h"
#include "fi_ops.h"
