/*
 * A decode loop over a paged KV cache, from C: append a token to every request, plan once, run once a layer.
 *
 *   Scripts/make-library /opt/flashinfer
 *   cc -std=c99 -O2 Examples/CPagedDecode/main.c $(pkg-config --cflags --libs /opt/flashinfer/lib/pkgconfig/flashinfer_swift.pc) -lm -o decode
 *   LD_LIBRARY_PATH=/opt/flashinfer/lib ./decode
 *
 * Runs on the CPU and checks every step against a plain loop. On a GPU only the device's options, the tensors' device and the
 * stream differ.
 */
#include <flashinfer_swift.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LAYERS = 2, REQUESTS = 3, PAGES = 16, PAGE_SIZE = 4, QO_HEADS = 4, KV_HEADS = 2, DIM = 64, STEPS = 7 };

static void check(fi_status status, const char *call) {
    if (status == FI_OK) return;
    fprintf(stderr, "%s: %s: %s\n", call, fi_status_name(status), fi_last_error_message());
    exit(1);
}
#define CHECK(call) check((call), #call)

/* A row-major tensor in host memory; the shape needs to live as long as the tensor is used. */
static fi_tensor tensor(void *data, fi_data_type type, int32_t ndim, int64_t *shape) {
    fi_tensor t;
    t.data = data;
    t.device.device_type = FI_CPU;
    t.device.device_id = 0;
    t.ndim = ndim;
    t.dtype = type;
    t.shape = shape;
    t.strides = NULL;
    t.byte_offset = 0;
    return t;
}

static float noise(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

static float cache[LAYERS][PAGES][2][PAGE_SIZE][KV_HEADS][DIM];
static float queries[REQUESTS][QO_HEADS][DIM], keys[REQUESTS][KV_HEADS][DIM], values[REQUESTS][KV_HEADS][DIM];
static float output[REQUESTS][QO_HEADS][DIM], lse[REQUESTS][QO_HEADS];

/* The page table: request r has pages_of[r][0 ...], handed out as its text grows. */
static int32_t pages_of[REQUESTS][PAGES], page_counts[REQUESTS], lengths[REQUESTS], free_page;

/* The greatest error of a layer's output and log-sum-exps, against softmax(q k / sqrt(d)) v in double precision. */
static double error_of(int layer) {
    double worst = 0;
    for (int r = 0; r < REQUESTS; r++) {
        for (int h = 0; h < QO_HEADS; h++) {
            int kv_head = h / (QO_HEADS / KV_HEADS);
            double weights[PAGES * PAGE_SIZE], top = -INFINITY, sum = 0;
            for (int j = 0; j < lengths[r]; j++) {
                const float *key = cache[layer][pages_of[r][j / PAGE_SIZE]][0][j % PAGE_SIZE][kv_head];
                double score = 0;
                for (int d = 0; d < DIM; d++) score += (double)queries[r][h][d] * key[d];
                weights[j] = score / sqrt(DIM);
                if (weights[j] > top) top = weights[j];
            }
            for (int j = 0; j < lengths[r]; j++) sum += weights[j] = exp(weights[j] - top);
            for (int d = 0; d < DIM; d++) {
                double exact = 0;
                for (int j = 0; j < lengths[r]; j++) {
                    exact += weights[j] / sum * cache[layer][pages_of[r][j / PAGE_SIZE]][1][j % PAGE_SIZE][kv_head][d];
                }
                worst = fmax(worst, fabs(exact - output[r][h][d]));
            }
            worst = fmax(worst, fabs((top + log(sum)) / log(2) - lse[r][h]));
        }
    }
    return worst;
}

int main(void) {
    const fi_data_type float32 = {FI_FLOAT, 32, 1}, int32 = {FI_INT, 32, 1};
    fi_device_options device_options = {0};
    fi_device *device;
    device_options.struct_size = sizeof device_options;
    device_options.device_type = FI_CPU;
    CHECK(fi_device_create(&device_options, &device));
    printf("flashinfer_swift %s on %s\n", fi_version_string(), fi_device_name(device));

    fi_attention_options options = {0};
    fi_attention *attention;
    options.struct_size = sizeof options;
    options.num_qo_heads = QO_HEADS;
    options.num_kv_heads = KV_HEADS;
    options.head_dim_qk = DIM;
    options.q_dtype = float32;
    options.mask_mode = FI_MASK_CAUSAL;
    CHECK(fi_attention_create(device, &options, &attention));

    int64_t q_shape[] = {REQUESTS, QO_HEADS, DIM}, kv_shape[] = {REQUESTS, KV_HEADS, DIM}, lse_shape[] = {REQUESTS, QO_HEADS};
    int64_t cache_shape[] = {PAGES, 2, PAGE_SIZE, KV_HEADS, DIM};
    int64_t indptr_shape[] = {REQUESTS + 1}, request_shape[] = {REQUESTS}, indices_shape[] = {0};
    int32_t kv_indptr[REQUESTS + 1], kv_indices[PAGES], last_page_len[REQUESTS], append_indptr[REQUESTS + 1];
    fi_tensor q = tensor(queries, float32, 3, q_shape), out = tensor(output, float32, 3, q_shape);
    fi_tensor k = tensor(keys, float32, 3, kv_shape), v = tensor(values, float32, 3, kv_shape);
    fi_tensor lses = tensor(lse, float32, 2, lse_shape);
    fi_tensor indptr = tensor(kv_indptr, int32, 1, indptr_shape), indices = tensor(kv_indices, int32, 1, indices_shape);
    fi_tensor last = tensor(last_page_len, int32, 1, request_shape);
    fi_tensor appended = tensor(append_indptr, int32, 1, indptr_shape);

    double worst = 0;
    for (int step = 0; step < STEPS; step++) {
        /* Every request gets a token, and a page where its last is full. */
        int64_t used = 0;
        append_indptr[0] = 0;
        for (int r = 0; r < REQUESTS; r++) {
            if (lengths[r]++ % PAGE_SIZE == 0) pages_of[r][page_counts[r]++] = free_page++;
            append_indptr[r + 1] = append_indptr[r] + 1;
            kv_indptr[r] = (int32_t)used;
            for (int p = 0; p < page_counts[r]; p++) kv_indices[used++] = pages_of[r][p];
            last_page_len[r] = (lengths[r] - 1) % PAGE_SIZE + 1;
        }
        kv_indptr[REQUESTS] = (int32_t)used;
        indices_shape[0] = used;
        CHECK(fi_attention_plan_paged(attention, NULL, NULL, &indptr, &indices, &last, PAGE_SIZE, PAGES));
        for (int layer = 0; layer < LAYERS; layer++) {
            float *parts[] = {&queries[0][0][0], &keys[0][0][0], &values[0][0][0]};
            size_t counts[] = {sizeof queries / 4, sizeof keys / 4, sizeof values / 4};
            for (int part = 0; part < 3; part++) {
                for (size_t i = 0; i < counts[part]; i++) parts[part][i] = noise();
            }
            fi_tensor kv = tensor(cache[layer], float32, 5, cache_shape);
            fi_append_args append = {0};
            append.struct_size = sizeof append;
            append.k = &k;
            append.v = &v;
            append.kv_cache = &kv;
            append.kv_indptr = &indptr;
            append.kv_indices = &indices;
            append.last_page_len = &last;
            append.append_indptr = &appended;
            CHECK(fi_append_paged_kv(device, NULL, &append));

            fi_attention_run_args run = {0};
            run.struct_size = sizeof run;
            run.q = &q;
            run.kv = &kv;
            run.out = &out;
            run.lse = &lses;
            CHECK(fi_attention_run(attention, NULL, &run));
            worst = fmax(worst, error_of(layer));
        }
    }
    printf("%d steps of %d layers; the greatest error is %.2g\n", STEPS, LAYERS, worst);

    /* What is wrong is told, and nothing is run: an int64 page table, as some frameworks make them. */
    fi_tensor wide = indptr;
    wide.dtype.bits = 64;
    fi_status status = fi_attention_plan_paged(attention, NULL, NULL, &wide, &indices, &last, PAGE_SIZE, PAGES);
    printf("%s: %s\n", fi_status_name(status), fi_last_error_message());

    fi_attention_destroy(attention);
    fi_device_destroy(device);
    return worst < 1e-5 && status == FI_INVALID_ARGUMENT ? 0 : 1;
}
