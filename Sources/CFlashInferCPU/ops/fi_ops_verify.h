/// Speculative sampling: which drafted tokens stand, and one token after them. Follows fi_ops_sampling.h.

#define FI_VERIFY_NODES 256

/// What rejections have left of a node's target distribution.
typedef struct left_over {
    const float *target, *draft;
    int64_t rejected;
    float factors[FI_VERIFY_NODES];   // with a draft: one over the sum before each rejection
    int32_t tokens[FI_VERIFY_NODES];  // without: the tokens rejected
} left_over;

/// One step of a rejection with a draft, rounded after each operation, as the GPU has it; a NaN stays.
FI_INLINE vf v_reject(vf x, vf factor, vf drafted) {
#pragma clang fp contract(off)
    const vf scaled = x * factor;
    const vf less = scaled - drafted;
    return less < v_set(0.0f) ? v_set(0.0f) : less;
}

/// What is left of every token.
static void write_left(const left_over *left, int64_t width, float *out) {
    __builtin_memcpy(out, left->target, (size_t)width * sizeof(float));
    for (int64_t level = 0; level < left->rejected; level++) {
        if (left->draft == NULL) {
            out[left->tokens[level]] = 0;
            continue;
        }
        FI_FOR_VECTORS(width, {
            const vf x = v_load(out, i, FI_DTYPE_F32, n);
            const vf drafted = v_load(left->draft, i, FI_DTYPE_F32, n);
            v_store(out, i, FI_DTYPE_F32, n, v_reject(x, v_set(left->factors[level]), drafted));
        });
    }
}

/// What is left of one token.
static float left_of(const left_over *left, int32_t token) {
    float x = left->target[token];
    for (int64_t level = 0; level < left->rejected; level++) {
        if (left->draft == NULL) {
            if (left->tokens[level] == token) x = 0;
        } else {
#pragma clang fp contract(off)
            const float scaled = x * left->factors[level];
            const float less = scaled - left->draft[token];
            x = less < 0 ? 0 : less;
        }
    }
    return x;
}

FI_INLINE bool stands(float weight, float drafted, double uniform) {
    return weight > 0 && uniform * (double)drafted <= (double)weight;
}

/// The status of a distribution of `width` numbers; NaN, negative and infinite ones have no sum.
static fi_row_status left_status(const float *w, int64_t width, row_scan *scan) {
    *scan = scan_row(w, width, FI_DTYPE_F32);
    return distribution_status(w, width, *scan, true);
}

static void verify_one(const fi_verify_args *a, int64_t r, left_over *left) {
    const int64_t nodes = a->nodes, width = a->width;
    const bool is_chain = a->first_child == NULL;
    const int32_t *tokens = is_chain ? a->tokens + r * (nodes - 1) - 1 : a->tokens + r * nodes;
    const double *uniforms = a->uniforms + r * nodes;
    const float *target = a->target + r * a->target_request;
    const float *draft = a->draft ? a->draft + r * a->draft_request : NULL;
    int32_t *output = a->output + r * nodes;
    int32_t *output_nodes = a->output_nodes ? a->output_nodes + r * nodes : NULL;
    sample_scratch s = sample_scratch_at(a->scratch, width);
    row_scan scan;
    int64_t node = 0, depth = 0;
    // A walk that does not end, by wrong links, ends at the number of nodes.
    while (true) {
        left->target = target + node * a->target_node;
        left->draft = draft ? draft + node * a->draft_node : NULL;
        left->rejected = 0;
        float sum = 1;
        int64_t child = depth + 1 >= nodes ? -1 : is_chain ? node + 1 : a->first_child[r * nodes + node];
        bool is_accepted = false;
        for (int64_t visited = 0; child > 0 && child < nodes && visited < nodes; visited++) {
            const int32_t token = tokens[child];
            if (token >= 0 && token < width) {
                const float weight = left_of(left, token);
                const float drafted = left->draft ? left->draft[token] : 1.0f;
                if (stands(weight, drafted * sum, uniforms[child])) {
                    is_accepted = true;
                    break;
                }
                left->factors[left->rejected] = 1.0f / sum;
                left->tokens[left->rejected] = token;
                left->rejected++;
                const int64_t next = is_chain ? -1 : a->next_sibling[r * nodes + child];
                if (left->draft == NULL) {
                    sum = sum - weight;
                } else if (next > 0 && next < nodes) {
                    write_left(left, width, s.values);
                    if (left_status(s.values, width, &scan) != FI_ROW_OK) break;
                    const float scale = probability_scale(scan.max);
                    const weighing form = {scan.max, scale, true};
                    sum = (float)(weigh(s.values, NULL, width, form) / (double)scale);
                }
            }
            child = is_chain ? -1 : a->next_sibling[r * nodes + child];
        }
        if (!is_accepted) break;
        output[depth] = tokens[child];
        if (output_nodes) output_nodes[depth] = (int32_t)child;
        node = child;
        depth++;
    }
    write_left(left, width, s.values);
    fi_row_status status = left_status(s.values, width, &scan);
    // Rounding may leave nothing where there should be some: then the target's own.
    if (status == FI_ROW_EMPTY && left->rejected > 0) {
        left->rejected = 0;
        write_left(left, width, s.values);
        status = left_status(s.values, width, &scan);
    }
    int32_t token = -1;
    if (status == FI_ROW_OK) {
        const weighing form = {scan.max, probability_scale(scan.max), true};
        weigh(s.values, s.values, width, form);
        const kept_row kept = {s.values, NULL, width, 0};
        token = draw(&kept, uniforms[0], sum_kept(&kept, s.sums), s.sums);
    }
    for (int64_t i = depth; i < nodes; i++) {
        output[i] = i == depth ? token : -1;
        if (output_nodes) output_nodes[i] = -1;
    }
    a->emitted[r] = (int32_t)depth;
    a->status[r] = (uint8_t)status;
    if (a->accepted == NULL) return;
    // A chain's tokens that would each stand alone.
    int32_t accepted = 0;
    for (int64_t child = 1; is_chain && child < nodes; child++) {
        const int32_t other = tokens[child];
        if (other < 0 || other >= width) continue;
        const float drafted = draft ? draft[(child - 1) * a->draft_node + other] : 1.0f;
        accepted += stands(target[(child - 1) * a->target_node + other], drafted, uniforms[child]);
    }
    a->accepted[r] = is_chain ? accepted : (int32_t)depth;
}

static void verify(const fi_verify_args *a, int64_t first, int64_t last) {
    left_over left;
    for (int64_t r = first; r < last; r++) verify_one(a, r, &left);
}
