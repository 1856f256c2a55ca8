// TV-L1 on NVIDIA GPUs: all iterations of a warp in one launch, and the steps between the warps.
//
// The algorithm, its sources and its units are those of tvl1_level.py: flow is counted in units of
// theta/tau px, and p stands for tau p. flowprep/flow/tvl1_cuda.py compiles and launches this file,
// and explains the layout of the work. tests/flow/cuda_on_cpu.h runs this file without a GPU.
//
// Planes in global memory have rows of `pitch` numbers, a multiple of 4. The pixels are at the end
// of a row. The other `pitch - width` < 4 numbers are padding with any content. A patch is
// 4 x 4 px. Patches tile the plane from its right and lower border, so patches at the left and the
// upper border may extend beyond the image. There the flow is 0, and p takes steps of length 0, so
// p is 0 too. This gives the border values of the divergence without special cases.

constexpr int PATCH = 4;
// Iterations between two exchanges with neighboring tiles: the halo is one patch wide.
constexpr int MAX_ITERATIONS = PATCH;
// Most threads of a block. Values that a thread owns in shared memory are at this distance.
constexpr int MAX_THREADS = 192;
constexpr int NUM_STATE_PLANES = 6;
constexpr int WARP_SIZE = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr float FLOAT_EPSILON = 1.1920929e-07f;

// Looks at a barrier before the launch is given up. A look takes half a microsecond or more, so it
// takes a minute, and what blocks do between two barriers takes milliseconds.
constexpr unsigned MOST_LOOKS = 1u << 27;

// The stop rule; see tvl1_level.py for the constants.
constexpr int FIRST_BATCH = 3;
constexpr float SLOWEST_DECAY = 0.005f;

#ifndef CUDA_ON_CPU
extern __shared__ float4 shared_memory[];

// At most 2 units in the last place off. Correct rounding would take six times as long.
__device__ __forceinline__ float approximate_sqrt(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float approximate_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// Mirrored by Arguments in tvl1_cuda.py.
struct SolveArguments {
    float* flow;                  // (fields, 2, height, pitch) px
    float* dual;                  // (fields, 4, height, pitch): p11, p12, p21, p22
    const float* gradient;        // (fields, 2, height, pitch) per px
    const float* residual;        // (fields, height, pitch)
    float* exchange;              // (groups, 2, 6, height, pitch)
    float* errors;                // (groups, 2, tiles, MAX_ITERATIONS)
    unsigned* counters;           // (1 + groups, 32): fields taken; arrivals and field of a group
    int* num_iterations;          // (fields)
    int num_fields, width, height, pitch;
    int tile_columns, tile_rows;  // of a tile, in patches
    int tiles_x, tiles_y;
    int blocks_per_group;
    int median, inner_iterations, outer_iterations, is_exact;
    float unit_px, tau, limit, stop_error;
};

struct Patch {
    float u1[PATCH][PATCH], u2[PATCH][PATCH];
    float p11[PATCH][PATCH], p12[PATCH][PATCH], p21[PATCH][PATCH], p22[PATCH][PATCH];
};

// The borders of patches, which the threads of a block exchange. There is a slot for each patch,
// and one more column and one more row of slots. Each array holds lines of four pixels.
struct Slots {
    float4 *left_u1, *left_u2;      // the left column, for the left neighbor
    float4 *top_u1, *top_u2;        // the top row, for the upper neighbor
    float4 *right_p11, *right_p21;  // the right column: in the slot of the right neighbor
    float4 *bottom_p12, *bottom_p22;  // the bottom row: in the slot of the lower neighbor
    float4* data_term;              // 16 per thread, MAX_THREADS apart
    float* errors;                  // MAX_ITERATIONS per thread, MAX_THREADS apart
    float* sums;                    // MAX_ITERATIONS
    unsigned* field;
};

__device__ __forceinline__ Slots place_slots(int num_slots) {
    Slots s;
    float4* next = shared_memory;
    s.left_u1 = next, next += num_slots;
    s.left_u2 = next, next += num_slots;
    s.top_u1 = next, next += num_slots;
    s.top_u2 = next, next += num_slots;
    s.right_p11 = next, next += num_slots;
    s.right_p21 = next, next += num_slots;
    s.bottom_p12 = next, next += num_slots;
    s.bottom_p22 = next, next += num_slots;
    s.data_term = next, next += 4 * PATCH * MAX_THREADS;
    s.errors = reinterpret_cast<float*>(next), next += MAX_THREADS * MAX_ITERATIONS / 4;
    s.sums = reinterpret_cast<float*>(next), next += 1;
    s.field = reinterpret_cast<unsigned*>(next);
    return s;
}

// The position of a thread's patch.
struct Place {
    int slot;
    int offset;   // of its first pixel in a plane, from row 0: negative above the image
    int first_y;  // may be negative
    int num_pads_x;  // number of its columns that are left of the image
    bool is_live;    // it has pixels of the image
    bool is_owned;   // its result comes from this tile, not from another
    bool is_strip;   // owned, and in the halo of another tile
    bool is_right_end, is_bottom_end;  // at the end of the tile or of the image
};

__device__ __forceinline__ Place place_patch(const SolveArguments& a, int tile) {
    Place place;
    const int column = threadIdx.x % a.tile_columns, row = threadIdx.x / a.tile_columns;
    const int tile_x = tile % a.tiles_x, tile_y = tile / a.tiles_x;
    const int num_columns = a.pitch / PATCH, num_rows = (a.height + PATCH - 1) / PATCH;
    const int x = tile_x * (a.tile_columns - 2) + column;
    const int y = tile_y * (a.tile_rows - 2) + row;
    // The outermost patches of a tile are its halo, except at the border of the image.
    const int from_left = column - (tile_x > 0), from_top = row - (tile_y > 0);
    const int to_right = a.tile_columns - 1 - (tile_x < a.tiles_x - 1) - column;
    const int to_bottom = a.tile_rows - 1 - (tile_y < a.tiles_y - 1) - row;
    place.slot = row * (a.tile_columns + 1) + column;
    place.first_y = y * PATCH - (num_rows * PATCH - a.height);
    place.offset = place.first_y * a.pitch + x * PATCH;
    place.num_pads_x = x == 0 ? a.pitch - a.width : 0;
    place.is_live = row < a.tile_rows && x < num_columns && y < num_rows;
    place.is_owned =
        place.is_live && from_left >= 0 && from_top >= 0 && to_right >= 0 && to_bottom >= 0;
    place.is_strip = place.is_owned && ((tile_x > 0 && from_left == 0) ||
                                        (tile_y > 0 && from_top == 0) ||
                                        (tile_x < a.tiles_x - 1 && to_right == 0) ||
                                        (tile_y < a.tiles_y - 1 && to_bottom == 0));
    place.is_right_end = column == a.tile_columns - 1 || x == num_columns - 1;
    place.is_bottom_end = row == a.tile_rows - 1 || y == num_rows - 1;
    return place;
}

__device__ __forceinline__ void load_plane(
    float (&values)[PATCH][PATCH], const float* plane, const Place& place, int pitch, float factor
) {
#pragma unroll
    for (int r = 0; r < PATCH; ++r) {
        float4 line = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (place.first_y + r >= 0)
            line = *reinterpret_cast<const float4*>(plane + place.offset + r * pitch);
        values[r][0] = place.num_pads_x > 0 ? 0.0f : line.x * factor;
        values[r][1] = place.num_pads_x > 1 ? 0.0f : line.y * factor;
        values[r][2] = place.num_pads_x > 2 ? 0.0f : line.z * factor;
        values[r][3] = line.w * factor;
    }
}

__device__ __forceinline__ void store_plane(
    const float (&values)[PATCH][PATCH], float* plane, const Place& place, int pitch, float factor
) {
#pragma unroll
    for (int r = 0; r < PATCH; ++r)
        if (place.first_y + r >= 0)
            *reinterpret_cast<float4*>(plane + place.offset + r * pitch) = make_float4(
                values[r][0] * factor, values[r][1] * factor, values[r][2] * factor,
                values[r][3] * factor
            );
}

// `flow` is the first of 2 planes, `dual` is the first of 4.
__device__ __forceinline__ void load_state(
    Patch& patch, const float* flow, const float* dual, const Place& place, int pitch,
    size_t plane_size, float flow_factor, float dual_factor
) {
    load_plane(patch.u1, flow, place, pitch, flow_factor);
    load_plane(patch.u2, flow + plane_size, place, pitch, flow_factor);
    load_plane(patch.p11, dual, place, pitch, dual_factor);
    load_plane(patch.p12, dual + plane_size, place, pitch, dual_factor);
    load_plane(patch.p21, dual + 2 * plane_size, place, pitch, dual_factor);
    load_plane(patch.p22, dual + 3 * plane_size, place, pitch, dual_factor);
}

__device__ __forceinline__ void store_state(
    const Patch& patch, float* flow, float* dual, const Place& place, int pitch,
    size_t plane_size, float flow_factor, float dual_factor
) {
    store_plane(patch.u1, flow, place, pitch, flow_factor);
    store_plane(patch.u2, flow + plane_size, place, pitch, flow_factor);
    store_plane(patch.p11, dual, place, pitch, dual_factor);
    store_plane(patch.p12, dual + plane_size, place, pitch, dual_factor);
    store_plane(patch.p21, dual + 2 * plane_size, place, pitch, dual_factor);
    store_plane(patch.p22, dual + 3 * plane_size, place, pitch, dual_factor);
}

// Writes the data term of a patch to shared memory, in the form for the primal step. With
// G = 2 limit unit_px gradient and R = 2 limit residual, rho times 2 limit is G.U + R, and the step
// of equation 12 is clamp(-(G.U + R) / |G|^2, -1/2, 1/2) G. Saturation does the clamp for free.
__device__ __forceinline__ void load_data_term(
    const SolveArguments& a, const Slots& s, const Place& place, size_t field, size_t plane_size
) {
    const float* gradient = a.gradient + field * 2 * plane_size;
    const float scale = 2.0f * a.limit;
    const float least = FLOAT_EPSILON * (scale * a.unit_px) * (scale * a.unit_px);
    float g1[PATCH][PATCH], g2[PATCH][PATCH], rest[PATCH][PATCH];
    load_plane(g1, gradient, place, a.pitch, scale * a.unit_px);
    load_plane(g2, gradient + plane_size, place, a.pitch, scale * a.unit_px);
    load_plane(rest, a.residual + field * plane_size, place, a.pitch, scale);
    float4* own = s.data_term + threadIdx.x;
#pragma unroll
    for (int r = 0; r < PATCH; ++r) {
        float weight[PATCH];
#pragma unroll
        for (int c = 0; c < PATCH; ++c)
            weight[c] = -approximate_reciprocal(
                fmaxf(fmaf(g1[r][c], g1[r][c], g2[r][c] * g2[r][c]), least)
            );
        own[(4 * r + 0) * MAX_THREADS] = make_float4(g1[r][0], g1[r][1], g1[r][2], g1[r][3]);
        own[(4 * r + 1) * MAX_THREADS] = make_float4(g2[r][0], g2[r][1], g2[r][2], g2[r][3]);
        own[(4 * r + 2) * MAX_THREADS] =
            make_float4(rest[r][0], rest[r][1], rest[r][2], rest[r][3]);
        own[(4 * r + 3) * MAX_THREADS] = make_float4(weight[0], weight[1], weight[2], weight[3]);
    }
}

__device__ __forceinline__ void unpack(float (&values)[PATCH], const float4& line) {
    values[0] = line.x, values[1] = line.y, values[2] = line.z, values[3] = line.w;
}

// Stores the right and lower border of p for the neighbors.
__device__ __forceinline__ void publish_dual(
    const Patch& patch, const Slots& s, int slot, int slot_below
) {
    s.right_p11[slot + 1] =
        make_float4(patch.p11[0][3], patch.p11[1][3], patch.p11[2][3], patch.p11[3][3]);
    s.right_p21[slot + 1] =
        make_float4(patch.p21[0][3], patch.p21[1][3], patch.p21[2][3], patch.p21[3][3]);
    s.bottom_p12[slot_below] =
        make_float4(patch.p12[3][0], patch.p12[3][1], patch.p12[3][2], patch.p12[3][3]);
    s.bottom_p22[slot_below] =
        make_float4(patch.p22[3][0], patch.p22[3][1], patch.p22[3][2], patch.p22[3][3]);
}

// Equations 12 and 11 of algorithm 1. Returns the patch's sum of squared changes.
__device__ __forceinline__ float primal_step(
    Patch& patch, const Slots& s, const Place& place, int slot_below
) {
    float left_p11[PATCH], left_p21[PATCH], above_p12[PATCH], above_p22[PATCH];
    unpack(left_p11, s.right_p11[place.slot]);
    unpack(left_p21, s.right_p21[place.slot]);
    unpack(above_p12, s.bottom_p12[place.slot]);
    unpack(above_p22, s.bottom_p22[place.slot]);
    const float4* own = s.data_term + threadIdx.x;
    float error = 0.0f;
#pragma unroll
    for (int r = 0; r < PATCH; ++r) {
        float g1[PATCH], g2[PATCH], rest[PATCH], weight[PATCH];
        unpack(g1, own[(4 * r + 0) * MAX_THREADS]);
        unpack(g2, own[(4 * r + 1) * MAX_THREADS]);
        unpack(rest, own[(4 * r + 2) * MAX_THREADS]);
        unpack(weight, own[(4 * r + 3) * MAX_THREADS]);
#pragma unroll
        for (int c = 0; c < PATCH; ++c) {
            const float u1 = patch.u1[r][c], u2 = patch.u2[r][c];
            const float rho = fmaf(g1[c], u1, fmaf(g2[c], u2, rest[c]));
            const float shift = __saturatef(fmaf(rho, weight[c], 0.5f)) - 0.5f;
            const float divergence_1 =
                (patch.p11[r][c] - (c > 0 ? patch.p11[r][c - 1] : left_p11[r])) +
                (patch.p12[r][c] - (r > 0 ? patch.p12[r - 1][c] : above_p12[c]));
            const float divergence_2 =
                (patch.p21[r][c] - (c > 0 ? patch.p21[r][c - 1] : left_p21[r])) +
                (patch.p22[r][c] - (r > 0 ? patch.p22[r - 1][c] : above_p22[c]));
            const float change_1 = fmaf(shift, g1[c], divergence_1);
            const float change_2 = fmaf(shift, g2[c], divergence_2);
            patch.u1[r][c] = u1 + change_1;
            patch.u2[r][c] = u2 + change_2;
            error = fmaf(change_1, change_1, fmaf(change_2, change_2, error));
        }
    }
    s.left_u1[place.slot] =
        make_float4(patch.u1[0][0], patch.u1[1][0], patch.u1[2][0], patch.u1[3][0]);
    s.left_u2[place.slot] =
        make_float4(patch.u2[0][0], patch.u2[1][0], patch.u2[2][0], patch.u2[3][0]);
    s.top_u1[place.slot] =
        make_float4(patch.u1[0][0], patch.u1[0][1], patch.u1[0][2], patch.u1[0][3]);
    s.top_u2[place.slot] =
        make_float4(patch.u2[0][0], patch.u2[0][1], patch.u2[0][2], patch.u2[0][3]);
    // Beyond the image, the flow continues with its border values.
    if (place.is_right_end) {
        s.left_u1[place.slot + 1] =
            make_float4(patch.u1[0][3], patch.u1[1][3], patch.u1[2][3], patch.u1[3][3]);
        s.left_u2[place.slot + 1] =
            make_float4(patch.u2[0][3], patch.u2[1][3], patch.u2[2][3], patch.u2[3][3]);
    }
    if (place.is_bottom_end) {
        s.top_u1[slot_below] =
            make_float4(patch.u1[3][0], patch.u1[3][1], patch.u1[3][2], patch.u1[3][3]);
        s.top_u2[slot_below] =
            make_float4(patch.u2[3][0], patch.u2[3][1], patch.u2[3][2], patch.u2[3][3]);
    }
    return error;
}

// Equation 14 of algorithm 1. The last column and the last row of a patch are always in the image.
__device__ __forceinline__ void dual_step(
    Patch& patch, const Slots& s, const Place& place, int slot_below,
    const float (&tau_x)[PATCH], const float (&tau_y)[PATCH]
) {
    float right_u1[PATCH], right_u2[PATCH], below_u1[PATCH], below_u2[PATCH];
    unpack(right_u1, s.left_u1[place.slot + 1]);
    unpack(right_u2, s.left_u2[place.slot + 1]);
    unpack(below_u1, s.top_u1[slot_below]);
    unpack(below_u2, s.top_u2[slot_below]);
#pragma unroll
    for (int r = 0; r < PATCH; ++r) {
#pragma unroll
        for (int c = 0; c < PATCH; ++c) {
            const float u1 = patch.u1[r][c], u2 = patch.u2[r][c];
            const float u1_x = (c < PATCH - 1 ? patch.u1[r][c + 1] : right_u1[r]) - u1;
            const float u2_x = (c < PATCH - 1 ? patch.u2[r][c + 1] : right_u2[r]) - u2;
            const float u1_y = (r < PATCH - 1 ? patch.u1[r + 1][c] : below_u1[c]) - u1;
            const float u2_y = (r < PATCH - 1 ? patch.u2[r + 1][c] : below_u2[c]) - u2;
            const float shrinkage_1 = approximate_reciprocal(
                1.0f + approximate_sqrt(fmaf(u1_x, u1_x, u1_y * u1_y))
            );
            const float shrinkage_2 = approximate_reciprocal(
                1.0f + approximate_sqrt(fmaf(u2_x, u2_x, u2_y * u2_y))
            );
            patch.p11[r][c] = fmaf(tau_x[c], u1_x, patch.p11[r][c]) * shrinkage_1;
            patch.p12[r][c] = fmaf(tau_y[r], u1_y, patch.p12[r][c]) * shrinkage_1;
            patch.p21[r][c] = fmaf(tau_x[c], u2_x, patch.p21[r][c]) * shrinkage_2;
            patch.p22[r][c] = fmaf(tau_y[r], u2_y, patch.p22[r][c]) * shrinkage_2;
        }
    }
}

// Runs up to MAX_ITERATIONS iterations on a tile whose patches, including its halo, are valid.
// Afterwards they are valid without the halo. The squared changes of owned patches go to s.errors.
__device__ __forceinline__ void iterate(
    Patch& patch, const SolveArguments& a, const Slots& s, const Place& place, int count
) {
    const int slot_below = place.slot + a.tile_columns + 1;
    float tau_x[PATCH], tau_y[PATCH];
#pragma unroll
    for (int k = 0; k < PATCH; ++k) {
        tau_x[k] = k < PATCH - 1 && k < place.num_pads_x ? 0.0f : a.tau;
        tau_y[k] = k < PATCH - 1 && k < -place.first_y ? 0.0f : a.tau;
    }
    if (place.is_live) publish_dual(patch, s, place.slot, slot_below);
    __syncthreads();
    for (int k = 0; k < count; ++k) {
        float error = 0.0f;
        if (place.is_live) error = primal_step(patch, s, place, slot_below);
        s.errors[k * MAX_THREADS + threadIdx.x] = place.is_owned ? error : 0.0f;
        __syncthreads();
        if (place.is_live) {
            dual_step(patch, s, place, slot_below, tau_x, tau_y);
            publish_dual(patch, s, place.slot, slot_below);
        }
        __syncthreads();
    }
}

// ---- the median filter

__device__ __forceinline__ void exchange(float& low, float& high) {
    const float least = fminf(low, high);
    high = fmaxf(low, high);
    low = least;
}

// Sorting networks as flowprep/flow/median.py builds them, without exchanges whose results are
// unused. X(i, j) puts the smaller number into place i. Comments name the places of the results.

// 16 numbers: ranks 3 to 12 are in places 2, 12, 6, 1, 10, 5, 14, 9, 3, 13.
#define SORT_16(X)                                                                                \
    X(0, 1) X(2, 3) X(0, 2) X(1, 3) X(2, 1) X(4, 5) X(6, 7) X(4, 6) X(5, 7) X(6, 5) X(0, 4)       \
    X(1, 5) X(4, 1) X(2, 6) X(3, 7) X(6, 3) X(4, 2) X(1, 6) X(5, 3) X(8, 9) X(10, 11) X(8, 10)    \
    X(9, 11) X(10, 9) X(12, 13) X(14, 15) X(12, 14) X(13, 15) X(14, 13) X(8, 12) X(9, 13)         \
    X(12, 9) X(10, 14) X(11, 15) X(14, 11) X(12, 10) X(9, 14) X(13, 11) X(0, 8) X(6, 14) X(8, 6)  \
    X(2, 10) X(3, 11) X(10, 3) X(8, 2) X(6, 10) X(14, 3) X(4, 12) X(5, 13) X(12, 5) X(1, 9)       \
    X(7, 15) X(9, 7) X(12, 1) X(5, 9) X(13, 7) X(2, 12) X(6, 1) X(10, 5) X(14, 9) X(3, 13)
// 4 numbers: sorted, they are in places 0, 2, 1, 3.
#define SORT_4(X) X(0, 1) X(2, 3) X(0, 2) X(1, 3) X(2, 1)
// 10 sorted and 4 sorted numbers: ranks 4 to 9 of all are in places 2, 3, 4, 5, 13, 12.
#define MERGE_10_4(X)                                                                             \
    X(0, 11) X(11, 8) X(11, 4) X(2, 13) X(13, 6) X(11, 2) X(4, 13) X(1, 10) X(10, 9) X(10, 5)     \
    X(3, 12) X(12, 7) X(10, 3) X(5, 12) X(2, 3) X(4, 5) X(13, 12)
// 6 sorted and 4 sorted numbers: ranks 4 and 5 of all are in places 2, 3.
#define MERGE_6_4(X)                                                                              \
    X(0, 7) X(7, 4) X(2, 9) X(7, 2) X(1, 6) X(6, 5) X(3, 8) X(6, 3) X(2, 3)
// 9 numbers: the median is in place 4 (Smith, "Implementing median filters", 1996).
#define MEDIAN_9(X)                                                                               \
    X(1, 2) X(4, 5) X(7, 8) X(0, 1) X(3, 4) X(6, 7) X(1, 2) X(4, 5) X(7, 8) X(0, 3) X(5, 8)       \
    X(4, 7) X(3, 6) X(1, 4) X(2, 5) X(4, 7) X(4, 2) X(6, 4) X(4, 2)
#define EXCHANGE(i, j) exchange(v[i], v[j]);

__device__ __forceinline__ void sort_4(float (&v)[4]) {
    SORT_4(EXCHANGE)
    const float second = v[2];
    v[2] = v[1], v[1] = second;
}

// The median of 25 numbers. `middle` are ranks 7 to 12 of 20 of the numbers. `row` (sorted) and
// `corner` are the others.
__device__ __forceinline__ float median_25(
    const float (&middle)[6], const float (&row)[4], float corner
) {
    float v[10] = {middle[0], middle[1], middle[2], middle[3], middle[4], middle[5],
                   row[0],    row[1],    row[2],    row[3]};
    MERGE_6_4(EXCHANGE)
    return fmaxf(v[2], fminf(v[3], corner));
}

// Ranks 7 to 12 of 20 numbers. `core` are ranks 3 to 12 of 16 of them; `side` (sorted) the others.
__device__ __forceinline__ void merge_side(
    float (&middle)[6], const float (&core)[10], const float (&side)[4]
) {
    float v[14] = {core[0], core[1], core[2], core[3], core[4], core[5], core[6],
                   core[7], core[8], core[9], side[0], side[1], side[2], side[3]};
    MERGE_10_4(EXCHANGE)
    middle[0] = v[2], middle[1] = v[3], middle[2] = v[4];
    middle[3] = v[5], middle[4] = v[13], middle[5] = v[12];
}

// The medians of the 2 x 2 windows of 5 x 5 in 6 x 6 pixels. Same method as median.py, but nothing
// is shared with the next tile.
__device__ __forceinline__ void median_tile_5(const float (&in)[6][6], float (&out)[2][2]) {
    float v[16];
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) v[4 * r + c] = in[r + 1][c + 1];
    SORT_16(EXCHANGE)
    const float core[10] = {v[2], v[12], v[6], v[1], v[10], v[5], v[14], v[9], v[3], v[13]};
    float top[4] = {in[0][1], in[0][2], in[0][3], in[0][4]};
    float bottom[4] = {in[5][1], in[5][2], in[5][3], in[5][4]};
    sort_4(top);
    sort_4(bottom);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        float side[4] = {in[1][5 * c], in[2][5 * c], in[3][5 * c], in[4][5 * c]};
        float middle[6];
        sort_4(side);
        merge_side(middle, core, side);
        out[0][c] = median_25(middle, top, in[0][5 * c]);
        out[1][c] = median_25(middle, bottom, in[5][5 * c]);
    }
}

__device__ __forceinline__ void median_tile_3(const float (&in)[6][6], float (&out)[2][2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float v[9];
#pragma unroll
            for (int k = 0; k < 9; ++k) v[k] = in[r + 1 + k / 3][c + 1 + k % 3];
            MEDIAN_9(EXCHANGE)
            out[r][c] = v[4];
        }
}

// Sets one plane of a patch to the median of `plane`, with a replicated border, times `factor`.
// `scratch` is four slots that only this thread uses.
__device__ __forceinline__ void filter_plane(
    float (&values)[PATCH][PATCH], const SolveArguments& a, const float* plane, const Place& place,
    float factor, float4* const (&scratch)[4]
) {
    const int first_x = (place.offset - place.first_y * a.pitch) - (a.pitch - a.width);
    const float* image = plane + (a.pitch - a.width);
    // Not unrolled: the network has 256 minima and maxima.
#pragma unroll 1
    for (int part = 0; part < 4; ++part) {
        const int x = first_x + part % 2 * 2 - 2, y = place.first_y + part / 2 * 2 - 2;
        int columns[6];
#pragma unroll
        for (int c = 0; c < 6; ++c) columns[c] = min(max(x + c, 0), a.width - 1);
        float in[6][6], out[2][2];
#pragma unroll
        for (int r = 0; r < 6; ++r) {
            const float* line = image + min(max(y + r, 0), a.height - 1) * a.pitch;
#pragma unroll
            for (int c = 0; c < 6; ++c) in[r][c] = line[columns[c]];
        }
        if (a.median == 5)
            median_tile_5(in, out);
        else
            median_tile_3(in, out);
        scratch[part][place.slot] = make_float4(out[0][0], out[0][1], out[1][0], out[1][1]);
    }
#pragma unroll
    for (int part = 0; part < 4; ++part) {
        const float4 out = scratch[part][place.slot];
        const int r = part / 2 * 2, c = part % 2 * 2;
        values[r][c] = out.x, values[r][c + 1] = out.y;
        values[r + 1][c] = out.z, values[r + 1][c + 1] = out.w;
    }
#pragma unroll
    for (int r = 0; r < PATCH; ++r)
#pragma unroll
        for (int c = 0; c < PATCH; ++c) {
            const bool is_outside = c < place.num_pads_x || place.first_y + r < 0;
            values[r][c] = is_outside ? 0.0f : values[r][c] * factor;
        }
}

// Filters the flow of a patch. During the call, only this thread uses its slots.
__device__ __forceinline__ void filter_flow(
    Patch& patch, const SolveArguments& a, const Slots& s, const Place& place, const float* flow,
    size_t plane_size, float factor
) {
    float4* const scratch[4] = {s.left_u1, s.left_u2, s.top_u1, s.top_u2};
    filter_plane(patch.u1, a, flow, place, factor, scratch);
    filter_plane(patch.u2, a, flow + plane_size, place, factor, scratch);
}

// ---- cooperation of the blocks of a group

// Waits until all blocks of the group are here, and makes their writes visible. Same method as
// cooperative groups. All blocks run at once, because the launch is cooperative. If they do not all
// come, the launch fails: it would otherwise hold the GPU, which no other process could free.
__device__ __forceinline__ void wait_for_group(unsigned* arrivals, unsigned expected) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrivals, 1u);
        unsigned num_looks = 0;
        while (*reinterpret_cast<volatile unsigned*>(arrivals) < expected) {
            if (++num_looks == MOST_LOOKS) __trap();
            __nanosleep(20);
        }
        __threadfence();
    }
    __syncthreads();
}

// The sum over the lanes of a warp, in a fixed order.
__device__ __forceinline__ float sum_lanes(float value) {
#pragma unroll
    for (int distance = WARP_SIZE / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// Writes the sum of squared changes of a tile for each of the `count` iterations.
__device__ __forceinline__ void sum_tile_errors(const Slots& s, float* tile_errors, int count) {
    const int num_warps = blockDim.x / WARP_SIZE;
    const int lane = threadIdx.x % WARP_SIZE;
    for (int k = threadIdx.x / WARP_SIZE; k < count; k += num_warps) {
        float sum = 0.0f;
        for (int i = lane; i < static_cast<int>(blockDim.x); i += WARP_SIZE)
            sum += s.errors[k * MAX_THREADS + i];
        sum = sum_lanes(sum);
        if (lane == 0) tile_errors[k] = sum;
    }
}

// Sets s.sums to the sums over all tiles of a field.
__device__ __forceinline__ void sum_field_errors(
    const Slots& s, const float* errors, int num_tiles, int count
) {
    const int num_warps = blockDim.x / WARP_SIZE;
    const int lane = threadIdx.x % WARP_SIZE;
    for (int k = threadIdx.x / WARP_SIZE; k < count; k += num_warps) {
        float sum = 0.0f;
        for (int i = lane; i < num_tiles; i += WARP_SIZE) sum += errors[i * MAX_ITERATIONS + k];
        sum = sum_lanes(sum);
        if (lane == 0) s.sums[k] = sum;
    }
    __syncthreads();
}

// Does all iterations of one warp of all fields: lines 6 to 13 of algorithm 1.
//
// The blocks form groups of blocks_per_group; leftover blocks end at once. A group works on one
// field at a time and then takes another. If the group has a block for each tile, the state stays
// in registers from the beginning to the end (`is_resident`), and only halos go through memory.
// Otherwise tiles are read and written each time.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, 2) solve(const SolveArguments a) {
    const int group = blockIdx.x / a.blocks_per_group;
    const int rank = blockIdx.x % a.blocks_per_group;
    if (group >= static_cast<int>(gridDim.x) / a.blocks_per_group) return;
    const int num_tiles = a.tiles_x * a.tiles_y;
    const bool is_resident = a.blocks_per_group == num_tiles;
    const size_t plane_size = static_cast<size_t>(a.height) * a.pitch;
    const int num_slots = (a.tile_columns + 1) * (a.tile_rows + 1);
    const Slots s = place_slots(num_slots);
    float* const exchange_planes =
        a.exchange + static_cast<size_t>(group) * 2 * NUM_STATE_PLANES * plane_size;
    float* const errors = a.errors + static_cast<size_t>(group) * 2 * num_tiles * MAX_ITERATIONS;
    unsigned* const arrivals = a.counters + (1 + group) * 32;
    unsigned* const taken_field = arrivals + 1;
    const float inverse_unit = 1.0f / a.unit_px, inverse_tau = 1.0f / a.tau;
    const int longest = a.is_exact ? 1 : MAX_ITERATIONS;
    unsigned expected = 0;

    // Slots to the left of a tile and above the tile. Nobody writes there.
    for (int i = threadIdx.x; i < num_slots; i += blockDim.x) {
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i % (a.tile_columns + 1) == 0) s.right_p11[i] = s.right_p21[i] = zero;
        if (i <= a.tile_columns) s.bottom_p12[i] = s.bottom_p22[i] = zero;
    }
    Place place = place_patch(a, rank);
    Patch patch;

    while (true) {
        if (rank == 0 && threadIdx.x == 0) *taken_field = atomicAdd(a.counters, 1u);
        wait_for_group(arrivals, expected += a.blocks_per_group);
        if (threadIdx.x == 0) *s.field = *reinterpret_cast<volatile unsigned*>(taken_field);
        __syncthreads();
        const size_t field = *s.field;
        if (field >= static_cast<size_t>(a.num_fields)) return;
        float* const field_flow = a.flow + field * 2 * plane_size;
        float* const field_dual = a.dual + field * 4 * plane_size;
        // Which half of the exchange planes holds the state; -1 if the state is in its own planes.
        int half = -1;
        int total = 0;
        float error = 0.0f;
        for (int round = 0; round < a.outer_iterations; ++round) {
            if (round > 0 && is_resident && a.median > 1) {
                // So far the exchange planes hold only strips.
                if (place.is_owned && !place.is_strip) {
                    float* const flow = exchange_planes + half * NUM_STATE_PLANES * plane_size;
                    store_plane(patch.u1, flow, place, a.pitch, 1.0f);
                    store_plane(patch.u2, flow + plane_size, place, a.pitch, 1.0f);
                }
                wait_for_group(arrivals, expected += a.blocks_per_group);
            }
            int done = 0, batch = min(FIRST_BATCH, longest);
            float second_error = 0.0f, third_error = 0.0f, fourth_error = 0.0f;
            while (true) {
                batch = min(batch, a.inner_iterations - done);
                const int next_half = half == 0 ? 1 : 0;
                float* const next_state =
                    exchange_planes + next_half * NUM_STATE_PLANES * plane_size;
                float* const next_errors = errors + next_half * num_tiles * MAX_ITERATIONS;
                const float* const flow =
                    half < 0 ? field_flow : exchange_planes + half * NUM_STATE_PLANES * plane_size;
                const float* const dual = half < 0 ? field_dual : flow + 2 * plane_size;
                const float flow_factor = half < 0 ? inverse_unit : 1.0f;
                const float dual_factor = half < 0 ? a.tau : 1.0f;
                for (int tile = rank; tile < num_tiles; tile += a.blocks_per_group) {
                    if (!is_resident) place = place_patch(a, tile);
                    if (place.is_live) {
                        if (half < 0 || !is_resident) {
                            load_state(
                                patch, flow, dual, place, a.pitch, plane_size, flow_factor,
                                dual_factor
                            );
                            load_data_term(a, s, place, field, plane_size);
                        }
                        if (done == 0 && a.median > 1)
                            filter_flow(patch, a, s, place, flow, plane_size, flow_factor);
                    }
                    iterate(patch, a, s, place, batch);
                    if (place.is_strip || (place.is_owned && !is_resident))
                        store_state(
                            patch, next_state, next_state + 2 * plane_size, place, a.pitch,
                            plane_size, 1.0f, 1.0f
                        );
                    sum_tile_errors(s, next_errors + tile * MAX_ITERATIONS, batch);
                    // The next tile's medians and errors overwrite this tile's.
                    if (!is_resident) __syncthreads();
                }
                wait_for_group(arrivals, expected += a.blocks_per_group);
                half = next_half;
                if (is_resident && place.is_live && !place.is_owned)
                    load_state(
                        patch, next_state, next_state + 2 * plane_size, place, a.pitch, plane_size,
                        1.0f, 1.0f
                    );
                sum_field_errors(s, next_errors, num_tiles, batch);
                for (int k = 0; k < batch; ++k) {
                    fourth_error = third_error, third_error = second_error, second_error = error;
                    error = s.sums[k];
                }
                done += batch;
                total += batch;
                // Written so that NaN also ends the field.
                if (!(error > a.stop_error) || done == a.inner_iterations) break;
                if (done > 1) {
                    const int span = min(3, done - 1);
                    const float earlier =
                        span == 3 ? fourth_error : span == 2 ? third_error : second_error;
                    const float decay = logf(earlier / error) / span;
                    const float to_come = logf(error / a.stop_error) / fmaxf(decay, SLOWEST_DECAY);
                    batch = 1 + static_cast<int>(fminf(to_come / 2, longest - 1));
                }
            }
            if (!(error > a.stop_error)) break;
        }
        const float* const state = exchange_planes + half * NUM_STATE_PLANES * plane_size;
        for (int tile = rank; tile < num_tiles; tile += a.blocks_per_group) {
            if (!is_resident) {
                place = place_patch(a, tile);
                if (place.is_owned)
                    load_state(
                        patch, state, state + 2 * plane_size, place, a.pitch, plane_size, 1.0f, 1.0f
                    );
            }
            if (place.is_owned)
                store_state(
                    patch, field_flow, field_dual, place, a.pitch, plane_size, a.unit_px,
                    inverse_tau
                );
        }
        if (rank == 0 && threadIdx.x == 0) a.num_iterations[field] = total;
    }
}

// ---- between the warps

// Mirrored by LinearizeArguments in tvl1_cuda.py.
struct LinearizeArguments {
    const float* images;      // (frames, height, width)
    const long long* first;   // (fields): index of each field's first frame
    const long long* second;  // (fields): index of each field's second frame
    const float* flow;        // (fields, 2, height, pitch) px
    float* gradient;          // (fields, 2, height, pitch)
    float* residual;          // (fields, height, pitch)
    int num_fields, width, height, pitch;
};

// A block covers 32 x 8 px, so that the reads of its threads overlap.
constexpr int BLOCK_WIDTH = 32, BLOCK_HEIGHT = 8;

struct Pixel {
    int x, y, plane;
    bool is_inside;
};

// The pixel of a thread in a grid over planes; each plane is rows of blocks.
__device__ __forceinline__ Pixel place_pixel(int width, int height) {
    const int blocks_x = (width + BLOCK_WIDTH - 1) / BLOCK_WIDTH;
    const int blocks_y = (height + BLOCK_HEIGHT - 1) / BLOCK_HEIGHT;
    const int block = blockIdx.x % (blocks_x * blocks_y);
    Pixel pixel;
    pixel.x = block % blocks_x * BLOCK_WIDTH + threadIdx.x % BLOCK_WIDTH;
    pixel.y = block / blocks_x * BLOCK_HEIGHT + threadIdx.x / BLOCK_WIDTH;
    pixel.plane = blockIdx.x / (blocks_x * blocks_y);
    pixel.is_inside = pixel.x < width && pixel.y < height;
    return pixel;
}

// The weights of the pixels at -1, 0, 1 and 2 for a position `fraction` after pixel 0 (OpenCV,
// modules/imgproc: interpolateCubic).
__device__ __forceinline__ void cubic_weights(float (&weights)[4], float fraction) {
    constexpr float A = -0.75f;
    const float rest = 1.0f - fraction;
    weights[0] = A * fraction * rest * rest;
    weights[1] = fmaf(fmaf(A + 2.0f, fraction, -(A + 3.0f)), fraction * fraction, 1.0f);
    weights[2] = fmaf(fmaf(A + 2.0f, rest, -(A + 3.0f)), rest * rest, 1.0f);
    weights[3] = 1.0f - weights[0] - weights[1] - weights[2];
}

// The weights of the pixels at -2 ... 3 that give the interpolated central difference.
__device__ __forceinline__ void difference_weights(
    float (&differences)[6], const float (&weights)[4]
) {
#pragma unroll
    for (int k = 0; k < 6; ++k)
        differences[k] = 0.5f * ((k < 2 ? 0.0f : weights[k - 2]) - (k < 4 ? weights[k] : 0.0f));
}

// Linearizes the data term around the flow so far: lines 3 to 5 of algorithm 1. The gradient is
// half the difference of the two neighbors, with a replicated border. Around the image is 0.
extern "C" __global__ void __launch_bounds__(BLOCK_WIDTH* BLOCK_HEIGHT)
    linearize(const LinearizeArguments a) {
    const Pixel pixel = place_pixel(a.width, a.height);
    if (!pixel.is_inside) return;
    const size_t field = pixel.plane;
    const size_t plane_size = static_cast<size_t>(a.height) * a.pitch;
    const size_t frame_size = static_cast<size_t>(a.height) * a.width;
    const size_t offset =
        static_cast<size_t>(pixel.y) * a.pitch + (a.pitch - a.width) + pixel.x;
    const float u1 = a.flow[field * 2 * plane_size + offset];
    const float u2 = a.flow[(field * 2 + 1) * plane_size + offset];
    const float* image = a.images + a.second[field] * frame_size;
    // From two pixels outside the image on, all is 0. The bounds also catch NaN.
    const float x = fminf(fmaxf(pixel.x + u1, -3.0f), a.width + 1.0f);
    const float y = fminf(fmaxf(pixel.y + u2, -3.0f), a.height + 1.0f);
    const float floor_x = floorf(x), floor_y = floorf(y);
    const int column = static_cast<int>(floor_x), row = static_cast<int>(floor_y);
    float x_weights[4], y_weights[4];
    cubic_weights(x_weights, x - floor_x);
    cubic_weights(y_weights, y - floor_y);
    float warped = 0.0f, gradient_x = 0.0f, gradient_y = 0.0f;
    if (column >= 2 && column + 3 < a.width && row >= 2 && row + 3 < a.height) {
        float x_differences[6], y_differences[6];
        difference_weights(x_differences, x_weights);
        difference_weights(y_differences, y_weights);
        const float* line = image + (row - 2) * a.width + (column - 2);
#pragma unroll
        for (int r = 0; r < 6; ++r) {
            float value = 0.0f;
#pragma unroll
            for (int c = 0; c < 4; ++c) value = fmaf(x_weights[c], line[c + 1], value);
            gradient_y = fmaf(y_differences[r], value, gradient_y);
            if (r >= 1 && r <= 4) {
                float difference = 0.0f;
#pragma unroll
                for (int c = 0; c < 6; ++c)
                    difference = fmaf(x_differences[c], line[c], difference);
                warped = fmaf(y_weights[r - 1], value, warped);
                gradient_x = fmaf(y_weights[r - 1], difference, gradient_x);
            }
            line += a.width;
        }
    } else {
#pragma unroll 1
        for (int r = 0; r < 4; ++r) {
            const int at_y = row - 1 + r;
            if (at_y < 0 || at_y >= a.height) continue;
            const float y_weight = r == 0 ? y_weights[0] : r == 1 ? y_weights[1]
                                 : r == 2 ? y_weights[2] : y_weights[3];
            const float* line = image + at_y * a.width;
            const float* above = image + max(at_y - 1, 0) * a.width;
            const float* below = image + min(at_y + 1, a.height - 1) * a.width;
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int at_x = column - 1 + c;
                if (at_x < 0 || at_x >= a.width) continue;
                const float weight = x_weights[c] * y_weight, half = 0.5f * weight;
                const int left = max(at_x - 1, 0), right = min(at_x + 1, a.width - 1);
                warped = fmaf(weight, line[at_x], warped);
                gradient_x = fmaf(half, line[right] - line[left], gradient_x);
                gradient_y = fmaf(half, below[at_x] - above[at_x], gradient_y);
            }
        }
    }
    const float before =
        a.images[a.first[field] * frame_size + static_cast<size_t>(pixel.y) * a.width + pixel.x];
    a.gradient[field * 2 * plane_size + offset] = gradient_x;
    a.gradient[(field * 2 + 1) * plane_size + offset] = gradient_y;
    a.residual[field * plane_size + offset] =
        warped - before - fmaf(gradient_x, u1, gradient_y * u2);
}

// Mirrored by EnlargeArguments in tvl1_cuda.py.
struct EnlargeArguments {
    const float* coarse;  // (planes, coarse_height, coarse_pitch)
    float* fine;          // (planes, height, pitch)
    int coarse_width, coarse_height, coarse_pitch;
    int num_planes, width, height, pitch;
    float factor;
};

// For pixel `i` of a fine line: the two pixels of the coarse line around it, and the fraction. As
// in cv2.resize, it is at (i + 1/2) coarse / fine - 1/2. Here this is multiplied by 2 fine, which
// makes it an exact integer.
__device__ __forceinline__ void place_sample(
    int i, int coarse, int fine, int& before, int& after, float& weight
) {
    const int position = min(max((2 * i + 1) * coarse - fine, 0), 2 * fine * (coarse - 1));
    before = position / (2 * fine);
    after = min(before + 1, coarse - 1);
    weight = static_cast<float>(position % (2 * fine)) / static_cast<float>(2 * fine);
}

// Resizes planes bilinearly, and multiplies them by `factor`.
extern "C" __global__ void __launch_bounds__(BLOCK_WIDTH* BLOCK_HEIGHT)
    enlarge(const EnlargeArguments a) {
    const Pixel pixel = place_pixel(a.width, a.height);
    if (!pixel.is_inside) return;
    int left, right, above, below;
    float x_weight, y_weight;
    place_sample(pixel.x, a.coarse_width, a.width, left, right, x_weight);
    place_sample(pixel.y, a.coarse_height, a.height, above, below, y_weight);
    const float* image = a.coarse +
                         static_cast<size_t>(pixel.plane) * a.coarse_height * a.coarse_pitch +
                         (a.coarse_pitch - a.coarse_width);
    const float* upper = image + above * a.coarse_pitch;
    const float* lower = image + below * a.coarse_pitch;
    const float upper_value = fmaf(upper[right] - upper[left], x_weight, upper[left]);
    const float lower_value = fmaf(lower[right] - lower[left], x_weight, lower[left]);
    a.fine
        [(static_cast<size_t>(pixel.plane) * a.height + pixel.y) * a.pitch + (a.pitch - a.width) +
         pixel.x] = fmaf(lower_value - upper_value, y_weight, upper_value) * a.factor;
}
