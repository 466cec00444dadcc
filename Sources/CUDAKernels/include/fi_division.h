// Division by numbers that the host knows.
#ifndef FLASHINFER_DIVISION_H
#define FLASHINFER_DIVISION_H

/// Division of numbers below 2^31: a product and a shift, see FastDivision.
typedef struct {
    /// 0 for division by 1.
    unsigned int multiplier, shift;
} fi_division;

#endif
