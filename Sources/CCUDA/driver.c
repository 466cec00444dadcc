#include "fi_driver.h"

#include <stdint.h>

static const fi_symbol symbols[] = {
#define X(name, symbol, required, parameters) {symbol, offsetof(fi_driver_table, name), required},
    FI_DRIVER_FUNCTIONS(X)
#undef X
    {"", SIZE_MAX, 0},
};

const fi_symbol *fi_driver_symbols(void) { return symbols; }
