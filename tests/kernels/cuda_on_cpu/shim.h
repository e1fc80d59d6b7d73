// What a CUDA C++ kernel takes from the language and the hardware, for a host compiler: g++ -include shim.h kernel.cu
// fibers.cpp has the functions. Whatever nobody wrote is 0xff, which is NaN in bf16, fp16 and fp32.
#pragma once
#include <cstdint>

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Index {
    unsigned x;
};
extern Index threadIdx, blockIdx;

// cp.async as late as it may be: the slot is poisoned at once and filled when its group is waited for.
void copy_async(uint4* slot, const void* source);
void commit();
void wait_for_all_but(int younger);
template <int YOUNGER> void wait() { wait_for_all_but(YOUNGER); }

uint4 __ldg(const uint4* source);
float __shfl_xor_sync(unsigned mask, float value, int distance);
void __syncthreads();

inline float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
inline float fmaf(float a, float b, float c) {
    const float sum = __builtin_fmaf(a, b, c);
    return sum == sum ? sum : __uint_as_float(0x7fffffff);  // the one NaN that a GPU gives
}

inline float half_to_float(unsigned short bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31  ? (fraction ? __builtin_nanf("") : __builtin_inff())
                       : exponent == 0 ? __builtin_ldexpf(fraction, -24)
                                       : __builtin_ldexpf(1024 + fraction, exponent - 25);
    return bits >> 15 ? -size : size;
}
inline unsigned short float_to_half(float value) {
    const unsigned sign = __float_as_uint(value) >> 16 & 0x8000u;
    const float size = __builtin_fabsf(value);
    if (!(size < 65520.0f)) return sign | (size > 0 ? 0x7c00 : 0x7e00);  // 65520 is halfway to what does not exist
    int exponent;
    __builtin_frexpf(size, &exponent);
    if (exponent < -13 || size == 0) exponent = -13;  // subnormals all share the smallest exponent
    const float units = __builtin_nearbyintf(__builtin_ldexpf(size, 11 - exponent));
    return sign | ((exponent + 13) * 1024 + static_cast<int>(units));
}
