/// Programs over tiles of scores: what an attention variant computes that no kernel was written for.
///
/// A program is a list of instructions over registers that hold a number for each row and column of a tile (or for each row, each
/// column, or one for all). Each instruction runs over some rows at a time, in vectors, so that deciding what it is costs nothing
/// beside what it does. Numbers are float32 or int32 (which wraps); truths are int32, all bits or none.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// to <- op(a, b, c). Names end in the operands' type.
typedef enum fi_expr_op {
    FI_EXPR_COPY,
    FI_EXPR_ADD_F, FI_EXPR_SUB_F, FI_EXPR_MUL_F, FI_EXPR_DIV_F, FI_EXPR_MIN_F, FI_EXPR_MAX_F, FI_EXPR_NEG_F, FI_EXPR_ABS_F,
    FI_EXPR_EXP, FI_EXPR_EXP2, FI_EXPR_LOG, FI_EXPR_LOG2, FI_EXPR_TANH, FI_EXPR_SIGMOID, FI_EXPR_SQRT, FI_EXPR_FLOOR,
    FI_EXPR_SIN, FI_EXPR_COS,
    FI_EXPR_LT_F, FI_EXPR_LE_F, FI_EXPR_EQ_F,
    FI_EXPR_ADD_I, FI_EXPR_SUB_I, FI_EXPR_MUL_I,
    FI_EXPR_DIV_I,  ///< towards zero; 0 where b is 0
    FI_EXPR_REM_I,  ///< a where b is 0
    FI_EXPR_MIN_I, FI_EXPR_MAX_I, FI_EXPR_NEG_I, FI_EXPR_ABS_I,
    FI_EXPR_LT_I, FI_EXPR_LE_I, FI_EXPR_EQ_I,
    FI_EXPR_AND, FI_EXPR_OR, FI_EXPR_XOR, FI_EXPR_NOT,
    FI_EXPR_SHL_I, FI_EXPR_SHR_I,  ///< by the lowest five bits of b
    FI_EXPR_SELECT,                ///< b where a holds, else c
    FI_EXPR_TO_FLOAT,
    FI_EXPR_TO_INT,  ///< towards zero, saturating; 0 for NaN
    FI_EXPR_LOAD,    ///< element a of a table
    FI_EXPR_LOAD2,   ///< element a of row b of a table
    FI_EXPR_MASK,    ///< the mask's element of the row and column
} fi_expr_op;

/// One instruction; operands are numbers of registers, of which the operation reads as many as it needs.
typedef struct fi_expr_instruction {
    uint16_t op, to, a, b, c;
    uint16_t table;  ///< of the loads
} fi_expr_instruction;

/// Where a register lies: the number of row r and column c is at base + r * row + c * lane.
typedef struct fi_expr_register {
    void *base;    ///< holds whole vectors of columns: rounded up to 16
    int64_t row;   ///< bytes
    int32_t lane;  ///< 4, or 0 where all columns of a row have one number
    bool is_local; ///< rows are counted from the first of the FI_EXPR_STRIP rows at hand: the register is theirs alone
} fi_expr_register;

/// Rows that an instruction runs over at a time.
#define FI_EXPR_STRIP 4

/// A tensor of 32-bit elements, [rows][columns]; indices outside read the nearest element.
typedef struct fi_expr_table {
    const void *base;
    int32_t rows, columns;  ///< 1 or more
} fi_expr_table;

/// A program on a tile.
typedef struct fi_expr_program {
    const fi_expr_instruction *code;
    int32_t count;
    const fi_expr_register *registers;
    const fi_expr_table *tables;
    int32_t first_row, rows, columns;
    const uint8_t *mask;        ///< NULL where there is no FI_EXPR_MASK
    const int64_t *mask_start;  ///< [first_row + rows]: the element of `mask` that belongs to column 0
    bool mask_is_packed;        ///< true: one bit an element, least significant first; false: one byte, 0 = hidden
} fi_expr_program;
