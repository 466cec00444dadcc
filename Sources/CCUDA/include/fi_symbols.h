// How a table of functions is filled from a library.
#ifndef FLASHINFER_SYMBOLS_H
#define FLASHINFER_SYMBOLS_H

#include <stddef.h>

/// One function of a table: its exported name, where its pointer lies in the table, and whether the table is of use without.
typedef struct {
    const char *_Nonnull name;
    size_t offset;
    int required;
} fi_symbol;

/// Looks up every symbol of a list, which ends with an offset of SIZE_MAX, and writes its address into the table.
///
/// Returns the name of the first required symbol that the library lacks, or null.
const char *_Nullable fi_fill_table(void *_Nonnull library, const fi_symbol *_Nonnull symbols, void *_Nonnull table);

/// The file that an opened library came from, or null where the system does not tell.
const char *_Nullable fi_library_path(void *_Nonnull library);

#endif
