/// float16 by integer operations, for machines without conversion instructions. Needs lanes.h.

FI_INLINE vf load_f16(const uint8_t *p) {
    vh h;
    __builtin_memcpy(&h, p, sizeof h);
    const vu x = __builtin_convertvector(h, vu), magnitude = x & 0x7FFF;
    const vf value = (vf)(magnitude << 13) * 0x1p112f;  // exact for subnormals too
    const vu bits = choose_bits(magnitude >= 0x7C00, 0x7F800000u | (magnitude << 13), (vu)value);
    return (vf)(bits | ((x & 0x8000) << 16));
}

/// Rounds to nearest even. Small magnitudes round by adding a float whose last bit weighs 2^-24.
FI_INLINE void store_f16(uint8_t *p, vf x) {
    const vu bits = (vu)x, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
    const vu tiny = (vu)((vf)magnitude + 0.5f) - 0x3F000000u;
    const vu usual = (magnitude - 0x38000000u + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
    vu h = choose_bits(magnitude < 0x38800000u, tiny, usual);
    h = choose_bits(magnitude >= 0x477FF000u, (vu){0} + 0x7C00u, h);
    h = choose_bits(magnitude > 0x7F800000u, (vu){0} + 0x7E00u, h);
    const vh out = __builtin_convertvector(h | sign, vh);
    __builtin_memcpy(p, &out, sizeof out);
}
