// y[TOKENS, n] = x[TOKENS, k] · W[n, k]ᵀ for 1 to 4 tokens, summed in fp32, W streamed once past all of them.
//
// A CTA owns ROWS rows of W; its threads stand side by side along k, 16 bytes of each row apiece, and step on together.
// A lane copies its own chunks with cp.async into its own slots of a ring STAGES deep and reads back nothing else, so
// its own wait is all that the stream needs: no barrier before the end of k. Then lanes add up by shuffles and warps
// through shared memory, in one fixed order: two calls give the same bits.
//
// Macros: FORMAT (below), TOKENS, ROWS, WARPS, STAGES, and VECTOR: 1 where rows begin at multiples of 16 bytes, 0 for
// any k and address. Dynamic shared memory: 4 * SUMS * WARPS bytes, then the ring, or as much of it as rows have steps.

#define BF16 1
#define FP16 2
#define FP32 3
#define UNROLL _Pragma("unroll")
#ifndef WEIGHTS_IN_L2
#define WEIGHTS_IN_L2 "evict_first"  // they are read once: x and what comes after have more use for the room
#endif
#if FORMAT == FP32
using Element = unsigned;  // its bits
#else
using Element = unsigned short;
#endif
constexpr int THREADS = 32 * WARPS, CHUNK = 16 / sizeof(Element), STEP = THREADS * CHUNK;
constexpr int SUMS = (TOKENS == 3 ? 4 : TOKENS) * ROWS;
static_assert(SUMS <= 32 && SUMS % 4 == 0 && (ROWS & (ROWS - 1)) == 0, "add_up halves them down to one a lane");
extern __shared__ uint4 shared[];

#ifdef __CUDACC__
__device__ void copy_async(uint4* slot, const void* source) {
    unsigned long long policy;
    asm("createpolicy.fractional.L2::" WEIGHTS_IN_L2 ".b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(slot))),
                 "l"(source), "l"(policy)
                 : "memory");
}
__device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int YOUNGER> __device__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(YOUNGER) : "memory"); }
__device__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

__device__ float widen(unsigned bits) {
    return FORMAT == FP32 ? __uint_as_float(bits) : FORMAT == BF16 ? __uint_as_float(bits << 16) : half_to_float(bits);
}
__device__ Element narrow(float value) {
    const unsigned bits = __float_as_uint(value);
    if (FORMAT == FP32) return bits;
    if (FORMAT == FP16) return float_to_half(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN, which the carry below could turn into a number
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;      // to nearest, ties to even
}

// Element i of a chunk lies in its word i / PACKED, the even one of two in the lower half.
constexpr int PACKED = CHUNK / 4;
__device__ void unpack(uint4 chunk, float (&value)[CHUNK]) {
    const unsigned word[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
    UNROLL for (int i = 0; i < CHUNK; ++i) value[i] = widen(word[i / PACKED] >> 16 * (i % PACKED));
}
// The chunk at `row` + `at`, with zeros behind the end of the row at `k`.
__device__ uint4 gather(const Element* row, long long at, long long k) {
    unsigned word[4] = {};
    UNROLL for (int i = 0; i < CHUNK; ++i)
        if (at + i < k) word[i / PACKED] |= static_cast<unsigned>(row[at + i]) << 16 * (i % PACKED);
    return {word[0], word[1], word[2], word[3]};
}

// At each distance a lane hands over half of its sums until one is left: SUMS - 1 shuffles instead of 5 * SUMS. In the
// end total[0] of lane i is the warp's sum i / (32 / SUMS).
template <int LEFT> __device__ void add_up(float (&total)[SUMS], int lane) {
    constexpr int half = LEFT / 2, distance = 32 * half / SUMS;
    if constexpr (half > 0) {
        UNROLL for (int i = 0; i < half; ++i) {
            const float low = total[i], high = total[i + half];
            total[i] = lane & distance ? high : low;
            total[i] += __shfl_xor_sync(0xffffffffu, lane & distance ? low : high, distance);
        }
        add_up<half>(total, lane);
    } else {
        UNROLL for (int d = 16 / SUMS; d > 0; d /= 2) total[0] += __shfl_xor_sync(0xffffffffu, total[0], d);
    }
}

// 512 threads an SM, 128 registers each: left to itself ptxas spills some to fit more CTAs than memory has use for.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    gemv(const Element* x, const Element* weight, Element* out, long long n, long long k) {
    const int thread = threadIdx.x, lane = thread % 32, chunks = static_cast<int>((k + CHUNK - 1) / CHUNK);
    const int steps = (chunks - thread + THREADS - 1) / THREADS;  // of this lane
    const long long first = static_cast<long long>(blockIdx.x) * ROWS;
    float* partial = reinterpret_cast<float*>(shared);
    uint4* ring = shared + SUMS * WARPS / 4 + thread;

    const Element* row[ROWS];  // n * k passes 2^31 in lm_heads; the last CTA may read the last row twice
    UNROLL for (int r = 0; r < ROWS; ++r) row[r] = weight + (first + r < n ? first + r : n - 1) * k;
    long long ahead = thread * CHUNK, behind = ahead;
    const auto fetch = [&](int step) {
        UNROLL for (int r = 0; step < steps && r < ROWS; ++r) {
            uint4* slot = ring + (step % STAGES * ROWS + r) * THREADS;
            if constexpr (VECTOR) copy_async(slot, row[r] + ahead);
            else *slot = gather(row[r], ahead, k);
        }
        commit();
        ahead += STEP;
    };
    uint4 inputs[TOKENS] = {};
    const auto read_x = [&](int step) {
        UNROLL for (int t = 0; step < steps && t < TOKENS; ++t) {
            if constexpr (VECTOR) inputs[t] = __ldg(reinterpret_cast<const uint4*>(x + t * k + behind));
            else inputs[t] = gather(x + t * k, behind, k);
        }
        behind += STEP;
    };

    UNROLL for (int step = 0; step < STAGES; ++step) fetch(step);
    read_x(0);
    float total[SUMS] = {};
    for (int step = 0; step < steps; ++step) {
        wait<STAGES - 1>();
        float values[TOKENS][CHUNK];
        UNROLL for (int t = 0; t < TOKENS; ++t) unpack(inputs[t], values[t]);
        read_x(step + 1);  // in flight during the arithmetic and the next wait
        UNROLL for (int r = 0; r < ROWS; ++r) {
            float weights[CHUNK];
            unpack(ring[(step % STAGES * ROWS + r) * THREADS], weights);
            UNROLL for (int i = 0; i < TOKENS * CHUNK; ++i) {
                float& sum = total[i / CHUNK * ROWS + r];
                sum = fmaf(weights[i % CHUNK], values[i / CHUNK][i % CHUNK], sum);
            }
        }
        fetch(step + STAGES);  // into the slots that were just read
    }

    add_up<SUMS>(total, lane);
    if (lane % (32 / SUMS) == 0) partial[thread / (32 / SUMS)] = total[0];
    __syncthreads();
    if (thread < TOKENS * ROWS && first + thread % ROWS < n) {
        float sum = 0;
        UNROLL for (int warp = 0; warp < WARPS; ++warp) sum += partial[warp * SUMS + thread];
        out[thread / ROWS * n + first + thread % ROWS] = narrow(sum);
    }
}
