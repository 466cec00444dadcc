/// Programs of attention variants: each operation by itself, on whole tiles, rows, columns and single numbers.
#include "check.h"

#include <math.h>
#include <string.h>

typedef enum kind { numbers, integers, truths } kind;

static const struct { fi_expr_op op; const char *name; kind from, to; int operands; } operations[] = {
#define F(OP, COUNT) {FI_EXPR_##OP, #OP, numbers, numbers, COUNT}
#define I(OP, COUNT) {FI_EXPR_##OP, #OP, integers, integers, COUNT}
    F(COPY, 1), F(ADD_F, 2), F(SUB_F, 2), F(MUL_F, 2), F(DIV_F, 2), F(MIN_F, 2), F(MAX_F, 2), F(NEG_F, 1), F(ABS_F, 1), F(EXP, 1),
    F(EXP2, 1), F(LOG, 1), F(LOG2, 1), F(TANH, 1), F(SIGMOID, 1), F(SQRT, 1), F(FLOOR, 1), F(SIN, 1), F(COS, 1),
    {FI_EXPR_LT_F, "LT_F", numbers, truths, 2}, {FI_EXPR_LE_F, "LE_F", numbers, truths, 2}, {FI_EXPR_EQ_F, "EQ_F", numbers, truths, 2},
    I(ADD_I, 2), I(SUB_I, 2), I(MUL_I, 2), I(DIV_I, 2), I(REM_I, 2), I(MIN_I, 2), I(MAX_I, 2), I(NEG_I, 1), I(ABS_I, 1),
    {FI_EXPR_LT_I, "LT_I", integers, truths, 2}, {FI_EXPR_LE_I, "LE_I", integers, truths, 2}, {FI_EXPR_EQ_I, "EQ_I", integers, truths, 2},
    I(AND, 2), I(OR, 2), I(XOR, 2), I(NOT, 1), I(SHL_I, 2), I(SHR_I, 2),
    {FI_EXPR_SELECT, "SELECT", truths, numbers, 3}, {FI_EXPR_TO_FLOAT, "TO_FLOAT", integers, numbers, 1},
    {FI_EXPR_TO_INT, "TO_INT", numbers, integers, 1}, {FI_EXPR_LOAD, "LOAD", integers, integers, 1},
    {FI_EXPR_LOAD2, "LOAD2", integers, integers, 2}, {FI_EXPR_MASK, "MASK", truths, truths, 0},
#undef F
#undef I
};

static uint32_t any_operand(kind kind) {
    float x = spread();
    if (kind == truths) return below(2) ? 0xffffffffu : 0;
    if (kind == integers) {
        static const int32_t rare[] = {0, 1, -1, INT32_MAX, INT32_MIN, 2, 31, 32};
        return (uint32_t)(below(4) == 0 ? rare[below(8)] : below(3) == 0 ? (int32_t)next_bits() : below(40) - 20);
    }
    static const float rare[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1, 3e9f, -3e9f, 88, -88, 127.5f, -126.5f, 1e-30f};
    if (below(4) == 0) x = rare[below(13)];
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/// A register of any of the four forms, with numbers in it.
static fi_expr_register any_register(kind kind, int rows, int columns, bool is_result) {
    const bool has_rows = is_result || below(2), has_columns = is_result || below(2);
    const int row = has_columns ? (columns + 15) / 16 * 16 : 1, count = has_rows ? rows : 1;
    uint32_t *base = room((size_t)(row * count) * 4, 4);
    for (int i = 0; i < row * count; i++) base[i] = any_operand(kind);
    return (fi_expr_register){base, has_rows ? row * 4 : 0, has_columns ? 4 : 0, false};
}

static void check_operation(fi_isa isa, const char *level, size_t which) {
    const int rows = 1 + below(9), columns = 1 + below(70), first_row = below(3), all = first_row + rows;
    begin_case(level, operations[which].name, "rows %d ..< %d, %d columns", first_row, all, columns);
    const kind from = operations[which].from, others = operations[which].op == FI_EXPR_SELECT ? numbers : from;
    fi_expr_register registers[4] = {any_register(from, all, columns, false), any_register(others, all, columns, false),
                                     any_register(others, all, columns, false), any_register(operations[which].to, all, columns, true)};
    const fi_expr_instruction code = {.op = (uint16_t)operations[which].op, .to = 3, .a = 0, .b = 1, .c = 2, .table = 0};
    uint32_t elements[7 * 5];
    for (int i = 0; i < 35; i++) elements[i] = any_operand(integers);
    const fi_expr_table table = {elements, operations[which].op == FI_EXPR_LOAD ? 1 : 7, 5};
    const bool is_packed = below(2);
    const int offset = below(9), count = offset + all * columns;
    const size_t mask_bytes = (size_t)(is_packed ? (count + 7) / 8 : count);
    uint8_t *mask = room(mask_bytes, 1);
    int64_t *start = room((size_t)all * 8, 8);
    for (size_t i = 0; i < mask_bytes; i++) mask[i] = is_packed ? (uint8_t)next_bits() : (uint8_t)below(2);
    for (int r = 0; r < all; r++) start[r] = offset + r * columns;
    const size_t bytes = (size_t)(all * ((columns + 15) / 16 * 16)) * 4;
    const void *empty = registers[3].base;
    uint32_t *results[2];
    for (int side = 0; side < 2; side++) {
        results[side] = room(bytes, 4);
        memcpy(results[side], empty, bytes);
        registers[3].base = results[side];
        const fi_expr_program program = {.code = &code, .count = 1, .registers = registers, .tables = &table, .first_row = first_row,
                                         .rows = rows, .columns = columns, .mask = mask, .mask_start = start, .mask_is_packed = is_packed};
        fi_attention_table(side == 0 ? isa : FI_ISA_SCALAR)->evaluate(&program);
    }
    for (int r = 0; r < all; r++) {
        const uint32_t *own = results[0] + (size_t)r * (size_t)((columns + 15) / 16 * 16);
        const uint32_t *other = results[1] + (size_t)r * (size_t)((columns + 15) / 16 * 16);
        if (operations[which].to == numbers)
            expect_near("result", (const float *)own, (const float *)other, (size_t)columns, 1e-5f, 1e-6f);
        else expect_same("result", own, other, (size_t)columns * 4);
    }
    leave_rooms();
}

void check_expressions(fi_isa isa, const char *level) {
    for (size_t which = 0; which < sizeof operations / sizeof *operations; which++)
        for (int i = 0; i < 40; i++) check_operation(isa, level, which);
}
