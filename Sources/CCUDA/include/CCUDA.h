// The CUDA driver, run-time compiler and matrix-product libraries as tables of functions, filled by dlopen.
//
// No CUDA header is needed to build: the few types and constants are declared here, from the libraries' public ABI.
#ifndef FLASHINFER_CCUDA_H
#define FLASHINFER_CCUDA_H

#endif
