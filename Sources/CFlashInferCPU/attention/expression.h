/// Programs over tiles of scores, see fi_expression.h: one loop over vectors for each operation.
/// Needs transform.h. Included inside the target pragma.

typedef double vd __attribute__((vector_size(8 * FI_W)));
typedef int64_t vl __attribute__((vector_size(8 * FI_W)));

FI_INLINE vf bits_of(vi x) { return (vf)x; }

/// An operand's row: numbers to be loaded, or one number, kept in a vector of its own that every step loads again.
typedef struct {
    const uint8_t *at;
    int64_t step;
} expr_operand;

FI_INLINE expr_operand expr_row(const fi_expr_program *p, int number, int row, int strip, vf *copy) {
    const fi_expr_register *r = p->registers + number;
    const uint8_t *at = (const uint8_t *)r->base + (row - (r->is_local ? strip : 0)) * r->row;
    if (r->lane != 0) return (expr_operand){at, 4};
    float x;
    __builtin_memcpy(&x, at, 4);
    *copy = splat(x);
    return (expr_operand){(const uint8_t *)copy, 0};
}

typedef vf (*expr_unary)(vf);
typedef vf (*expr_binary)(vf, vf);

FI_INLINE void expr_map(const fi_expr_program *p, const fi_expr_instruction *i, int strip, int rows, expr_unary f) {
    for (int r = strip; r < strip + rows; r++) {
        vf ca, ct;
        const expr_operand a = expr_row(p, i->a, r, strip, &ca);
        uint8_t *to = (uint8_t *)expr_row(p, i->to, r, strip, &ct).at;
        for (int64_t c = 0; c < p->columns; c += FI_W) storeu(to + c * 4, f(loadu(a.at + c * a.step)));
    }
}

FI_INLINE void expr_map2(const fi_expr_program *p, const fi_expr_instruction *i, int strip, int rows, expr_binary f) {
    for (int r = strip; r < strip + rows; r++) {
        vf ca, cb, ct;
        const expr_operand a = expr_row(p, i->a, r, strip, &ca), b = expr_row(p, i->b, r, strip, &cb);
        uint8_t *to = (uint8_t *)expr_row(p, i->to, r, strip, &ct).at;
        for (int64_t c = 0; c < p->columns; c += FI_W)
            storeu(to + c * 4, f(loadu(a.at + c * a.step), loadu(b.at + c * b.step)));
    }
}

static void expr_select(const fi_expr_program *p, const fi_expr_instruction *i, int strip, int rows) {
    for (int r = strip; r < strip + rows; r++) {
        vf ca, cb, cc, ct;
        const expr_operand a = expr_row(p, i->a, r, strip, &ca), b = expr_row(p, i->b, r, strip, &cb),
                           x = expr_row(p, i->c, r, strip, &cc);
        uint8_t *to = (uint8_t *)expr_row(p, i->to, r, strip, &ct).at;
        for (int64_t c = 0; c < p->columns; c += FI_W)
            storeu(to + c * 4, choose((vi)loadu(a.at + c * a.step), loadu(b.at + c * b.step), loadu(x.at + c * x.step)));
    }
}

FI_INLINE int32_t expr_clamped(int32_t index, int32_t count) { return index < 0 ? 0 : index < count ? index : count - 1; }

/// Tables are small and mostly read by row or by column, once a tile: lane by lane.
FI_INLINE void expr_load(const fi_expr_program *p, const fi_expr_instruction *i, int strip, int rows, bool has_rows) {
    const fi_expr_table *t = p->tables + i->table;
    for (int r = strip; r < strip + rows; r++) {
        vf ca, cb, ct;
        const expr_operand a = expr_row(p, i->a, r, strip, &ca),
                           b = has_rows ? expr_row(p, i->b, r, strip, &cb) : (expr_operand){0, 0};
        uint8_t *to = (uint8_t *)expr_row(p, i->to, r, strip, &ct).at;
        for (int64_t c = 0; c < p->columns; c++) {
            int32_t column, row = 0;
            __builtin_memcpy(&column, a.at + c * a.step, 4);
            if (has_rows) __builtin_memcpy(&row, b.at + c * b.step, 4);
            const int64_t element = (int64_t)expr_clamped(row, t->rows) * t->columns + expr_clamped(column, t->columns);
            __builtin_memcpy(to + c * 4, (const uint8_t *)t->base + element * 4, 4);
        }
    }
}

static void expr_mask(const fi_expr_program *p, const fi_expr_instruction *i, int strip, int rows) {
    for (int r = strip; r < strip + rows; r++) {
        vf ct;
        uint8_t *to = (uint8_t *)expr_row(p, i->to, r, strip, &ct).at;
        const int64_t start = p->mask_start[r];
        int c = 0;
        for (; c + FI_W <= p->columns; c += FI_W) storeu(to + c * 4, (vf)mask_lanes(p->mask, start + c, p->mask_is_packed));
        for (; c < p->columns; c++) {
            const int64_t e = start + c;
            const int32_t truth = (p->mask_is_packed ? p->mask[e / 8] >> (e % 8) & 1 : p->mask[e] != 0) ? -1 : 0;
            __builtin_memcpy(to + c * 4, &truth, 4);
        }
    }
}

FI_INLINE vf expr_copy(vf a) { return a; }
FI_INLINE vf expr_add_f(vf a, vf b) { return a + b; }
FI_INLINE vf expr_sub_f(vf a, vf b) { return a - b; }
FI_INLINE vf expr_mul_f(vf a, vf b) { return a * b; }
FI_INLINE vf expr_div_f(vf a, vf b) { return a / b; }
FI_INLINE vf expr_min_f(vf a, vf b) { return choose(a < b, a, b); }
FI_INLINE vf expr_max_f(vf a, vf b) { return choose(a > b, a, b); }
FI_INLINE vf expr_neg_f(vf a) { return (vf)((vu)a ^ 0x80000000u); }
FI_INLINE vf expr_abs_f(vf a) { return (vf)((vu)a & 0x7FFFFFFFu); }
/// 2^x; infinity from 128 on, where not all instruction sets' exponent arithmetic ends by itself.
FI_INLINE vf expr_exp2(vf x) { return exp2_fine(choose(x > 128, splat(128), x)); }
/// e^x as 2^(x · log2 e), with what rounding the product loses put back in.
FI_INLINE vf expr_exp(vf x) {
    x = choose(x > 200, splat(200), choose(x < -200, splat(-200), x));
    const vf y = x * FI_LOG2E, lost = vfma(x, splat(FI_LOG2E), -y) + x * 1.925963033e-8f;
    const vf power = expr_exp2(y);
    // Infinity stays.
    return choose(power < splat(FI_INFINITY), vfma(power, lost * 0.693147181f, power), power);
}
FI_INLINE vf expr_sigmoid(vf x) { return 1 / (1 + expr_exp(-x)); }
FI_INLINE vf expr_sqrt(vf x) { return __builtin_elementwise_sqrt(x); }
FI_INLINE vf expr_floor(vf x) { return __builtin_elementwise_floor(x); }
#define FI_EXPR_BY_LANE(NAME, FUNCTION)                                     \
    FI_INLINE vf NAME(vf x) {                                               \
        for (int l = 0; l < FI_W; l++) x[l] = FUNCTION(x[l]);               \
        return x;                                                           \
    }
FI_EXPR_BY_LANE(expr_log, __builtin_logf)
FI_EXPR_BY_LANE(expr_log2, __builtin_log2f)
FI_EXPR_BY_LANE(expr_sin, __builtin_sinf)
FI_EXPR_BY_LANE(expr_cos, __builtin_cosf)
FI_INLINE vf expr_lt_f(vf a, vf b) { return bits_of(a < b); }
FI_INLINE vf expr_le_f(vf a, vf b) { return bits_of(a <= b); }
FI_INLINE vf expr_eq_f(vf a, vf b) { return bits_of(a == b); }
// Unsigned, which may wrap.
FI_INLINE vf expr_add_i(vf a, vf b) { return (vf)((vu)a + (vu)b); }
FI_INLINE vf expr_sub_i(vf a, vf b) { return (vf)((vu)a - (vu)b); }
FI_INLINE vf expr_mul_i(vf a, vf b) { return (vf)((vu)a * (vu)b); }
/// By float64, whose quotient of 32-bit numbers is never rounded up to a whole number.
FI_INLINE vi expr_quotient(vi a, vi b) {
    const vd q = __builtin_convertvector(a, vd) / __builtin_convertvector((vi)(b | ((b == 0) & 1)), vd);
    return __builtin_convertvector(__builtin_convertvector(q, vl), vi) & ~(vi)(b == 0);
}
FI_INLINE vf expr_div_i(vf a, vf b) { return (vf)expr_quotient((vi)a, (vi)b); }
FI_INLINE vf expr_rem_i(vf a, vf b) { return (vf)((vu)a - (vu)expr_quotient((vi)a, (vi)b) * (vu)b); }
FI_INLINE vf expr_min_i(vf a, vf b) { return choose((vi)a < (vi)b, a, b); }
FI_INLINE vf expr_max_i(vf a, vf b) { return choose((vi)a > (vi)b, a, b); }
FI_INLINE vf expr_neg_i(vf a) { return (vf)(0 - (vu)a); }
FI_INLINE vf expr_abs_i(vf a) { return choose((vi)a < 0, expr_neg_i(a), a); }
FI_INLINE vf expr_lt_i(vf a, vf b) { return bits_of((vi)a < (vi)b); }
FI_INLINE vf expr_le_i(vf a, vf b) { return bits_of((vi)a <= (vi)b); }
FI_INLINE vf expr_eq_i(vf a, vf b) { return bits_of((vi)a == (vi)b); }
FI_INLINE vf expr_and(vf a, vf b) { return bits_of((vi)a & (vi)b); }
FI_INLINE vf expr_or(vf a, vf b) { return bits_of((vi)a | (vi)b); }
FI_INLINE vf expr_xor(vf a, vf b) { return bits_of((vi)a ^ (vi)b); }
FI_INLINE vf expr_not(vf a) { return bits_of(~(vi)a); }
FI_INLINE vf expr_shl_i(vf a, vf b) { return (vf)((vu)a << ((vu)b & 31)); }
FI_INLINE vf expr_shr_i(vf a, vf b) { return bits_of((vi)a >> ((vi)b & 31)); }
FI_INLINE vf expr_to_float(vf a) { return __builtin_convertvector((vi)a, vf); }
FI_INLINE vf expr_to_int(vf x) {
    const vi high = x >= 0x1p31f, low = x < -0x1p31f, none = x != x;
    const vf inside = choose(high | low | none, (vf){0}, x);
    const vi whole = __builtin_convertvector(inside, vi);
    return choose(high, (vf)((vi){0} + INT32_MAX), choose(low, (vf)((vi){0} + INT32_MIN), (vf)whole));
}

static void evaluate(const fi_expr_program *p) {
    for (int strip = p->first_row; strip < p->first_row + p->rows; strip += FI_EXPR_STRIP) {
        const int left = p->first_row + p->rows - strip, rows = left < FI_EXPR_STRIP ? left : FI_EXPR_STRIP;
        for (const fi_expr_instruction *i = p->code; i < p->code + p->count; i++) {
            switch ((fi_expr_op)i->op) {
#define FI_EXPR_1(OP, F) case OP: expr_map(p, i, strip, rows, F); break;
#define FI_EXPR_2(OP, F) case OP: expr_map2(p, i, strip, rows, F); break;
                FI_EXPR_1(FI_EXPR_COPY, expr_copy)
                FI_EXPR_2(FI_EXPR_ADD_F, expr_add_f)
                FI_EXPR_2(FI_EXPR_SUB_F, expr_sub_f)
                FI_EXPR_2(FI_EXPR_MUL_F, expr_mul_f)
                FI_EXPR_2(FI_EXPR_DIV_F, expr_div_f)
                FI_EXPR_2(FI_EXPR_MIN_F, expr_min_f)
                FI_EXPR_2(FI_EXPR_MAX_F, expr_max_f)
                FI_EXPR_1(FI_EXPR_NEG_F, expr_neg_f)
                FI_EXPR_1(FI_EXPR_ABS_F, expr_abs_f)
                FI_EXPR_1(FI_EXPR_EXP, expr_exp)
                FI_EXPR_1(FI_EXPR_EXP2, expr_exp2)
                FI_EXPR_1(FI_EXPR_LOG, expr_log)
                FI_EXPR_1(FI_EXPR_LOG2, expr_log2)
                FI_EXPR_1(FI_EXPR_TANH, vtanh)
                FI_EXPR_1(FI_EXPR_SIGMOID, expr_sigmoid)
                FI_EXPR_1(FI_EXPR_SQRT, expr_sqrt)
                FI_EXPR_1(FI_EXPR_FLOOR, expr_floor)
                FI_EXPR_1(FI_EXPR_SIN, expr_sin)
                FI_EXPR_1(FI_EXPR_COS, expr_cos)
                FI_EXPR_2(FI_EXPR_LT_F, expr_lt_f)
                FI_EXPR_2(FI_EXPR_LE_F, expr_le_f)
                FI_EXPR_2(FI_EXPR_EQ_F, expr_eq_f)
                FI_EXPR_2(FI_EXPR_ADD_I, expr_add_i)
                FI_EXPR_2(FI_EXPR_SUB_I, expr_sub_i)
                FI_EXPR_2(FI_EXPR_MUL_I, expr_mul_i)
                FI_EXPR_2(FI_EXPR_DIV_I, expr_div_i)
                FI_EXPR_2(FI_EXPR_REM_I, expr_rem_i)
                FI_EXPR_2(FI_EXPR_MIN_I, expr_min_i)
                FI_EXPR_2(FI_EXPR_MAX_I, expr_max_i)
                FI_EXPR_1(FI_EXPR_NEG_I, expr_neg_i)
                FI_EXPR_1(FI_EXPR_ABS_I, expr_abs_i)
                FI_EXPR_2(FI_EXPR_LT_I, expr_lt_i)
                FI_EXPR_2(FI_EXPR_LE_I, expr_le_i)
                FI_EXPR_2(FI_EXPR_EQ_I, expr_eq_i)
                FI_EXPR_2(FI_EXPR_AND, expr_and)
                FI_EXPR_2(FI_EXPR_OR, expr_or)
                FI_EXPR_2(FI_EXPR_XOR, expr_xor)
                FI_EXPR_1(FI_EXPR_NOT, expr_not)
                FI_EXPR_2(FI_EXPR_SHL_I, expr_shl_i)
                FI_EXPR_2(FI_EXPR_SHR_I, expr_shr_i)
                FI_EXPR_1(FI_EXPR_TO_FLOAT, expr_to_float)
                FI_EXPR_1(FI_EXPR_TO_INT, expr_to_int)
#undef FI_EXPR_1
#undef FI_EXPR_2
            case FI_EXPR_SELECT: expr_select(p, i, strip, rows); break;
            case FI_EXPR_LOAD: expr_load(p, i, strip, rows, false); break;
            case FI_EXPR_LOAD2: expr_load(p, i, strip, rows, true); break;
            case FI_EXPR_MASK: expr_mask(p, i, strip, rows); break;
            }
        }
    }
}
