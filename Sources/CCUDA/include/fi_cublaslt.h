// The functions of cuBLASLt, the matrix-product library, that are used. The same in versions 12 and 13.
#ifndef FLASHINFER_CUBLASLT_H
#define FLASHINFER_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#include "fi_symbols.h"

/// cublasStatus_t; 0 is success.
typedef int fi_cublas_status;
/// cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t
typedef uintptr_t fi_cublas_handle, fi_cublas_product, fi_cublas_layout, fi_cublas_preference;

/// cublasLtMatmulAlgo_t: opaque, copied as it is.
typedef struct {
    uint64_t data[8];
} fi_cublas_algorithm;

/// cublasLtMatmulHeuristicResult_t
typedef struct {
    fi_cublas_algorithm algorithm;
    size_t workspace_bytes;
    fi_cublas_status status;
    float waves;
    int reserved[4];
} fi_cublas_heuristic;

enum {
    FI_CUBLAS_SUCCESS = 0,
    FI_CUBLAS_INVALID_VALUE = 7,
    FI_CUBLAS_NOT_SUPPORTED = 15,

    /// cudaDataType_t: CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
    FI_CUDA_FLOAT32 = 0,
    FI_CUDA_FLOAT16 = 2,
    FI_CUDA_BFLOAT16 = 14,
    /// cublasComputeType_t: CUBLAS_COMPUTE_32F
    FI_CUBLAS_COMPUTE_FLOAT32 = 68,
    /// cublasOperation_t: CUBLAS_OP_T
    FI_CUBLAS_TRANSPOSED = 1,

    /// cublasLtMatmulDescAttributes_t
    FI_CUBLAS_PRODUCT_TRANSPOSE_A = 3,
    FI_CUBLAS_PRODUCT_EPILOGUE = 7,
    FI_CUBLAS_PRODUCT_BIAS_POINTER = 8,
    /// cublasLtEpilogue_t: CUBLASLT_EPILOGUE_BIAS
    FI_CUBLAS_EPILOGUE_BIAS = 4,
    /// cublasLtMatrixLayoutAttribute_t
    FI_CUBLAS_LAYOUT_COLUMNS = 3,
    /// cublasLtMatmulPreferenceAttributes_t
    FI_CUBLAS_PREFERENCE_WORKSPACE_BYTES = 1,
    FI_CUBLAS_PREFERENCE_REDUCTIONS = 3,
    FI_CUBLAS_PREFERENCE_ALIGNMENT_A = 5,
    FI_CUBLAS_PREFERENCE_ALIGNMENT_B = 6,
    FI_CUBLAS_PREFERENCE_ALIGNMENT_C = 7,
    FI_CUBLAS_PREFERENCE_ALIGNMENT_D = 8,
    /// cublasLtReductionScheme_t: in the compute type or the output's, by way of the workspace; not in place, by atomics
    FI_CUBLAS_REDUCTIONS_IN_ORDER = 2 | 4,
};

// name, parameters; all return a status.
#define FI_CUBLASLT_FUNCTIONS(X) \
    X(cublasLtCreate, (fi_cublas_handle *_Nonnull handle)) \
    X(cublasLtDestroy, (fi_cublas_handle handle)) \
    X(cublasLtMatmulDescCreate, (fi_cublas_product *_Nonnull product, int compute_type, int scale_type)) \
    X(cublasLtMatmulDescDestroy, (fi_cublas_product product)) \
    X(cublasLtMatmulDescSetAttribute, \
      (fi_cublas_product product, int attribute, const void *_Nonnull value, size_t bytes)) \
    X(cublasLtMatrixLayoutCreate, \
      (fi_cublas_layout *_Nonnull layout, int type, uint64_t rows, uint64_t columns, int64_t leading_dimension)) \
    X(cublasLtMatrixLayoutDestroy, (fi_cublas_layout layout)) \
    X(cublasLtMatrixLayoutSetAttribute, \
      (fi_cublas_layout layout, int attribute, const void *_Nonnull value, size_t bytes)) \
    X(cublasLtMatmulPreferenceCreate, (fi_cublas_preference *_Nonnull preference)) \
    X(cublasLtMatmulPreferenceDestroy, (fi_cublas_preference preference)) \
    X(cublasLtMatmulPreferenceSetAttribute, \
      (fi_cublas_preference preference, int attribute, const void *_Nonnull value, size_t bytes)) \
    X(cublasLtMatmulAlgoGetHeuristic, \
      (fi_cublas_handle handle, fi_cublas_product product, fi_cublas_layout a, fi_cublas_layout b, fi_cublas_layout c, \
       fi_cublas_layout d, fi_cublas_preference preference, int wanted, fi_cublas_heuristic *_Nonnull results, \
       int *_Nonnull found)) \
    X(cublasLtMatmul, \
      (fi_cublas_handle handle, fi_cublas_product product, const void *_Nonnull alpha, uintptr_t a, \
       fi_cublas_layout a_layout, uintptr_t b, fi_cublas_layout b_layout, const void *_Nonnull beta, uintptr_t c, \
       fi_cublas_layout c_layout, uintptr_t d, fi_cublas_layout d_layout, \
       const fi_cublas_algorithm *_Nonnull algorithm, uintptr_t workspace, size_t workspace_bytes, uintptr_t stream))

/// cuBLASLt's functions; none is null.
typedef struct {
#define X(name, parameters) fi_cublas_status (*_Null_unspecified name) parameters;
    FI_CUBLASLT_FUNCTIONS(X)
#undef X
    /// 130002 is 13.0.2, 120905 is 12.9.5.
    size_t (*_Null_unspecified cublasLtGetVersion)(void);
    /// The name of a status; never null.
    const char *_Null_unspecified (*_Null_unspecified cublasLtGetStatusName)(fi_cublas_status status);
} fi_cublaslt_table;

/// The symbols of ``fi_cublaslt_table``, as `fi_fill_table` takes them.
const fi_symbol *_Nonnull fi_cublaslt_symbols(void);

#endif
