// Windowed attention on a CPU: scores, softmax and weighted values of a few queries at a time, which never leave the cache.
// Compiled once per instruction set; the variant with AVX512_BF16 multiplies pairs of bfloat16, all others work in float32.
#include "attention.h"
#include "rows.h"
#include "vector.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

using dcn::Attention;

constexpr int kLanes = DCN_VECTOR_BYTES / sizeof(float);
using V = Vec<float, kLanes>;
using I = Vec<int32_t, kLanes>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The larger of both, lane by lane; b where either is NaN.
inline V larger(V a, V b) {
#ifdef __AVX512F__
  return (V)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

// The largest lane, and the sum of all lanes: reduced by halves, because a serial reduction takes as long as the softmax itself.
template <int N, class Join>
inline float joined_lanes(Vec<float, N> lanes, const Join& join) {
  if constexpr (N == 1) {
    return lanes[0];
  } else {
    Vec<float, N / 2> halves[2];
    std::memcpy(halves, &lanes, sizeof lanes);
    return joined_lanes<N / 2>(join(halves[0], halves[1]), join);
  }
}

inline float largest_of(V lanes) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps((__m512)lanes);
#else
  return joined_lanes<kLanes>(lanes, [](auto a, auto b) { return a > b ? a : b; });
#endif
}

inline float sum_of(V lanes) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)lanes);
#else
  return joined_lanes<kLanes>(lanes, [](auto a, auto b) { return a + b; });
#endif
}

// 2 ** t for t <= 0, at least 2 ** -126, with a relative error of 2e-7, or of 4e-5 if rounded to bfloat16. NaN for NaN.
template <bool Exact>
inline V exp2_of(V t) {
  constexpr float kShift = 12582912.f + 127.f;  // 1.5 * 2 ** 23 and the exponent of 1: the lowest bits become the exponent of the power
  t = larger(V{} - 126.f, t);
  const V shifted = t + kShift;
  const V f = t - (shifted - kShift);
  V p;
  if constexpr (Exact) {
    p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
  } else {
    p = f * 9.6181291e-3f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
  }
  p = p * f + 1.f;
  Vec<uint32_t, kLanes> bits;
  V power;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;  // not the exponents added: the sum of a NaN's bits may be a number
}

inline void narrow(V from, float* to) { store(to, from); }

inline void narrow(V from, BFloat16* to) {
#ifdef __AVX512BF16__
  store(to, _mm512_cvtneps_pbh((__m512)from));
#else
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = BFloat16::from(from[lane]);
#endif
}

// How products are taken: in float32, one step of depth at a time ...
struct Singles {
  using Element = float;
  static constexpr int64_t depth = 1;  // numbers in an element

  static V product(V sum, Element left, const Element* right) { return sum + left * load<V>(right); }
  static void put(Element* to, V values) { store(to, values); }
};

#ifdef __AVX512BF16__
// ... or of pairs of bfloat16, summed in float32.
struct Pairs {
  using Element = uint32_t;
  static constexpr int64_t depth = 2;

  static V product(V sum, Element left, const Element* right) {
    return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(left)), (__m512bh)_mm512_loadu_si512(right));
  }
  static void put(Element* to, V values) { narrow(values, reinterpret_cast<BFloat16*>(to)); }
};
#endif

// c = a b, for kRowTile rows and NV vectors of columns: element (m, k) of a is at m * a_row + k, rows of b have b_row elements.
// (multiply_tile of vector.h adds to c and has a single type; here c starts at zero, and an element may hold two numbers.)
template <class P, int NV>
inline void product_tile(const typename P::Element* a, int64_t a_row, const typename P::Element* b, int64_t b_row, float* c, int64_t c_row,
                         int64_t depth) {
  V sum[kRowTile][NV];
#pragma GCC unroll 8
  for (int m = 0; m < kRowTile; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) sum[m][n] = V{};
  for (int64_t k = 0; k < depth; ++k)
#pragma GCC unroll 8
    for (int m = 0; m < kRowTile; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) sum[m][n] = P::product(sum[m][n], a[m * a_row + k], b + k * b_row + n * kLanes);
#pragma GCC unroll 8
  for (int m = 0; m < kRowTile; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) store(c + m * c_row + n * kLanes, sum[m][n]);
}

// The same for any integer number of vectors of columns: the widest tiles first, then the remainder.
template <class P>
void product_rows(int64_t cols, const typename P::Element* a, int64_t a_row, const typename P::Element* b, int64_t b_row, float* c, int64_t c_row,
                  int64_t depth) {
  int64_t n = 0;
  for (; n + DCN_TILE_VECTORS * kLanes <= cols; n += DCN_TILE_VECTORS * kLanes)
    product_tile<P, DCN_TILE_VECTORS>(a, a_row, b + n, b_row, c + n, c_row, depth);
  for (; n + 3 * kLanes <= cols; n += 3 * kLanes) product_tile<P, 3>(a, a_row, b + n, b_row, c + n, c_row, depth);
  for (; n + 2 * kLanes <= cols; n += 2 * kLanes) product_tile<P, 2>(a, a_row, b + n, b_row, c + n, c_row, depth);
  for (; n < cols; n += kLanes) product_tile<P, 1>(a, a_row, b + n, b_row, c + n, c_row, depth);
}

// One window of one head: its position in the rolled map, and whether it contains tokens that wrapped around.
struct Task {
  int64_t head, sample, top, left;
  bool bottom, right;

  Task(const Attention& a, int64_t number) {
    const int64_t columns = a.columns(), windows = a.rows() * columns, window = number % windows;
    head = number / (a.batch * windows), sample = number / windows % a.batch;
    top = window / columns * a.window, left = window % columns * a.window;
    bottom = a.shift && top + a.window == a.height, right = a.shift && left + a.window == a.width;
  }
};

// State of one thread for its tasks.
template <class P, class Stored>
class Worker {
 public:
  static int64_t bytes(const Attention& a) { return Worker(a, nullptr).used; }

  Worker(const Attention& attention, char* memory)
      : a(attention), queries(a.queries()), keys(a.keys()), width(a.head_width), keys_padded(round_up(keys, kLanes)),
        key_depth(keys_padded / P::depth), query_depth((width + P::depth - 1) / P::depth), width_padded(round_up(width, kLanes)), memory(memory) {
    take(query, kRowTile * query_depth);
    take(key, query_depth * keys_padded);
    take(value, key_depth * width_padded);
    take(weights, kRowTile * key_depth);
    take(scores, kRowTile * keys_padded);
    take(result, kRowTile * width_padded);
    take(zeros, 3 * a.heads * width);
    take(tokens, keys);
    take(next_tokens, keys);
    take(region, keys_padded);
  }

  void run(int64_t begin, int64_t stop) {
    std::memset(zeros, 0, 3 * a.heads * width * sizeof(Stored));
    std::memset(key, 0, query_depth * keys_padded * sizeof(Element));  // elements beyond the last key or number stay zero
    std::memset(value, 0, key_depth * width_padded * sizeof(Element));
    find(Task(a, begin), next_tokens);
    for (int64_t number = begin; number < stop; ++number) {
      std::swap(tokens, next_tokens);
      find(Task(a, number + 1 < stop ? number + 1 : number), next_tokens);
      run_task(Task(a, number));
    }
  }

 private:
  using Element = typename P::Element;
  const Attention& a;
  const int64_t queries, keys, width;                                 // counts of numbers,
  const int64_t keys_padded, key_depth, query_depth, width_padded;  // rounded up to full vectors and elements
  Element *query, *key, *value, *weights;                            // [query][depth], [depth][key], [key / depth][width], [query][key / depth]
  float *scores, *result;
  Stored* zeros;  // a token beyond the map
  const Stored **tokens, **next_tokens;  // query of each token around this and the next window; its key and value follow
  int32_t* region;                       // of each key
  char* memory;                          // null: only counted
  int64_t used = 0;

  template <class T>
  void take(T*& pointer, int64_t count) {
    pointer = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
  }

  // A token of the rolled map in the map itself, from the first head's query on.
  int64_t place(const Task& task, int64_t row, int64_t column) const {
    row += task.top, column += task.left;
    row = row + a.shift < a.height ? row + a.shift : row + a.shift - a.height;
    column = column + a.shift < a.width ? column + a.shift : column + a.shift - a.width;
    return (task.sample * a.height + row) * a.width + column;
  }

  void find(const Task& task, const Stored** to) const {
    for (int64_t row = -a.margin; row < a.window + a.margin; ++row)
      for (int64_t column = -a.margin; column < a.window + a.margin; ++column) {
        const bool inside = task.top + row >= 0 && task.top + row < a.height && task.left + column >= 0 && task.left + column < a.width;
        *to++ = inside ? static_cast<const Stored*>(a.qkv) + (place(task, row, column) * 3 * a.heads + task.head) * width : zeros;
      }
  }

  const Stored* query_of(int64_t index) const {
    return tokens[(index / a.window + a.margin) * a.reach() + index % a.window + a.margin];
  }

  void run_task(const Task& task) {
    gather();
    if (task.bottom || task.right) find_regions(task);
    const int64_t tiles = (queries + kRowTile - 1) / kRowTile, keys_a_tile = (keys + tiles - 1) / tiles;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * kRowTile, count = smaller(kRowTile, queries - first);
      fetch(tile * keys_a_tile, smaller(keys, (tile + 1) * keys_a_tile));
      fill_queries(first, count);
      product_rows<P>(keys_padded, query, query_depth, key, keys_padded, scores, keys_padded, query_depth);
      float factor[kRowTile];
      for (int64_t m = 0; m < count; ++m) factor[m] = soften(task, first + m, scores + m * keys_padded, weights + m * key_depth);
      product_rows<P>(width_padded, weights, key_depth, value, width_padded, result, width_padded, key_depth);
      for (int64_t m = 0; m < count; ++m) put_result(task, first + m, result + m * width_padded, factor[m]);
    }
  }

  // Prefetches tokens of the next window while this one is computed: they are far apart, so the hardware prefetcher misses them.
  // Always inline: GCC considers a function that only prefetches to have no effect and drops its call.
  __attribute__((always_inline)) inline void fetch(int64_t begin, int64_t stop) const {
    const int64_t part = a.heads * width;
    for (int64_t index = begin; index < stop; ++index)
      for (int64_t which = 0; which < 3; ++which) {
        __builtin_prefetch(next_tokens[index] + which * part);
        __builtin_prefetch(next_tokens[index] + which * part + width - 1);
      }
  }

  void gather() {
    const int64_t part = a.heads * width;
    for (int64_t index = 0; index < keys; ++index)
      for (int64_t k = 0; k < query_depth; ++k) key[k * keys_padded + index] = element(tokens[index] + part, k);
    for (int64_t k = 0; k < (keys + P::depth - 1) / P::depth; ++k) {
      const int64_t one = k * P::depth, other = one + 1;
      const Stored *first = tokens[one] + 2 * part, *second = other < keys ? tokens[other] + 2 * part : zeros;
      for (int64_t c = 0; c < width; ++c) value[k * width_padded + c] = joined(first[c], second[c]);
    }
  }

  // Numbers k * depth ... of a token as one element.
  Element element(const Stored* from, int64_t k) const {
    if constexpr (P::depth == 1)
      return convert<float>(from[k]);
    else
      return joined(from[2 * k], 2 * k + 1 < width ? from[2 * k + 1] : Stored{});
  }

  static Element joined(Stored first, Stored second) {
    if constexpr (P::depth == 1)
      return convert<float>(first);
    else
      return first.bits | uint32_t(second.bits) << 16;
  }

  void fill_queries(int64_t first, int64_t count) {
    for (int64_t m = 0; m < kRowTile; ++m) {
      const Stored* from = m < count ? query_of(first + m) : zeros;
      for (int64_t k = 0; k < query_depth; ++k) query[m * query_depth + k] = element(from, k);
    }
  }

  // Region (of at most four regions of the map) of each key (the same tokens as the queries) in the last windows.
  void find_regions(const Task& task) const {
    const int64_t cut = a.window - a.shift;
    for (int64_t index = 0; index < keys; ++index)
      region[index] = 2 * (task.bottom && index / a.window >= cut) + (task.right && index % a.window >= cut);
  }

  // Scores of one query -> 2 ** (log2(e) * (scale * score + bias) - the largest), as elements; returns one over their sum.
  float soften(const Task& task, int64_t index, float* score, Element* to) const {
    constexpr float kLog2e = 1.44269504f;
    const float scale = a.scale * kLog2e;
    const Stored* bias = static_cast<const Stored*>(a.bias) + (task.head * queries + index) * keys;
    V highest = V{} - kInfinity, sum{};
    for (int64_t k = 0; k < keys_padded; k += kLanes) {
      V s = load<V>(score + k) * scale + biases(bias, k) * kLog2e;
      if (task.bottom || task.right) s += (load<I>(region + k) != region[index]) ? V{} + dcn::kApart * kLog2e : V{};
      highest = larger(highest, s);  // even if a NaN is lost here, its weight below makes the sum NaN
      store(score + k, s);
    }
    const float largest = largest_of(highest);
    for (int64_t k = 0; k < keys_padded; k += kLanes) {
      const V weight = exp2_of<P::depth == 1>(load<V>(score + k) - largest);
      P::put(to + k / P::depth, weight);
      sum += weight;
    }
    return 1 / sum_of(sum);
  }

  void put_result(const Task& task, int64_t index, const float* from, float factor) const {
    const int64_t position = place(task, index / a.window, index % a.window);
    Stored* to = static_cast<Stored*>(a.out) + (position * a.heads + task.head) * width;
    for (int64_t c = 0; c < width; c += kLanes) {
      Stored whole[kLanes];
      narrow(load<V>(from + c) * factor, whole);
      std::memcpy(to + c, whole, smaller(kLanes, width - c) * sizeof(Stored));
    }
  }

  // The bias of kLanes keys; keys beyond the last get a weight of zero.
  V biases(const Stored* bias, int64_t k) const {
    if (k + kLanes <= keys) return widened(bias + k);
    V result = V{} - kInfinity;
    for (int64_t lane = 0; k + lane < keys; ++lane) result[lane] = convert<float>(bias[k + lane]);
    return result;
  }

  static V widened(const Stored* from) {
    if constexpr (sizeof(Stored) == 4) {
      return load<V>(from);
    } else {
      const auto halves = load<Vec<uint16_t, kLanes>>(from);
      const Vec<uint32_t, kLanes> bits = __builtin_convertvector(halves, Vec<uint32_t, kLanes>) << 16;
      V value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
  }
};

#ifdef __AVX512BF16__
using Halves = Pairs;
#else
using Halves = Singles;
#endif

int64_t scratch_of(const Attention& a) {
  return a.type == Type::bf16 ? Worker<Halves, BFloat16>::bytes(a) : Worker<Singles, float>::bytes(a);
}

void run_any(const Attention& a, void* scratch, int64_t begin, int64_t end) {
  if (a.type == Type::bf16)
    Worker<Halves, BFloat16>(a, static_cast<char*>(scratch)).run(begin, end);
  else
    Worker<Singles, float>(a, static_cast<char*>(scratch)).run(begin, end);
}

}  // namespace

namespace dcn {
extern const AttentionKernels DCN_NAME(attention_, DCN_ISA);
const AttentionKernels DCN_NAME(attention_, DCN_ISA) = {scratch_of, run_any};
}  // namespace dcn
