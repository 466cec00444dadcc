// The CUDA driver, and the run-time compiler, matrix-product and collectives libraries, as tables of functions, filled by dlopen.
//
// No CUDA header is needed to build: the few types and constants are declared here, from the libraries' public ABI.
// Handles are integers as wide as a pointer, which every ABI concerned passes alike, and which Swift may share between
// threads and compare.
#ifndef FLASHINFER_CCUDA_H
#define FLASHINFER_CCUDA_H

#include "fi_cublaslt.h"
#include "fi_driver.h"
#include "fi_nccl.h"
#include "fi_nvrtc.h"
#include "fi_symbols.h"

#endif
