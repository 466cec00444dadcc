// The place of the greatest entry of each row, which is read once, by one block or by a cluster of them.
//
// FI_TEAM: see primitives/team.cuh.

#include "fi_rows_params.h"
#include "primitives/argmax.cuh"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/team.cuh"

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    argmax(const __grid_constant__ fi_argmax_params p) {
    fi_follow_predecessors();
    __shared__ fi_team_numbers numbers;
    __shared__ unsigned long long slots[FI_THREADS / 32];
    const unsigned int row = fi_team_row();
    fi_team_start();
    const fi_team_part part = fi_part_of_row((unsigned int)p.width);
    unsigned long long top = 0;
    fi_with_compute_type(p.input_type, [&](auto type) {
        constexpr int INPUT = decltype(type)::value;
        const unsigned long long input =
            fi_row_address<INPUT>(p.input, row, p.inner_rows) + (unsigned long long)part.first * fi_size(INPUT);
        fi_candidate best;
        bool is_nan = false;
        fi_for_vectors<INPUT, FI_THREADS>(input, part.count, [&](const auto &x, unsigned int index) {
            constexpr unsigned int count = sizeof(x) / sizeof(x[0]);
            float greatest = x[0];
#pragma unroll
            for (unsigned int i = 1; i < count; i++) asm("max.NaN.f32 %0, %0, %1;" : "+f"(greatest) : "f"(x[i]));
            is_nan |= greatest != greatest;
            // Places are looked at only where there is something greater.
            if (!(greatest >= best.value)) return;
#pragma unroll
            for (unsigned int i = 0; i < count; i++) best.take(x[i], part.first + index + i);
        });
        top = is_nan ? FI_TOP_NAN : best.top();
    });
    unsigned int turn = 0;
    fi_team_started();
    top = numbers.greatest(fi_block_reduce<FI_THREADS, true>(top, fi_top_max(), slots), turn);
    if (threadIdx.x == 0 && fi_team_rank() == 0) {
        // +inf is as good as any number.
        const int status =
            top == FI_TOP_NAN ? FI_ROW_NAN : fi_top_value(top) == -fi_infinity() ? FI_ROW_EMPTY : FI_ROW_OK;
        ((int *)p.output)[row] = status == FI_ROW_OK ? (int)fi_top_place(top) : -1;
        ((unsigned char *)p.status)[row] = (unsigned char)status;
    }
}
