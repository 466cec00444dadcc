/// What the checks of the CPU kernels' tables share: memory that ends where it must not be read past, random numbers, and comparisons.
#pragma once

#include "CFlashInferCPU.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Bytes at the end of a page that nothing may follow: reading or writing past the last one ends the program. Filled with a pattern. The start is
/// aligned as `alignment`, a power of two, asks, so at most that much less one byte may be passed unseen.
void *room(size_t bytes, size_t alignment);
/// Gives all rooms back.
void leave_rooms(void);

/// Numbers that depend on nothing but the seed and how many were asked for.
void seed_numbers(uint64_t seed);
uint64_t next_bits(void);
/// 0 ..< limit.
int below(int limit);
/// -1 ..< 1.
float even(void);
/// About normal, with a few that are large.
float spread(void);
int pick(const int *from, int count);
#define PICK(...) pick((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/// Names the case that the next comparisons are of.
void begin_case(const char *level, const char *operation, const char *format, ...) __attribute__((format(printf, 3, 4)));
/// Numbers of cases and of failures so far.
int cases(void);
int failures(void);

/// Says that the case fails.
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/// Numbers are as near as `relative` of the greater one, or `absolute`; NaNs and infinities are where they are.
void expect_near(const char *what, const float *own, const float *other, size_t count, float relative, float absolute);
/// Bytes are the same.
void expect_same(const char *what, const void *own, const void *other, size_t bytes);

int element_bytes(fi_dtype dtype);
/// One that operations on rows compute in.
fi_dtype compute_type(void);
/// Fills `count` elements with numbers of any magnitude that their type holds, some of them zeros; no NaNs or infinities.
void fill_elements(fi_dtype dtype, void *elements, size_t count);
/// Elements are as near as two neighbours of their type, or as above.
void expect_neighbours(const char *what, fi_dtype dtype, const void *own, const void *other, size_t count, float relative, float absolute);

/// The operations on rows of a level, and the portable ones.
typedef struct sides {
    const fi_ops_kernels *kernels[2];
    const char *level;
} sides;

// The parts, of one level against the portable C of the same machine.
void check_conversions(fi_isa isa, const char *name);
void check_products(fi_isa isa, const char *name);
void check_attention(fi_isa isa, const char *name);
void check_expressions(fi_isa isa, const char *name);
void check_rows(fi_isa isa, const char *name);
void check_sampling(fi_isa isa, const char *name);
