// Vectors through the compiler's own extension (GCC, clang): one source for AVX-512, AVX2, SSE2 and NEON.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
#define DCN_VECTOR_BYTES 64
#define DCN_TILE_VECTORS 4
#elif defined(__AVX2__)
#define DCN_VECTOR_BYTES 32
#define DCN_TILE_VECTORS 2
#elif defined(__aarch64__)
#define DCN_VECTOR_BYTES 16
#define DCN_TILE_VECTORS 4
#else
#define DCN_VECTOR_BYTES 16
#define DCN_TILE_VECTORS 2
#endif

// A name with the instruction set of this compilation: DCN_NAME(query_, DCN_ISA) is query_avx512, say.
#define DCN_JOIN(a, b) a##b
#define DCN_NAME(a, b) DCN_JOIN(a, b)

namespace {

constexpr int kRowTile = 6;

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class S, int N>
struct Lanes {
  typedef S type __attribute__((vector_size(N * sizeof(S))));
};
template <class S, int N>
using Vec = typename Lanes<S, N>::type;

template <class V, class S>
inline V load(const S* from) {  // any alignment
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class V, class S>
inline void store(S* to, V value) {
  std::memcpy(to, &value, sizeof value);
}

// c[MR rows][NV vectors] += a[m, k] * b[k, :] over k; a's element (m, k) is at m * a_row + k * a_step.
template <class S, int NV>
inline void multiply_tile(const S* a, int64_t a_row, int64_t a_step, const S* b, int64_t b_row, S* c, int64_t c_row, int64_t depth) {
  constexpr int lanes = DCN_VECTOR_BYTES / sizeof(S);
  using V = Vec<S, lanes>;
  V sum[kRowTile][NV];
#pragma GCC unroll 8
  for (int m = 0; m < kRowTile; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) sum[m][n] = load<V>(c + m * c_row + n * lanes);
  for (int64_t k = 0; k < depth; ++k) {
    V row[NV];
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) row[n] = load<V>(b + k * b_row + n * lanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRowTile; ++m) {
      const S factor = a[m * a_row + k * a_step];
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) sum[m][n] += factor * row[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRowTile; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) store(c + m * c_row + n * lanes, sum[m][n]);
}

// C (rows x cols) += A (rows x depth) B (depth x cols); rows are a multiple of the row tile, cols of the vector; C and B row-major.
template <class S>
void multiply(int64_t rows, int64_t cols, int64_t depth, const S* a, int64_t a_row, int64_t a_step, const S* b, int64_t b_row, S* c,
              int64_t c_row) {
  constexpr int lanes = DCN_VECTOR_BYTES / sizeof(S);
  for (int64_t n = 0; n < cols;) {
    const int64_t vectors = (cols - n) / lanes;
    for (int64_t m = 0; m < rows; m += kRowTile) {
      const S* left = a + m * a_row;
      S* to = c + m * c_row + n;
      if (vectors >= DCN_TILE_VECTORS)
        multiply_tile<S, DCN_TILE_VECTORS>(left, a_row, a_step, b + n, b_row, to, c_row, depth);
      else if (DCN_TILE_VECTORS > 2 && vectors == 3)
        multiply_tile<S, 3>(left, a_row, a_step, b + n, b_row, to, c_row, depth);
      else if (DCN_TILE_VECTORS > 2 && vectors == 2)
        multiply_tile<S, 2>(left, a_row, a_step, b + n, b_row, to, c_row, depth);
      else
        multiply_tile<S, 1>(left, a_row, a_step, b + n, b_row, to, c_row, depth);
    }
    n += lanes * (vectors >= DCN_TILE_VECTORS ? DCN_TILE_VECTORS : vectors);
  }
}

// The sums of four vectors' lanes, side by side.
template <class S, int N>
inline Vec<S, 4> sums_of_lanes(Vec<S, N> a, Vec<S, N> b, Vec<S, N> c, Vec<S, N> d) {
  using Q = Vec<S, 4>;
  if constexpr (N > 4) {
    using H = Vec<S, N / 2>;
    const auto fold = [](Vec<S, N> v) {
      H halves[2];
      std::memcpy(halves, &v, sizeof v);
      return H(halves[0] + halves[1]);
    };
    return sums_of_lanes<S, N / 2>(fold(a), fold(b), fold(c), fold(d));
  } else {
#if defined(__clang__)
    const Q ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Q cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
#else
    using I = Vec<std::conditional_t<sizeof(S) == 4, int32_t, int64_t>, 4>;
    const Q ab = __builtin_shuffle(a, b, I{0, 4, 1, 5}) + __builtin_shuffle(a, b, I{2, 6, 3, 7});
    const Q cd = __builtin_shuffle(c, d, I{0, 4, 1, 5}) + __builtin_shuffle(c, d, I{2, 6, 3, 7});
    return __builtin_shuffle(ab, cd, I{0, 1, 4, 5}) + __builtin_shuffle(ab, cd, I{2, 3, 6, 7});
#endif
  }
}

}  // namespace
