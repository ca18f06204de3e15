"""The fixed-point arithmetic that generated C programs hold: LiteRT's roundings, and its softmax, without a float.

Source: gemmlowp's fixedpoint.h and the reference kernels of LiteRT (tflite/kernels/internal/common.h and
reference/softmax.h). No negative number is shifted, so that the C is defined wherever int32_t exists.
"""

from __future__ import annotations

CLAMPED = """\
/* code + zero_point, kept within lowest and highest */
static int8_t clamped(int32_t code, int32_t zero_point, int32_t lowest, int32_t highest)
{
    if (code < lowest - zero_point) {
        return (int8_t)lowest;
    }
    return (int8_t)(code > highest - zero_point ? highest : code + zero_point);
}
"""

REQUANTISED = """\
/* a b / 2^31, rounded to nearest, halves up: gemmlowp's SaturatingRoundingDoublingHighMul. */
static int32_t doubled_high_product(int32_t a, int32_t b)
{
    const int64_t product = (int64_t)a * (int64_t)b;
    const int64_t half = (int64_t)1 << 30;
    const int64_t high = (product + (product >= 0 ? half : 1 - half)) / ((int64_t)1 << 31);
    return high > INT32_MAX ? INT32_MAX : (int32_t)high;
}

/* value / 2^exponent, rounded to nearest, halves away from zero: gemmlowp's RoundingDivideByPOT. */
static int32_t divided_by_power(int32_t value, int32_t exponent)
{
    const int64_t magnitude = value < 0 ? -(int64_t)value : (int64_t)value;
    const int64_t rounded = (magnitude + (((int64_t)1 << exponent) >> 1)) >> exponent;
    return (int32_t)(value < 0 ? -rounded : rounded);
}

/* value * factor * 2^(shift - 31) with these two roundings, as LiteRT's reference kernels compute it. */
static int32_t requantised(int32_t value, int32_t factor, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    const int32_t shifted = (int32_t)((uint32_t)value << left);
    return divided_by_power(doubled_high_product(shifted, factor), right);
}
"""

REQUANTISED_ONCE = """\
/* value * factor * 2^(shift - 31), rounded once to nearest, halves up, as LiteRT's FULLY_CONNECTED computes it. */
static int32_t requantised_once(int32_t value, int32_t factor, int32_t shift)
{
    const int32_t places = 31 - shift;
    const int64_t raised = (int64_t)value * (int64_t)factor + (places > 0 ? (int64_t)1 << (places - 1) : 0);
    const int64_t below_one = ((int64_t)1 << places) - 1;
    const int64_t rounded = raised >= 0 ? raised >> places : -((below_one - raised) >> places);
    return (int32_t)(rounded < INT32_MIN ? INT32_MIN : rounded > INT32_MAX ? INT32_MAX : rounded);
}
"""

SOFTMAX = """\
/* Fixed-point numbers below: "Qm" is an int32_t of m integer bits and 31 - m fraction bits. */

static int32_t saturated(int64_t value)
{
    return (int32_t)(value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : value);
}

/* e^x of -1/4 <= x < 0 in Q0: the Taylor polynomial of degree 4 about -1/8. */
static int32_t exponential_near_zero(int32_t value)
{
    const int32_t at_minus_eighth = 1895147668, third = 715827883;
    const int32_t x = value + ((int32_t)1 << 28);
    const int32_t x2 = doubled_high_product(x, x);
    const int32_t x3 = doubled_high_product(x2, x);
    const int32_t x4 = doubled_high_product(x2, x2);
    const int32_t higher = divided_by_power(doubled_high_product(divided_by_power(x4, 2) + x3, third) + x2, 1);
    return at_minus_eighth + doubled_high_product(at_minus_eighth, x + higher);
}

/* e^x of x <= 0 in Q5; the result in Q0. */
static int32_t exponential(int32_t value)
{
    /* e^-1/4, e^-1/2, e^-1, ..., e^-16 */
    static const int32_t powers[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    const int32_t quarter = (int32_t)1 << 24;
    const int32_t magnitude = -value;
    /* x = near - remainder, with -1/4 <= near < 0 and a remainder of whole quarters. */
    const int32_t within = magnitude % quarter;
    const int32_t near = within == 0 ? -quarter : -within;
    const int32_t remainder = near + magnitude;
    int32_t result = exponential_near_zero(near * 32);
    for (int32_t power = 0; power < 7; ++power) {
        if (remainder & (quarter << power)) {
            result = doubled_high_product(result, powers[power]);
        }
    }
    return value == 0 ? INT32_MAX : result;
}

/* 1 / (1 + x) of 0 <= x < 1 in Q0: three Newton-Raphson steps for the reciprocal of half of 1 + x, in Q2. */
static int32_t reciprocal_of_one_plus(int32_t value)
{
    const int32_t half = (int32_t)(((int64_t)value + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + doubled_high_product(half, -1010580540); /* 48/17 - 32/17 half */
    for (int step = 0; step < 3; ++step) {
        const int32_t missing = ((int32_t)1 << 29) - doubled_high_product(half, x);
        x += saturated((int64_t)doubled_high_product(x, missing) * 4);
    }
    return saturated((int64_t)x * 2);
}

/* Softmax of one row of codes; the output has scale 1/256 and zero point -128. */
static void softmax_row(const int8_t *input, int8_t *output, int32_t count, int32_t factor, int32_t shift,
                        int32_t furthest)
{
    int32_t largest = input[0];
    for (int32_t i = 1; i < count; ++i) {
        largest = input[i] > largest ? input[i] : largest;
    }
    int32_t sum = 0; /* Q12 */
    for (int32_t i = 0; i < count; ++i) {
        if (input[i] - largest >= -furthest) {
            sum += divided_by_power(exponential(requantised(input[i] - largest, factor, shift)), 12);
        }
    }
    int32_t headroom = 0; /* leading zeros of the sum */
    while (((uint32_t)sum << headroom) < 0x80000000u) {
        ++headroom;
    }
    const int32_t reciprocal = reciprocal_of_one_plus((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    for (int32_t i = 0; i < count; ++i) {
        output[i] = -128;
        if (input[i] - largest >= -furthest) {
            const int32_t share = exponential(requantised(input[i] - largest, factor, shift));
            const int32_t code = divided_by_power(doubled_high_product(reciprocal, share), 35 - headroom);
            output[i] = clamped(code, -128, -128, 127);
        }
    }
}
"""
