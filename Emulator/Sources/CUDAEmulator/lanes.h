// Loops over lanes: straight ones, which the compiler makes vectors of, where all lanes take part.
#pragma once

#include "machine.h"

namespace emulator {

template <class D, class A, class F>
inline void unary(Warp &warp, const Instruction &i, uint32_t mask, F f) {
    D *d = warp.lanes<D>(i.d);
    const A *a = warp.lanes<A>(i.a);
    if (mask == 0xffffffffu) {
        for (int lane = 0; lane < 32; lane++) d[lane] = f(a[lane]);
    } else {
        for_lanes(mask, [&](int lane) { d[lane] = f(a[lane]); });
    }
}

template <class D, class A, class B, class F>
inline void binary(Warp &warp, const Instruction &i, uint32_t mask, F f) {
    D *d = warp.lanes<D>(i.d);
    const A *a = warp.lanes<A>(i.a);
    const B *b = warp.lanes<B>(i.b);
    if (mask == 0xffffffffu) {
        for (int lane = 0; lane < 32; lane++) d[lane] = f(a[lane], b[lane]);
    } else {
        for_lanes(mask, [&](int lane) { d[lane] = f(a[lane], b[lane]); });
    }
}

template <class D, class A, class B, class C, class F>
inline void ternary(Warp &warp, const Instruction &i, uint32_t mask, F f) {
    D *d = warp.lanes<D>(i.d);
    const A *a = warp.lanes<A>(i.a);
    const B *b = warp.lanes<B>(i.b);
    const C *c = warp.lanes<C>(i.c);
    if (mask == 0xffffffffu) {
        for (int lane = 0; lane < 32; lane++) d[lane] = f(a[lane], b[lane], c[lane]);
    } else {
        for_lanes(mask, [&](int lane) { d[lane] = f(a[lane], b[lane], c[lane]); });
    }
}

}  // namespace emulator

/// The instance of a handler's template for a type's width, and for its sign as well.
#define BY_SIZE(name, type) \
    (type.bytes == 2 ? (Handler)name<uint16_t> : type.bytes == 4 ? (Handler)name<uint32_t> : (Handler)name<uint64_t>)
#define BY_INTEGER(name, type) \
    (type.kind == 's' ? (type.bytes == 2 ? (Handler)name<int16_t> : type.bytes == 4 ? (Handler)name<int32_t> : (Handler)name<int64_t>) \
                      : BY_SIZE(name, type))
