// STNO's query on a CPU: the hidden values of a pixel stay in registers, from the blend of its corners to its three colours.
// Compiled once per instruction set; all computation is in float32.
#include "query.h"
#include "vector.h"

#include <cstdint>
#include <cstring>

namespace {

using dcn::Rendering;

constexpr int kLanes = DCN_VECTOR_BYTES / sizeof(float);
using V = Vec<float, kLanes>;

inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// Index of the first number >= `least` in an ascending list.
inline int64_t first_from(const int64_t* list, int64_t count, int64_t least) {
  int64_t begin = 0;
  while (begin < count) {
    const int64_t middle = (begin + count) / 2;
    if (list[middle] < least)
      begin = middle + 1;
    else
      count = middle;
  }
  return begin;
}

// x times the normal distribution function of x (GELU), within 1.2e-6 for |x| < 5.3 and within 4e-7 beyond. The distribution function is
// 0.5 + x p(x^2) / q(x^2), fitted for the least largest error of GELU. NaN for NaN, and for -infinity as in PyTorch.
inline V gelu(V x) {
  constexpr float kP[] = {2.33967801e-8f, 6.46398153e-6f, 1.70071954e-4f, 4.68600434e-3f, 3.38699692e-2f, 3.98942123e-1f};
  constexpr float kQ[] = {1.22459806e-6f, 7.45917507e-5f, 1.89088225e-3f, 2.86759925e-2f, 2.51564370e-1f, 1.f};
  constexpr float kLimit = 5.3f;
  const V square = x * x;
  V p = V{} + kP[0], q = V{} + kQ[0];
  for (int k = 1; k < 6; ++k) p = p * square + kP[k], q = q * square + kQ[k];
  const V inside = 0.5f + x * (p / q);
  const V zero{}, one = zero + 1.f;
  return x * (x > kLimit ? one : x < -kLimit ? zero : inside);
}

// State of one thread for its tasks: blocks of intervals, from top to bottom.
class Worker {
 public:
  static int64_t floats(const Rendering& r) { return Worker(r, nullptr).used; }

  Worker(const Rendering& rendering, float* memory) : r(rendering), memory(memory) {
    take(cells, kMost * r.channels);
    take(maps[0], kMost * 4 * r.hidden);
    take(maps[1], kMost * 4 * r.hidden);
    take(row, Rendering::kBlock * 2 * r.hidden);
  }

  void run(int64_t task) {
    const int64_t sample = task / (r.blocks_y() * r.blocks_x()), block = task % (r.blocks_y() * r.blocks_x());
    const Range y = range(block / r.blocks_x(), r.height), x = range(block % r.blocks_x(), r.width);
    const Range rows = outputs(r.interval_y, r.out_height, y), columns = outputs(r.interval_x, r.out_width, x);
    if (columns.begin == columns.end) return;
    held[0] = held[1] = -1;
    for (int64_t out_y = rows.begin; out_y < rows.end; ++out_y) {
      blend_rows(sample, out_y, x);
      colour_pixels(sample, out_y, x.begin, columns);
    }
  }

 private:
  // Cells of a block, one more than its intervals, rounded up to full row tiles.
  static constexpr int64_t kMost = round_up(Rendering::kBlock + 1, kRowTile);
  struct Range {
    int64_t begin, end;
  };

  const Rendering& r;
  float *cells, *maps[2], *row;  // [cell][channel], [cell][corner][hidden] of two LR rows, [interval][value at its left, step to its right][hidden]
  int64_t held[2];               // the LR rows in `maps`
  float* memory;                 // null: only counted
  int64_t used = 0;

  void take(float*& pointer, int64_t count) {
    pointer = memory ? memory + used : nullptr;
    used += round_up(count, 16);
  }

  static Range range(int64_t block, int64_t count) {
    return {block * Rendering::kBlock, smaller((block + 1) * Rendering::kBlock, count + 1)};
  }

  // The output rows or columns in a range of intervals.
  static Range outputs(const int64_t* intervals, int64_t count, Range of) {
    return {first_from(intervals, count, of.begin), first_from(intervals, count, of.end)};
  }

  static int64_t first_cell(Range x) { return larger(x.begin - 1, 0); }

  // Corner maps of the cells of a block in an LR row; those of the previous row are kept.
  const float* maps_of(int64_t sample, int64_t lr_row, Range x) {
    for (int which = 0; which < 2; ++which)
      if (held[which] == lr_row) return maps[which];
    const int which = held[0] < held[1] ? 0 : 1;
    const int64_t first = first_cell(x), count = smaller(x.end, r.width) - first, tiled = round_up(count, kRowTile);
    std::memcpy(cells, r.features + ((sample * r.height + lr_row) * r.width + first) * r.channels, count * r.channels * sizeof(float));
    std::memset(cells + count * r.channels, 0, (tiled - count) * r.channels * sizeof(float));
    std::memset(maps[which], 0, tiled * 4 * r.hidden * sizeof(float));
    multiply<float>(tiled, 4 * r.hidden, r.channels, cells, r.channels, 1, r.corners, 4 * r.hidden, maps[which], 4 * r.hidden);
    held[which] = lr_row;
    return maps[which];
  }

  // One output row at LR width. At the borders both cells are the same one, and their two corner maps count one half each.
  void blend_rows(int64_t sample, int64_t out_y, Range x) {
    const int64_t interval = r.interval_y[out_y], h = r.hidden;
    const bool border_y = interval == 0 || interval == r.height;
    const float* upper = maps_of(sample, larger(interval - 1, 0), x);
    const float* lower = maps_of(sample, smaller(interval, r.height - 1), x);
    const float fraction = r.fraction_y[out_y], share = border_y ? 0.5f : fraction;
    const float *shift_upper = r.shift_y + interval * 2 * h, *shift_lower = shift_upper + h;
    for (int64_t k = x.begin; k < x.end; ++k) {
      const bool border_x = k == 0 || k == r.width;
      const int64_t left_cell = larger(k - 1, 0) - first_cell(x), right_cell = smaller(k, r.width - 1) - first_cell(x);
      const float *left_upper = upper + left_cell * 4 * h, *left_lower = lower + (left_cell * 4 + 2) * h;
      const float *right_upper = upper + (right_cell * 4 + 1) * h, *right_lower = lower + (right_cell * 4 + 3) * h;
      const float *shift_left = r.shift_x + k * 2 * h, *shift_right = shift_left + h;
      float *value = row + (k - x.begin) * 2 * h, *step = value + h;
      for (int64_t c = 0; c < h; c += kLanes) {
        V left = lerp(load<V>(left_upper + c), load<V>(left_lower + c), share);
        V right = lerp(load<V>(right_upper + c), load<V>(right_lower + c), share);
        if (border_x) left = right = (left + right) * 0.5f;
        const V at_left = load<V>(shift_left + c);
        store(value + c, left + (at_left + lerp(load<V>(shift_upper + c), load<V>(shift_lower + c), fraction)));
        store(step + c, right - left + (load<V>(shift_right + c) - at_left));
      }
    }
  }

  static V lerp(V from, V to, float fraction) { return from + fraction * (to - from); }

  void colour_pixels(int64_t sample, int64_t out_y, int64_t first_interval, Range columns) const {
    const int64_t h = r.hidden, plane = r.out_height * r.out_width;
    const float *red = r.colour, *green = red + h, *blue = green + h;
    float* to = r.out + (sample * 3 * r.out_height + out_y) * r.out_width;
    for (int64_t out_x = columns.begin; out_x < columns.end; ++out_x) {
      const float *value = row + (r.interval_x[out_x] - first_interval) * 2 * h, *step = value + h;
      const float fraction = r.fraction_x[out_x];
      V sums[4] = {};
      for (int64_t c = 0; c < h; c += kLanes) {
        const V active = gelu(load<V>(value + c) + fraction * load<V>(step + c));
        sums[0] += active * load<V>(red + c);
        sums[1] += active * load<V>(green + c);
        sums[2] += active * load<V>(blue + c);
      }
      const Vec<float, 4> colours = sums_of_lanes<float, kLanes>(sums[0], sums[1], sums[2], sums[3]);
      for (int channel = 0; channel < 3; ++channel) to[channel * plane + out_x] = colours[channel] + r.bias[channel];
    }
  }
};

int64_t scratch_of(const Rendering& r) { return Worker::floats(r); }

void run_tasks(const Rendering& r, float* scratch, int64_t begin, int64_t end) {
  Worker worker(r, scratch);
  for (int64_t task = begin; task < end; ++task) worker.run(task);
}

}  // namespace

namespace dcn {
extern const QueryKernels DCN_NAME(query_, DCN_ISA);
const QueryKernels DCN_NAME(query_, DCN_ISA) = {scratch_of, run_tasks};
}  // namespace dcn
