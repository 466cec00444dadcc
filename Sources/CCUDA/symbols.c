#define _GNU_SOURCE
#include "fi_symbols.h"

#include <dlfcn.h>
#ifdef __linux__
#include <link.h>
#endif
#include <stdint.h>
#include <string.h>

const char *fi_fill_table(void *library, const fi_symbol *symbols, void *table) {
    for (const fi_symbol *symbol = symbols; symbol->offset != SIZE_MAX; symbol++) {
        void *address = dlsym(library, symbol->name);
        if (!address && symbol->required) return symbol->name;
        // Copied as bytes: C has no cast from an object's address to a function's.
        memcpy((char *)table + symbol->offset, &address, sizeof address);
    }
    return 0;
}

const char *fi_library_path(void *library) {
#ifdef __linux__
    struct link_map *map = 0;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name[0]) return map->l_name;
#else
    (void)library;
#endif
    return 0;
}
