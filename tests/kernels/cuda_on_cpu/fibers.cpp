// Runs a grid one CTA after another, the threads of a CTA as fibers that change over at shuffles and barriers.
#include "shim.h"

#include <cstring>
#include <deque>
#include <memory>
#include <ucontext.h>
#include <vector>

using Kernel = void (*)(const void*, const void*, void*, long long, long long);
struct Copy {
    uint4* slot;
    const void* source;
};
struct Range {
    const char* begin;
    long long bytes;
};
struct Fiber {
    ucontext_t context;
    std::deque<std::vector<Copy>> groups;  // committed and not waited for, oldest first
    std::vector<Copy> open;
    int shuffles = 0, barriers = 0, late = 0, target = 0;
    const int* counter = nullptr;  // of what it waits for, up to `target`
    bool done = false;
};
struct Warp {
    float values[2][32];
    int arrived = 0;
};

constexpr int MOST_SHARED = 232448, GUARD = 4096, STACK = 65536, LATE = 16;
uint4 shared[(MOST_SHARED + GUARD) / sizeof(uint4)];
Index threadIdx, blockIdx;

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static std::vector<std::unique_ptr<char[]>> stacks;
static ucontext_t scheduler;
static long long shared_bytes;
static int arrived, progress;
static Range readable[2];
static const char* fault;
static Kernel kernel;
static const void *x, *weight;
static void* out;
static long long n, k;

static void blame(bool wrong, const char* what) {
    if (wrong && !fault) fault = what;
}
static Fiber& current() { return fibers[threadIdx.x]; }
// Lets others run until `counter` has reached `target`, and for `late` rounds.
static void yield(const int* counter, int target, int late = 0) {
    const unsigned me = threadIdx.x;
    fibers[me].counter = counter, fibers[me].target = target, fibers[me].late = late;
    swapcontext(&fibers[me].context, &scheduler);
    threadIdx.x = me;
}
static bool ready(Fiber& fiber) {
    if (fiber.done) return false;
    if (fiber.late > 0) return --fiber.late, ++progress, false;
    return !fiber.counter || *fiber.counter >= fiber.target;
}
static bool inside(const void* source) {
    for (const Range& range : readable)
        if (source >= range.begin && static_cast<const char*>(source) + 16 <= range.begin + range.bytes) return true;
    return false;
}

void copy_async(uint4* slot, const void* source) {
    const auto at = reinterpret_cast<char*>(slot) - reinterpret_cast<char*>(shared);
    const bool fits = at >= 0 && at + 16 <= shared_bytes;
    blame(!fits, "copies to outside of its shared memory");
    blame(!inside(source), "copies from outside of its operands");
    blame(at % 16 != 0 || reinterpret_cast<std::uintptr_t>(source) % 16 != 0, "copies between misaligned addresses");
    for (const auto& group : current().groups)
        for (const Copy& copy : group) blame(copy.slot == slot, "refills a slot that is still being filled");
    if (!fits || !inside(source)) return;
    std::memset(slot, 0xff, 16);
    current().open.push_back({slot, source});
}
void commit() {
    current().groups.push_back({});
    current().groups.back().swap(current().open);
}
void wait_for_all_but(int younger) {
    const int warp = threadIdx.x / 32;  // the first falls behind in even CTAs, the last in odd ones
    yield(nullptr, 0, LATE * (blockIdx.x % 2 ? warp : static_cast<int>(warps.size()) - 1 - warp));
    for (auto& groups = current().groups; static_cast<int>(groups.size()) > younger; groups.pop_front())
        for (const Copy& copy : groups.front()) std::memcpy(copy.slot, copy.source, 16);
}

uint4 __ldg(const uint4* source) {
    blame(!inside(source), "reads outside of its operands");
    blame(reinterpret_cast<std::uintptr_t>(source) % 16 != 0, "reads 16 bytes at a misaligned address");
    uint4 value;
    std::memset(&value, 0xff, 16);
    if (inside(source)) std::memcpy(&value, source, 16);
    return value;
}

// Lanes put their values into one of two buffers in turn: nobody is two shuffles ahead of another.
float __shfl_xor_sync(unsigned mask, float value, int distance) {
    blame(mask != 0xffffffffu, "shuffles among part of a warp");
    Warp& warp = warps[threadIdx.x / 32];
    const int lane = threadIdx.x % 32, turn = current().shuffles++;
    warp.values[turn % 2][lane] = value;
    ++warp.arrived;
    yield(&warp.arrived, 32 * (turn + 1));
    return warp.values[turn % 2][lane ^ distance];
}
void __syncthreads() {
    const int turn = current().barriers++;
    ++arrived;
    yield(&arrived, static_cast<int>(fibers.size()) * (turn + 1));
}

static void body() {
    kernel(x, weight, out, n, k);
    Fiber& me = current();
    for (const auto& group : me.groups) blame(!group.empty(), "ends with copies in flight");
    me.done = true;
}

static void run_cta(int threads) {
    std::memset(shared, 0xff, shared_bytes + GUARD);
    fibers.assign(threads, {});
    warps.assign(threads / 32, {});
    arrived = 0;
    for (int i = 0; i < threads; ++i) {
        if (i >= static_cast<int>(stacks.size())) stacks.emplace_back(new char[STACK]);
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack = {stacks[i].get(), 0, STACK};
        fibers[i].context.uc_link = &scheduler;
        makecontext(&fibers[i].context, body, 0);
    }
    do {
        progress = 0;
        for (int i = 0; i < threads; ++i) {  // even CTAs from the first thread on, odd ones from the last
            threadIdx.x = blockIdx.x % 2 ? threads - 1 - i : i;
            if (ready(current())) ++progress, swapcontext(&scheduler, &current().context);
        }
    } while (progress > 0);
    for (const Fiber& fiber : fibers) blame(!fiber.done, "waits for threads that never come");
    for (int i = 0; i < GUARD; ++i)
        blame(reinterpret_cast<unsigned char*>(shared)[shared_bytes + i] != 0xff, "writes behind its shared memory");
}

// Runs the kernel and returns what it did wrong, or null.
extern "C" const char* launch(Kernel the_kernel, int grid, int threads, int dynamic_bytes, const void* the_x,
                              long long x_bytes, const void* the_weight, long long weight_bytes, void* the_out,
                              long long the_n, long long the_k) {
    if (dynamic_bytes > MOST_SHARED) return "asks for more shared memory than any GPU has";
    kernel = the_kernel, x = the_x, weight = the_weight, out = the_out, n = the_n, k = the_k;
    readable[0] = {static_cast<const char*>(the_x), x_bytes};
    readable[1] = {static_cast<const char*>(the_weight), weight_bytes};
    shared_bytes = dynamic_bytes;
    fault = nullptr;
    for (int i = 0; i < grid && !fault; ++i) {
        blockIdx.x = i;
        run_cta(threads);
    }
    return fault;
}
