#include "CUDAKernels.h"

// #embed is C23; the older modes have it as an extension.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const char attention_params[] = {
#embed "include/fi_attention_params.h"
    , 0};
static const char cache_params[] = {
#embed "include/fi_cache_params.h"
    , 0};
static const char division[] = {
#embed "include/fi_division.h"
    , 0};
static const char exchange_params[] = {
#embed "include/fi_exchange_params.h"
    , 0};
static const char hopper_attention_params[] = {
#embed "include/fi_hopper_attention_params.h"
    , 0};
static const char merge_params[] = {
#embed "include/fi_merge_params.h"
    , 0};
static const char page_params[] = {
#embed "include/fi_page_params.h"
    , 0};
static const char rope_params[] = {
#embed "include/fi_rope_params.h"
    , 0};
static const char rope_parts_params[] = {
#embed "include/fi_rope_parts_params.h"
    , 0};
static const char rows_params[] = {
#embed "include/fi_rows_params.h"
    , 0};
static const char sample_params[] = {
#embed "include/fi_sample_params.h"
    , 0};
static const char tensor_map[] = {
#embed "include/fi_tensor_map.h"
    , 0};
static const char hopper_attention[] = {
#embed "hopper/attention.cuh"
    , 0};
static const char hopper_attention_bring[] = {
#embed "hopper/attention_bring.cuh"
    , 0};
static const char hopper_attention_fp8[] = {
#embed "hopper/attention_fp8.cuh"
    , 0};
static const char hopper_attention_fp8_bring[] = {
#embed "hopper/attention_fp8_bring.cuh"
    , 0};
static const char hopper_attention_fp8_shared[] = {
#embed "hopper/attention_fp8_shared.cuh"
    , 0};
static const char hopper_attention_fp8_softmax[] = {
#embed "hopper/attention_fp8_softmax.cuh"
    , 0};
static const char hopper_attention_gather[] = {
#embed "hopper/attention_gather.cuh"
    , 0};
static const char hopper_attention_held[] = {
#embed "hopper/attention_held.cuh"
    , 0};
static const char hopper_attention_lists[] = {
#embed "hopper/attention_lists.cuh"
    , 0};
static const char hopper_attention_mixed[] = {
#embed "hopper/attention_mixed.cuh"
    , 0};
static const char hopper_attention_output[] = {
#embed "hopper/attention_output.cuh"
    , 0};
static const char hopper_attention_products[] = {
#embed "hopper/attention_products.cuh"
    , 0};
static const char hopper_attention_queries[] = {
#embed "hopper/attention_queries.cuh"
    , 0};
static const char hopper_attention_shared[] = {
#embed "hopper/attention_shared.cuh"
    , 0};
static const char hopper_attention_turns[] = {
#embed "hopper/attention_turns.cuh"
    , 0};
static const char hopper_attention_weigh[] = {
#embed "hopper/attention_weigh.cuh"
    , 0};
static const char hopper_attention_widen[] = {
#embed "hopper/attention_widen.cuh"
    , 0};
static const char hopper_barrier[] = {
#embed "hopper/barrier.cuh"
    , 0};
static const char hopper_latent[] = {
#embed "hopper/latent.cuh"
    , 0};
static const char hopper_latent_bring[] = {
#embed "hopper/latent_bring.cuh"
    , 0};
static const char hopper_latent_gather[] = {
#embed "hopper/latent_gather.cuh"
    , 0};
static const char hopper_latent_items[] = {
#embed "hopper/latent_items.cuh"
    , 0};
static const char hopper_latent_merge[] = {
#embed "hopper/latent_merge.cuh"
    , 0};
static const char hopper_latent_outputs[] = {
#embed "hopper/latent_outputs.cuh"
    , 0};
static const char hopper_latent_scores[] = {
#embed "hopper/latent_scores.cuh"
    , 0};
static const char hopper_latent_shared[] = {
#embed "hopper/latent_shared.cuh"
    , 0};
static const char hopper_latent_short[] = {
#embed "hopper/latent_short.cuh"
    , 0};
static const char hopper_latent_short_bring[] = {
#embed "hopper/latent_short_bring.cuh"
    , 0};
static const char hopper_latent_short_finish[] = {
#embed "hopper/latent_short_finish.cuh"
    , 0};
static const char hopper_latent_short_shared[] = {
#embed "hopper/latent_short_shared.cuh"
    , 0};
static const char hopper_latent_short_tile[] = {
#embed "hopper/latent_short_tile.cuh"
    , 0};
static const char hopper_tensor_copy[] = {
#embed "hopper/tensor_copy.cuh"
    , 0};
static const char hopper_wgmma[] = {
#embed "hopper/wgmma.cuh"
    , 0};
static const char hopper_wgmma_e4m3[] = {
#embed "hopper/wgmma_e4m3.cuh"
    , 0};
static const char hopper_widen_chunk[] = {
#embed "hopper/widen_chunk.cuh"
    , 0};
static const char portable_add[] = {
#embed "portable/add.cuh"
    , 0};
static const char portable_adjust_logits[] = {
#embed "portable/adjust_logits.cuh"
    , 0};
static const char portable_append_kv[] = {
#embed "portable/append_kv.cuh"
    , 0};
static const char portable_argmax[] = {
#embed "portable/argmax.cuh"
    , 0};
static const char portable_attention[] = {
#embed "portable/attention.cuh"
    , 0};
static const char portable_attention_finish[] = {
#embed "portable/attention_finish.cuh"
    , 0};
static const char portable_attention_load[] = {
#embed "portable/attention_load.cuh"
    , 0};
static const char portable_attention_meeting[] = {
#embed "portable/attention_meeting.cuh"
    , 0};
static const char portable_attention_queue[] = {
#embed "portable/attention_queue.cuh"
    , 0};
static const char portable_attention_rope[] = {
#embed "portable/attention_rope.cuh"
    , 0};
static const char portable_attention_scores[] = {
#embed "portable/attention_scores.cuh"
    , 0};
static const char portable_attention_shared[] = {
#embed "portable/attention_shared.cuh"
    , 0};
static const char portable_attention_softmax[] = {
#embed "portable/attention_softmax.cuh"
    , 0};
static const char portable_attention_tile[] = {
#embed "portable/attention_tile.cuh"
    , 0};
static const char portable_attention_variant[] = {
#embed "portable/attention_variant.cuh"
    , 0};
static const char portable_convert[] = {
#embed "portable/convert.cuh"
    , 0};
static const char portable_copy_pages[] = {
#embed "portable/copy_pages.cuh"
    , 0};
static const char portable_embedding[] = {
#embed "portable/embedding.cuh"
    , 0};
static const char portable_exchange_states[] = {
#embed "portable/exchange_states.cuh"
    , 0};
static const char portable_expand_items[] = {
#embed "portable/expand_items.cuh"
    , 0};
static const char portable_filter[] = {
#embed "portable/filter.cuh"
    , 0};
static const char portable_gate[] = {
#embed "portable/gate.cuh"
    , 0};
static const char portable_gated_activation[] = {
#embed "portable/gated_activation.cuh"
    , 0};
static const char portable_gated_activation_groups[] = {
#embed "portable/gated_activation_groups.cuh"
    , 0};
static const char portable_gated_activation_rows[] = {
#embed "portable/gated_activation_rows.cuh"
    , 0};
static const char portable_gated_product[] = {
#embed "portable/gated_product.cuh"
    , 0};
static const char portable_log_probability[] = {
#embed "portable/log_probability.cuh"
    , 0};
static const char portable_merge_heads[] = {
#embed "portable/merge_heads.cuh"
    , 0};
static const char portable_merge_levels[] = {
#embed "portable/merge_levels.cuh"
    , 0};
static const char portable_merge_states[] = {
#embed "portable/merge_states.cuh"
    , 0};
static const char portable_norm[] = {
#embed "portable/norm.cuh"
    , 0};
static const char portable_norm_many[] = {
#embed "portable/norm_many.cuh"
    , 0};
static const char portable_norm_row[] = {
#embed "portable/norm_row.cuh"
    , 0};
static const char portable_pack_bits[] = {
#embed "portable/pack_bits.cuh"
    , 0};
static const char portable_page_bounds[] = {
#embed "portable/page_bounds.cuh"
    , 0};
static const char portable_quantize[] = {
#embed "portable/quantize.cuh"
    , 0};
static const char portable_rope[] = {
#embed "portable/rope.cuh"
    , 0};
static const char portable_rope_heads[] = {
#embed "portable/rope_heads.cuh"
    , 0};
static const char portable_rope_parts[] = {
#embed "portable/rope_parts.cuh"
    , 0};
static const char portable_rope_scale[] = {
#embed "portable/rope_scale.cuh"
    , 0};
static const char portable_rope_turn[] = {
#embed "portable/rope_turn.cuh"
    , 0};
static const char portable_sample[] = {
#embed "portable/sample.cuh"
    , 0};
static const char portable_score_pages[] = {
#embed "portable/score_pages.cuh"
    , 0};
static const char portable_select_pages[] = {
#embed "portable/select_pages.cuh"
    , 0};
static const char portable_softmax[] = {
#embed "portable/softmax.cuh"
    , 0};
static const char portable_top_k[] = {
#embed "portable/top_k.cuh"
    , 0};
static const char portable_variant_parts[] = {
#embed "portable/variant_parts.cuh"
    , 0};
static const char portable_variant_terms[] = {
#embed "portable/variant_terms.cuh"
    , 0};
static const char portable_verify_drafts[] = {
#embed "portable/verify_drafts.cuh"
    , 0};
static const char primitives_argmax[] = {
#embed "primitives/argmax.cuh"
    , 0};
static const char primitives_async[] = {
#embed "primitives/async.cuh"
    , 0};
static const char primitives_convert[] = {
#embed "primitives/convert.cuh"
    , 0};
static const char primitives_dispatch[] = {
#embed "primitives/dispatch.cuh"
    , 0};
static const char primitives_distribution[] = {
#embed "primitives/distribution.cuh"
    , 0};
static const char primitives_divide[] = {
#embed "primitives/divide.cuh"
    , 0};
static const char primitives_element[] = {
#embed "primitives/element.cuh"
    , 0};
static const char primitives_exp[] = {
#embed "primitives/exp.cuh"
    , 0};
static const char primitives_filter[] = {
#embed "primitives/filter.cuh"
    , 0};
static const char primitives_first_pass[] = {
#embed "primitives/first_pass.cuh"
    , 0};
static const char primitives_intervals[] = {
#embed "primitives/intervals.cuh"
    , 0};
static const char primitives_launch[] = {
#embed "primitives/launch.cuh"
    , 0};
static const char primitives_merge_weights[] = {
#embed "primitives/merge_weights.cuh"
    , 0};
static const char primitives_mma[] = {
#embed "primitives/mma.cuh"
    , 0};
static const char primitives_nucleus[] = {
#embed "primitives/nucleus.cuh"
    , 0};
static const char primitives_nucleus_list[] = {
#embed "primitives/nucleus_list.cuh"
    , 0};
static const char primitives_philox[] = {
#embed "primitives/philox.cuh"
    , 0};
static const char primitives_quad[] = {
#embed "primitives/quad.cuh"
    , 0};
static const char primitives_reduce[] = {
#embed "primitives/reduce.cuh"
    , 0};
static const char primitives_row_part[] = {
#embed "primitives/row_part.cuh"
    , 0};
static const char primitives_row_weights[] = {
#embed "primitives/row_weights.cuh"
    , 0};
static const char primitives_rows[] = {
#embed "primitives/rows.cuh"
    , 0};
static const char primitives_scalar[] = {
#embed "primitives/scalar.cuh"
    , 0};
static const char primitives_slot[] = {
#embed "primitives/slot.cuh"
    , 0};
static const char primitives_team[] = {
#embed "primitives/team.cuh"
    , 0};
static const char primitives_top_few[] = {
#embed "primitives/top_few.cuh"
    , 0};
static const char primitives_top_listed[] = {
#embed "primitives/top_listed.cuh"
    , 0};
static const char primitives_top_many[] = {
#embed "primitives/top_many.cuh"
    , 0};
static const char primitives_types[] = {
#embed "primitives/types.cuh"
    , 0};
static const char primitives_walk[] = {
#embed "primitives/walk.cuh"
    , 0};

const fi_kernel_text fi_kernel_texts[] = {
    {"fi_attention_params.h", attention_params},
    {"fi_cache_params.h", cache_params},
    {"fi_division.h", division},
    {"fi_exchange_params.h", exchange_params},
    {"fi_hopper_attention_params.h", hopper_attention_params},
    {"fi_merge_params.h", merge_params},
    {"fi_page_params.h", page_params},
    {"fi_rope_params.h", rope_params},
    {"fi_rope_parts_params.h", rope_parts_params},
    {"fi_rows_params.h", rows_params},
    {"fi_sample_params.h", sample_params},
    {"fi_tensor_map.h", tensor_map},
    {"hopper/attention.cuh", hopper_attention},
    {"hopper/attention_bring.cuh", hopper_attention_bring},
    {"hopper/attention_fp8.cuh", hopper_attention_fp8},
    {"hopper/attention_fp8_bring.cuh", hopper_attention_fp8_bring},
    {"hopper/attention_fp8_shared.cuh", hopper_attention_fp8_shared},
    {"hopper/attention_fp8_softmax.cuh", hopper_attention_fp8_softmax},
    {"hopper/attention_gather.cuh", hopper_attention_gather},
    {"hopper/attention_held.cuh", hopper_attention_held},
    {"hopper/attention_lists.cuh", hopper_attention_lists},
    {"hopper/attention_mixed.cuh", hopper_attention_mixed},
    {"hopper/attention_output.cuh", hopper_attention_output},
    {"hopper/attention_products.cuh", hopper_attention_products},
    {"hopper/attention_queries.cuh", hopper_attention_queries},
    {"hopper/attention_shared.cuh", hopper_attention_shared},
    {"hopper/attention_turns.cuh", hopper_attention_turns},
    {"hopper/attention_weigh.cuh", hopper_attention_weigh},
    {"hopper/attention_widen.cuh", hopper_attention_widen},
    {"hopper/barrier.cuh", hopper_barrier},
    {"hopper/latent.cuh", hopper_latent},
    {"hopper/latent_bring.cuh", hopper_latent_bring},
    {"hopper/latent_gather.cuh", hopper_latent_gather},
    {"hopper/latent_items.cuh", hopper_latent_items},
    {"hopper/latent_merge.cuh", hopper_latent_merge},
    {"hopper/latent_outputs.cuh", hopper_latent_outputs},
    {"hopper/latent_scores.cuh", hopper_latent_scores},
    {"hopper/latent_shared.cuh", hopper_latent_shared},
    {"hopper/latent_short.cuh", hopper_latent_short},
    {"hopper/latent_short_bring.cuh", hopper_latent_short_bring},
    {"hopper/latent_short_finish.cuh", hopper_latent_short_finish},
    {"hopper/latent_short_shared.cuh", hopper_latent_short_shared},
    {"hopper/latent_short_tile.cuh", hopper_latent_short_tile},
    {"hopper/tensor_copy.cuh", hopper_tensor_copy},
    {"hopper/wgmma.cuh", hopper_wgmma},
    {"hopper/wgmma_e4m3.cuh", hopper_wgmma_e4m3},
    {"hopper/widen_chunk.cuh", hopper_widen_chunk},
    {"portable/add.cuh", portable_add},
    {"portable/adjust_logits.cuh", portable_adjust_logits},
    {"portable/append_kv.cuh", portable_append_kv},
    {"portable/argmax.cuh", portable_argmax},
    {"portable/attention.cuh", portable_attention},
    {"portable/attention_finish.cuh", portable_attention_finish},
    {"portable/attention_load.cuh", portable_attention_load},
    {"portable/attention_meeting.cuh", portable_attention_meeting},
    {"portable/attention_queue.cuh", portable_attention_queue},
    {"portable/attention_rope.cuh", portable_attention_rope},
    {"portable/attention_scores.cuh", portable_attention_scores},
    {"portable/attention_shared.cuh", portable_attention_shared},
    {"portable/attention_softmax.cuh", portable_attention_softmax},
    {"portable/attention_tile.cuh", portable_attention_tile},
    {"portable/attention_variant.cuh", portable_attention_variant},
    {"portable/convert.cuh", portable_convert},
    {"portable/copy_pages.cuh", portable_copy_pages},
    {"portable/embedding.cuh", portable_embedding},
    {"portable/exchange_states.cuh", portable_exchange_states},
    {"portable/expand_items.cuh", portable_expand_items},
    {"portable/filter.cuh", portable_filter},
    {"portable/gate.cuh", portable_gate},
    {"portable/gated_activation.cuh", portable_gated_activation},
    {"portable/gated_activation_groups.cuh", portable_gated_activation_groups},
    {"portable/gated_activation_rows.cuh", portable_gated_activation_rows},
    {"portable/gated_product.cuh", portable_gated_product},
    {"portable/log_probability.cuh", portable_log_probability},
    {"portable/merge_heads.cuh", portable_merge_heads},
    {"portable/merge_levels.cuh", portable_merge_levels},
    {"portable/merge_states.cuh", portable_merge_states},
    {"portable/norm.cuh", portable_norm},
    {"portable/norm_many.cuh", portable_norm_many},
    {"portable/norm_row.cuh", portable_norm_row},
    {"portable/pack_bits.cuh", portable_pack_bits},
    {"portable/page_bounds.cuh", portable_page_bounds},
    {"portable/quantize.cuh", portable_quantize},
    {"portable/rope.cuh", portable_rope},
    {"portable/rope_heads.cuh", portable_rope_heads},
    {"portable/rope_parts.cuh", portable_rope_parts},
    {"portable/rope_scale.cuh", portable_rope_scale},
    {"portable/rope_turn.cuh", portable_rope_turn},
    {"portable/sample.cuh", portable_sample},
    {"portable/score_pages.cuh", portable_score_pages},
    {"portable/select_pages.cuh", portable_select_pages},
    {"portable/softmax.cuh", portable_softmax},
    {"portable/top_k.cuh", portable_top_k},
    {"portable/variant_parts.cuh", portable_variant_parts},
    {"portable/variant_terms.cuh", portable_variant_terms},
    {"portable/verify_drafts.cuh", portable_verify_drafts},
    {"primitives/argmax.cuh", primitives_argmax},
    {"primitives/async.cuh", primitives_async},
    {"primitives/convert.cuh", primitives_convert},
    {"primitives/dispatch.cuh", primitives_dispatch},
    {"primitives/distribution.cuh", primitives_distribution},
    {"primitives/divide.cuh", primitives_divide},
    {"primitives/element.cuh", primitives_element},
    {"primitives/exp.cuh", primitives_exp},
    {"primitives/filter.cuh", primitives_filter},
    {"primitives/first_pass.cuh", primitives_first_pass},
    {"primitives/intervals.cuh", primitives_intervals},
    {"primitives/launch.cuh", primitives_launch},
    {"primitives/merge_weights.cuh", primitives_merge_weights},
    {"primitives/mma.cuh", primitives_mma},
    {"primitives/nucleus.cuh", primitives_nucleus},
    {"primitives/nucleus_list.cuh", primitives_nucleus_list},
    {"primitives/philox.cuh", primitives_philox},
    {"primitives/quad.cuh", primitives_quad},
    {"primitives/reduce.cuh", primitives_reduce},
    {"primitives/row_part.cuh", primitives_row_part},
    {"primitives/row_weights.cuh", primitives_row_weights},
    {"primitives/rows.cuh", primitives_rows},
    {"primitives/scalar.cuh", primitives_scalar},
    {"primitives/slot.cuh", primitives_slot},
    {"primitives/team.cuh", primitives_team},
    {"primitives/top_few.cuh", primitives_top_few},
    {"primitives/top_listed.cuh", primitives_top_listed},
    {"primitives/top_many.cuh", primitives_top_many},
    {"primitives/types.cuh", primitives_types},
    {"primitives/walk.cuh", primitives_walk},
    {0, 0},
};

static const char resources[] = {
#embed "resources.txt"
    , 0};

const char *fi_resource_table(void) { return resources; }
