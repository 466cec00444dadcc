// The functions of NVRTC, the run-time compiler, that are used. The same in versions 12 and 13.
#ifndef FLASHINFER_NVRTC_H
#define FLASHINFER_NVRTC_H

#include <stddef.h>
#include <stdint.h>

#include "fi_symbols.h"

/// nvrtcResult; 0 is success.
typedef int fi_nvrtc_status;
/// nvrtcProgram
typedef uintptr_t fi_nvrtc_program;

enum {
    FI_NVRTC_SUCCESS = 0,
    FI_NVRTC_COMPILATION = 6,
    FI_NVRTC_BUILTIN_OPERATION_FAILURE = 7,
};

// name, whether required, parameters; all return a status.
#define FI_NVRTC_FUNCTIONS(X) \
    X(nvrtcVersion, 1, (int *_Nonnull major, int *_Nonnull minor)) \
    X(nvrtcGetNumSupportedArchs, 1, (int *_Nonnull count)) \
    X(nvrtcGetSupportedArchs, 1, (int *_Nonnull architectures)) \
    X(nvrtcCreateProgram, 1, \
      (fi_nvrtc_program *_Nonnull program, const char *_Nonnull source, const char *_Nullable name, int header_count, \
       const char *_Nullable const *_Nullable headers, const char *_Nullable const *_Nullable include_names)) \
    X(nvrtcDestroyProgram, 1, (fi_nvrtc_program *_Nonnull program)) \
    X(nvrtcCompileProgram, 1, \
      (fi_nvrtc_program program, int option_count, const char *_Nullable const *_Nullable options)) \
    X(nvrtcGetProgramLogSize, 1, (fi_nvrtc_program program, size_t *_Nonnull bytes)) \
    X(nvrtcGetProgramLog, 1, (fi_nvrtc_program program, char *_Nonnull log)) \
    X(nvrtcGetPTXSize, 1, (fi_nvrtc_program program, size_t *_Nonnull bytes)) \
    X(nvrtcGetPTX, 1, (fi_nvrtc_program program, char *_Nonnull text)) \
    X(nvrtcGetCUBINSize, 1, (fi_nvrtc_program program, size_t *_Nonnull bytes)) \
    X(nvrtcGetCUBIN, 1, (fi_nvrtc_program program, char *_Nonnull cubin))

/// NVRTC's functions; none is null.
typedef struct {
#define X(name, required, parameters) fi_nvrtc_status (*_Null_unspecified name) parameters;
    FI_NVRTC_FUNCTIONS(X)
#undef X
    /// The text of a status; never null.
    const char *_Null_unspecified (*_Null_unspecified nvrtcGetErrorString)(fi_nvrtc_status status);
} fi_nvrtc_table;

/// The symbols of ``fi_nvrtc_table``, as `fi_fill_table` takes them.
const fi_symbol *_Nonnull fi_nvrtc_symbols(void);

#endif
