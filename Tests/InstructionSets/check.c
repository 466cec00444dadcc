#define _GNU_SOURCE
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Rooms

static struct { void *start; size_t bytes; } rooms[4096];
static int room_count;

void *room(size_t bytes, size_t alignment) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char *start = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || room_count == sizeof rooms / sizeof *rooms || mprotect(start + whole, page, PROT_NONE) != 0) {
        fprintf(stderr, "no memory\n");
        exit(2);
    }
    rooms[room_count].start = start;
    rooms[room_count++].bytes = whole + page;
    memset(start, 0xA5, whole);
    return start + ((whole - bytes) & ~(alignment - 1));
}

void leave_rooms(void) {
    while (room_count > 0) {
        room_count--;
        munmap(rooms[room_count].start, rooms[room_count].bytes);
    }
}

// Numbers (splitmix64, Steele et al. 2014)

static uint64_t state;

void seed_numbers(uint64_t seed) { state = seed; }

uint64_t next_bits(void) {
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

int below(int limit) { return (int)(next_bits() % (uint64_t)limit); }
float even(void) { return (float)(int32_t)(next_bits() >> 32) * 0x1p-31f; }
float spread(void) {
    const float sum = even() + even() + even();
    return below(50) == 0 ? sum * 20 : sum;
}
int pick(const int *from, int count) { return from[below(count)]; }

// Cases

static int case_count, failure_count;
static bool has_failed;
static char of_case[256];

void begin_case(const char *level, const char *operation, const char *format, ...) {
    const int length = snprintf(of_case, sizeof of_case, "%s %s, ", level, operation);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(of_case + length, sizeof of_case - (size_t)length, format, arguments);
    va_end(arguments);
    case_count++;
    has_failed = false;
}

int cases(void) { return case_count; }
int failures(void) { return failure_count; }

void fail(const char *format, ...) {
    // The first thing that differs says most.
    if (has_failed) return;
    has_failed = true;
    if (++failure_count > 20) return;
    printf("%s: ", of_case);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static bool is_near(float own, float other, float relative, float absolute) {
    if (isnan(own) || isnan(other)) return isnan(own) && isnan(other);
    if (own == other) return true;
    return fabsf(own - other) <= fmaxf(absolute, relative * fmaxf(fabsf(own), fabsf(other)));
}

void expect_near(const char *what, const float *own, const float *other, size_t count, float relative, float absolute) {
    for (size_t i = 0; i < count; i++)
        if (!is_near(own[i], other[i], relative, absolute))
            return fail("%s [%zu] is %.9g and not %.9g", what, i, (double)own[i], (double)other[i]);
}

void expect_same(const char *what, const void *own, const void *other, size_t bytes) {
    const unsigned char *a = own, *b = other;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i]) return fail("%s: byte %zu is %02x and not %02x", what, i, a[i], b[i]);
}

// Elements

int element_bytes(fi_dtype dtype) { return dtype == FI_DTYPE_F32 ? 4 : dtype == FI_DTYPE_F16 || dtype == FI_DTYPE_BF16 ? 2 : 1; }

fi_dtype compute_type(void) { return (fi_dtype)PICK(FI_DTYPE_F32, FI_DTYPE_F16, FI_DTYPE_BF16); }

void fill_elements(fi_dtype dtype, void *elements, size_t count) {
    const fi_convert_kernels *convert = fi_convert_table(FI_ISA_SCALAR);
    for (size_t i = 0; i < count; i++) {
        const float x = below(30) == 0 ? 0 : spread();
        switch (dtype) {
        case FI_DTYPE_F32: ((float *)elements)[i] = x; break;
        case FI_DTYPE_F16: convert->f16_from_f32(&x, 1, (uint16_t *)elements + i); break;
        case FI_DTYPE_BF16: convert->bf16_from_f32(&x, 1, (uint16_t *)elements + i); break;
        case FI_DTYPE_E4M3: convert->e4m3_from_f32(&x, 1, true, (uint8_t *)elements + i); break;
        case FI_DTYPE_E5M2: convert->e5m2_from_f32(&x, 1, true, (uint8_t *)elements + i); break;
        case FI_DTYPE_I8: convert->i8_from_f32(&x, 1, 40, (int8_t *)elements + i); break;
        }
    }
}

/// Numbers of elements in the order of what they are worth: neighbours differ by 1.
static int place_of(fi_dtype dtype, const void *elements, size_t i) {
    if (dtype == FI_DTYPE_I8) return ((const int8_t *)elements)[i];
    const int bits = element_bytes(dtype) * 8, sign = 1 << (bits - 1);
    const int x = bits == 16 ? ((const uint16_t *)elements)[i] : ((const uint8_t *)elements)[i];
    return x & sign ? -(x ^ sign) : x;
}

static float value_of(fi_dtype dtype, const void *elements, size_t i) {
    const fi_convert_kernels *convert = fi_convert_table(FI_ISA_SCALAR);
    float x = 0;
    switch (dtype) {
    case FI_DTYPE_F32: x = ((const float *)elements)[i]; break;
    case FI_DTYPE_F16: convert->f32_from_f16((const uint16_t *)elements + i, 1, &x); break;
    case FI_DTYPE_BF16: convert->f32_from_bf16((const uint16_t *)elements + i, 1, &x); break;
    case FI_DTYPE_E4M3: convert->f32_from_e4m3((const uint8_t *)elements + i, 1, &x); break;
    case FI_DTYPE_E5M2: convert->f32_from_e5m2((const uint8_t *)elements + i, 1, &x); break;
    case FI_DTYPE_I8: x = ((const int8_t *)elements)[i]; break;
    }
    return x;
}

void expect_neighbours(const char *what, fi_dtype dtype, const void *own, const void *other, size_t count, float relative, float absolute) {
    for (size_t i = 0; i < count; i++) {
        const float a = value_of(dtype, own, i), b = value_of(dtype, other, i);
        if (is_near(a, b, relative, absolute)) continue;
        if (dtype != FI_DTYPE_F32 && !isnan(a) && !isnan(b) && abs(place_of(dtype, own, i) - place_of(dtype, other, i)) <= 1) continue;
        return fail("%s [%zu] is %.9g and not %.9g", what, i, (double)a, (double)b);
    }
}
