// Between the C ABI's Swift and its thread-local memory; not installed and not exported.

#ifndef FI_LAST_ERROR_H
#define FI_LAST_ERROR_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

const char *fi_last_error_text(void);
void fi_set_last_error_text(const char *text, size_t length);

#pragma GCC visibility pop

#endif
