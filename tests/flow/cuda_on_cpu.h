// Runs CUDA kernels on a CPU, for tests: included before their source.
//
// Each thread of the grid is a fiber (ucontext), and all blocks are under way at once, as in a
// cooperative launch. A fiber runs until it has to wait: at __syncthreads, at a warp shuffle, in a
// spin loop (__nanosleep). Then another one goes on, in an order drawn anew for each round from
// `seed`, and with pauses of whole blocks: a result that depends on the seed shows that a barrier
// is missing. Shared memory begins as NaN, with a margin of canaries behind it. What would be wrong on
// a GPU ends the launch with a message: a barrier or a shuffle that only some threads reach, and a
// wait without end.
#pragma once
#define CUDA_ON_CPU

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::max;
using std::min;

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace cuda_on_cpu {
namespace {  // of its own in each library

constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t CANARY_BYTES = 4096;
constexpr unsigned CANARY = 0xffc0ffeeu;  // a NaN
constexpr int WARP_SIZE = 32;

struct Block;
struct Warp {
    int arrived = 0;
    unsigned generation = 0;
    float values[2][WARP_SIZE];
    int distances[2];
};
struct Fiber {
    ucontext_t context;
    Block* block;
    dim3 thread;
    enum { READY, AT_BARRIER, IN_WARP, DONE } state = READY;
    unsigned waits_for;
};
struct Block {
    dim3 index;
    std::vector<float4> shared;
    size_t shared_bytes;
    unsigned generation = 0;
    int arrived = 0, done = 0, size = 0;
    std::vector<Warp> warps;
};

inline Fiber* current;
inline ucontext_t scheduler;
inline dim3 grid_size, block_size;
inline std::string failure;
inline void (*body)();
inline long long num_spins;

inline void leave() { swapcontext(&current->context, &scheduler); }

inline void fail(const char* message) {
    if (failure.empty()) {
        failure = std::string(message) + " in thread " + std::to_string(current->thread.x) +
                  " of block " + std::to_string(current->block->index.x);
    }
    leave();  // for ever
}

inline void run_fiber() {
    body();
    current->state = Fiber::DONE;
    Block& block = *current->block;
    ++block.done;
    if (block.arrived > 0) fail("a thread ended while others wait for it at a barrier");
    leave();
}

inline void synchronize() {
    Block& block = *current->block;
    if (block.done > 0) fail("a barrier that some threads never reach");
    if (++block.arrived == block.size) {
        block.arrived = 0;
        ++block.generation;
        return leave();  // the last one to come is not always the first to go on
    }
    current->waits_for = block.generation + 1;
    current->state = Fiber::AT_BARRIER;
    leave();
}

inline float shuffle_xor(unsigned mask, float value, int distance) {
    if (mask != 0xffffffffu) fail("a shuffle of a part of a warp");
    const int lane = current->thread.x % WARP_SIZE;
    Warp& warp = current->block->warps[current->thread.x / WARP_SIZE];
    // Two sets of values, since some lanes are at the next shuffle before others have read.
    const unsigned generation = warp.generation;
    warp.values[generation % 2][lane] = value;
    if (warp.arrived == 0) warp.distances[generation % 2] = distance;
    if (warp.distances[generation % 2] != distance) fail("lanes at different shuffles");
    if (++warp.arrived == WARP_SIZE) {
        warp.arrived = 0;
        ++warp.generation;
    } else {
        current->waits_for = generation + 1;
        current->state = Fiber::IN_WARP;
        leave();
    }
    return warp.values[generation % 2][lane ^ distance];
}

inline bool can_run(Fiber& fiber) {
    const Block& block = *fiber.block;
    if (fiber.state == Fiber::AT_BARRIER && block.generation == fiber.waits_for)
        fiber.state = Fiber::READY;
    if (fiber.state == Fiber::IN_WARP &&
        block.warps[fiber.thread.x / WARP_SIZE].generation == fiber.waits_for)
        fiber.state = Fiber::READY;
    return fiber.state == Fiber::READY;
}

// Returns what went wrong, or an empty text.
inline std::string launch(
    void (*kernel)(), unsigned num_blocks, unsigned num_threads, size_t shared_bytes, unsigned seed
) {
    failure.clear();
    body = kernel;
    grid_size = {num_blocks, 1, 1};
    block_size = {num_threads, 1, 1};
    num_spins = 0;
    if (num_threads % WARP_SIZE != 0) return "blocks must be of whole warps";
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<Block> blocks(num_blocks);
    std::vector<Fiber> fibers(static_cast<size_t>(num_blocks) * num_threads);
    const size_t stacks_bytes = fibers.size() * STACK_BYTES;
    char* stacks = static_cast<char*>(mmap(
        nullptr, stacks_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
        -1, 0
    ));
    if (stacks == MAP_FAILED) return "no memory for the stacks";
    std::vector<Fiber*> order;
    for (unsigned b = 0; b < num_blocks; ++b) {
        Block& block = blocks[b];
        block.index = {b, 0, 0};
        block.size = static_cast<int>(num_threads);
        block.warps.resize(num_threads / WARP_SIZE);
        block.shared_bytes = shared_bytes;
        block.shared.assign(
            (shared_bytes + CANARY_BYTES + 15) / 16, make_float4(nan, nan, nan, nan)
        );
        char* canary = reinterpret_cast<char*>(block.shared.data()) + shared_bytes;
        for (size_t i = 0; i < CANARY_BYTES; i += 4) memcpy(canary + i, &CANARY, 4);
        for (unsigned t = 0; t < num_threads; ++t) {
            Fiber& fiber = fibers[static_cast<size_t>(b) * num_threads + t];
            fiber.block = &block;
            fiber.thread = {t, 0, 0};
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = stacks + (&fiber - fibers.data()) * STACK_BYTES;
            fiber.context.uc_stack.ss_size = STACK_BYTES;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, run_fiber, 0);
            order.push_back(&fiber);
        }
    }
    std::mt19937 random(seed);
    std::vector<bool> is_paused(num_blocks, false);
    while (!order.empty() && failure.empty()) {
        if (seed > 0) {
            std::shuffle(order.begin(), order.end(), random);
            // Every now and then other blocks stand still, so that some are far behind others.
            if (random() % 32 == 0)
                for (unsigned b = 0; b < num_blocks; ++b) is_paused[b] = random() % 2 != 0;
        }
        bool any = false;
        for (Fiber* fiber : order) {
            if (is_paused[fiber->block->index.x] || !can_run(*fiber)) continue;
            any = true;
            current = fiber;
            swapcontext(&scheduler, &fiber->context);
            if (!failure.empty()) break;
        }
        const bool all_may = std::count(is_paused.begin(), is_paused.end(), true) == 0;
        if (!any && all_may) failure = "all threads wait";
        if (!any) std::fill(is_paused.begin(), is_paused.end(), false);
        order.erase(
            std::remove_if(
                order.begin(), order.end(), [](Fiber* f) { return f->state == Fiber::DONE; }
            ),
            order.end()
        );
    }
    for (Block& block : blocks) {
        const char* canary = reinterpret_cast<const char*>(block.shared.data()) + shared_bytes;
        for (size_t i = 0; i < CANARY_BYTES && failure.empty(); i += 4)
            if (memcmp(canary + i, &CANARY, 4) != 0) failure = "written behind shared memory";
    }
    munmap(stacks, stacks_bytes);
    return failure;
}

// Memory that ends at a page that may not be touched; or begins behind one.
inline void* guarded(size_t bytes, bool at_end) {
    const size_t page = 4096, size = (bytes + page - 1) / page * page;
    char* memory = static_cast<char*>(mmap(
        nullptr, size + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
    ));
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, page, PROT_NONE);
    mprotect(memory + page + size, page, PROT_NONE);
    return memory + page + (at_end ? size - bytes : 0);
}

}  // namespace
}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::current->thread)
#define blockIdx (cuda_on_cpu::current->block->index)
#define gridDim (cuda_on_cpu::grid_size)
#define blockDim (cuda_on_cpu::block_size)
#define shared_memory (cuda_on_cpu::current->block->shared.data())

inline void __syncthreads() { cuda_on_cpu::synchronize(); }
inline void __threadfence() {}
inline void __trap() { cuda_on_cpu::fail("a trap"); }
inline void __nanosleep(unsigned) {
    if (++cuda_on_cpu::num_spins > 50'000'000) cuda_on_cpu::fail("a wait without end");
    cuda_on_cpu::leave();
}
inline float __shfl_xor_sync(unsigned mask, float value, int distance) {
    return cuda_on_cpu::shuffle_xor(mask, value, distance);
}
inline unsigned atomicAdd(unsigned* place, unsigned value) {
    const unsigned before = *place;
    *place += value;
    return before;
}
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float approximate_sqrt(float x) { return sqrtf(x); }
inline float approximate_reciprocal(float x) { return 1.0f / x; }

// ---- NVIDIA's driver, as far as flowprep/flow/nvrtc.py uses it

namespace cuda_on_cpu {
namespace {  // of its own in each library

struct Kernel {
    const char* name;
    void (*body)();
    const void** argument;
    size_t allowed_shared_bytes;
};
inline std::vector<Kernel*> kernels;
inline unsigned seed = 0;
inline int num_multiprocessors = 1;
inline int most_blocks = 1;                  // that this process may run, as under MPS
inline int has_cooperative_launch = 1;
inline int most_shared_bytes = 99 << 10;     // of a block, as of the RTX 30
inline int load_error = 0;                   // of the next modules
inline int context_depth = 0;

inline int launch_kernel(
    Kernel* kernel, const unsigned (&shape)[7], void* stream, void** arguments
) {
    if (context_depth != 1) return 201;  // CUDA_ERROR_INVALID_CONTEXT
    if (shape[1] != 1 || shape[2] != 1 || shape[4] != 1 || shape[5] != 1 || stream != nullptr)
        return 1;  // CUDA_ERROR_INVALID_VALUE
    if (shape[0] == 0 || shape[3] == 0 || shape[3] > 1024) return 1;
    if (shape[6] > kernel->allowed_shared_bytes) return 701;  // ..._LAUNCH_OUT_OF_RESOURCES
    *kernel->argument = arguments[0];
    failure = launch(kernel->body, shape[0], shape[3], shape[6], seed);
    return failure.empty() ? 0 : 719;  // CUDA_ERROR_LAUNCH_FAILED
}

}  // namespace
}  // namespace cuda_on_cpu

// Makes a kernel known to the driver.
#define CUDA_ON_CPU_KERNEL(name, Arguments)                                                       \
    namespace {                                                                                   \
    const void* name##_argument;                                                                  \
    cuda_on_cpu::Kernel name##_kernel{                                                            \
        #name, [] { name(*static_cast<const Arguments*>(name##_argument)); }, &name##_argument,   \
        48 << 10                                                                                  \
    };                                                                                            \
    const bool name##_is_known = (cuda_on_cpu::kernels.push_back(&name##_kernel), true);          \
    }                                                                                             \
    extern "C" size_t name##_argument_bytes() { return sizeof(Arguments); }

extern "C" {
// One block at a time runs on a multiprocessor. Order 0 of the threads is that of their numbers.
void simulate(unsigned seed, int num_multiprocessors) {
    cuda_on_cpu::seed = seed;
    cuda_on_cpu::num_multiprocessors = cuda_on_cpu::most_blocks = num_multiprocessors;
    cuda_on_cpu::has_cooperative_launch = 1;
    cuda_on_cpu::most_shared_bytes = 99 << 10;
    cuda_on_cpu::load_error = 0;
}
// After `simulate`: a GPU with limits.
void simulate_limits(
    int most_blocks, int has_cooperative_launch, int most_shared_bytes, int load_error
) {
    cuda_on_cpu::most_blocks = most_blocks;
    cuda_on_cpu::has_cooperative_launch = has_cooperative_launch;
    cuda_on_cpu::most_shared_bytes = most_shared_bytes;
    cuda_on_cpu::load_error = load_error;
}
void* guarded_memory(size_t bytes, int at_end) { return cuda_on_cpu::guarded(bytes, at_end != 0); }

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 12040, 0; }
int cuDeviceGet(int* device, int number) { return *device = number, number == 0 ? 0 : 101; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    if (attribute == 16) return *value = cuda_on_cpu::num_multiprocessors, 0;
    if (attribute == 95) return *value = cuda_on_cpu::has_cooperative_launch, 0;
    if (attribute == 97) return *value = cuda_on_cpu::most_shared_bytes, 0;
    return 1;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    return *context = &cuda_on_cpu::context_depth, 0;
}
int cuCtxPushCurrent_v2(void* context) {
    ++cuda_on_cpu::context_depth;
    return context == &cuda_on_cpu::context_depth ? 0 : 201;
}
int cuCtxPopCurrent_v2(void**) { return cuda_on_cpu::context_depth-- > 0 ? 0 : 201; }
int cuModuleLoadData(void** module, const char* image) {
    *module = nullptr;
    if (cuda_on_cpu::load_error != 0) return cuda_on_cpu::load_error;
    return cuda_on_cpu::context_depth == 1 ? 0 : 201;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
    for (cuda_on_cpu::Kernel* kernel : cuda_on_cpu::kernels)
        if (strcmp(kernel->name, name) == 0) return *function = kernel, 0;
    return 500;  // CUDA_ERROR_NOT_FOUND
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute == 9) return value == 100 ? 0 : 1;
    if (attribute != 8 || value > cuda_on_cpu::most_shared_bytes) return 1;
    static_cast<cuda_on_cpu::Kernel*>(function)->allowed_shared_bytes = value;
    return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* count, void*, int, size_t) {
    return *count = 1, cuda_on_cpu::context_depth == 1 ? 0 : 201;
}
int cuLaunchKernel(
    void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
    unsigned threads_z, unsigned shared_bytes, void* stream, void** arguments, void** extra
) {
    return extra != nullptr ? 1
                            : cuda_on_cpu::launch_kernel(
                                  static_cast<cuda_on_cpu::Kernel*>(kernel),
                                  {x, y, z, threads_x, threads_y, threads_z, shared_bytes}, stream,
                                  arguments
                              );
}
int cuLaunchCooperativeKernel(
    void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
    unsigned threads_z, unsigned shared_bytes, void* stream, void** arguments
) {
    // CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
    if (x > static_cast<unsigned>(cuda_on_cpu::most_blocks)) return 720;
    return cuLaunchKernel(
        kernel, x, y, z, threads_x, threads_y, threads_z, shared_bytes, stream, arguments, nullptr
    );
}
int cuGetErrorName(int error, const char** name) {
    *name = error == 719 ? cuda_on_cpu::failure.c_str() : "CUDA_ERROR_OF_THIS_NUMBER";
    return 0;
}
int cuGetErrorString(int error, const char** words) {
    *words = error == 2 ? "out of memory" : "as its name says";  // as the driver's text of error 2
    return 0;
}
}
