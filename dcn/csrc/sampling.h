// Sampling positions of one kernel point of one deformable group for a block of output pixels, and bilinear sums over its channels.
// WIDTH is the slice's number of channels, known to the compiler; 0: any number.
#pragma once
#include <type_traits>

#include "problem.h"
#include "rows.h"
#include "vector.h"

namespace {

using dcn::kBlock;
using dcn::Map;
using dcn::Problem;

template <class S>
struct Places {
  S row[kBlock], col[kBlock];          // of the undeformed kernel's first point
  int32_t corner[kBlock];              // element of the upper left corner in a slice's map
  S down[kBlock], right[kBlock];       // fractions
  S mask[kBlock];
  S weight[4][kBlock];                 // of the corners, rows first
  S moves[2][kBlock];
};

template <class S>
void start_block(const Problem& p, int64_t first, int64_t count, Places<S>& at) {
  int64_t y = first / p.out_w, x = first % p.out_w;
  for (int64_t i = 0; i < count; ++i) {
    at.row[i] = S(y * p.stride_h - p.pad_h);
    at.col[i] = S(x * p.stride_w - p.pad_w);
    if (++x == p.out_w) x = 0, ++y;
  }
}

// Prefetches a block of one plane: planes are too far apart for the hardware prefetcher. If the channels of a pixel are adjacent, the
// block was loaded with the first of them.
inline void fetch_ahead(const Map& map, int64_t plane, int64_t first, int64_t count) {
  if (!map.data || map.pixel != 1) return;
  const int64_t size = map.type == Type::f64 ? 8 : map.type == Type::f32 ? 4 : 2;
  const char* from = static_cast<const char*>(map.data) + (plane * map.channel + first) * size;
  for (int64_t byte = 0; byte < count * size; byte += 64) __builtin_prefetch(from + byte);
}

// Offsets and mask of kernel point `point`, once for all channels of the group. Corner weights contain the mask if `modulated`.
template <class S>
void place(const Problem& p, const Map& offset, const Map& mask, int64_t group, int64_t point, int64_t first, int64_t count,
           bool modulated, Places<S>& at) {
  const int64_t plane = group * p.points() + point;
  load_row(offset.data, offset.type, 2 * plane * offset.channel + first * offset.pixel, offset.pixel, at.moves[0], 1, count);
  load_row(offset.data, offset.type, (2 * plane + 1) * offset.channel + first * offset.pixel, offset.pixel, at.moves[1], 1, count);
  if (mask.data)
    load_row(mask.data, mask.type, plane * mask.channel + first * mask.pixel, mask.pixel, at.mask, 1, count);
  else
    for (int64_t i = 0; i < count; ++i) at.mask[i] = 1;
  if (point + 1 < p.points() || group + 1 < p.deform_groups) {
    fetch_ahead(offset, 2 * plane + 2, first, count);
    fetch_ahead(offset, 2 * plane + 3, first, count);
    fetch_ahead(mask, plane + 1, first, count);
  }
  const S lowest = -dcn::kBorder, bottom = S(p.height), end = S(p.width);
  const S kernel_row = S(point / p.kernel_w * p.dilation_h), kernel_col = S(point % p.kernel_w * p.dilation_w);
  const int32_t map_width = int32_t(p.map_width()), width = int32_t(p.slice_width), border = dcn::kBorder;
  for (int64_t i = 0; i < count; ++i) {
    S y = at.row[i] + kernel_row + at.moves[0][i], x = at.col[i] + kernel_col + at.moves[1][i];
    y = y > lowest ? y : lowest;  // also for NaN
    x = x > lowest ? x : lowest;
    y = y < bottom ? y : bottom;
    x = x < end ? x : end;
    int32_t top = int32_t(y), left = int32_t(x);
    top -= S(top) > y;
    left -= S(left) > x;
    const S down = y - S(top), right = x - S(left), factor = modulated ? at.mask[i] : S(1);
    at.corner[i] = ((top + border) * map_width + left + border) * width;
    at.down[i] = down;
    at.right[i] = right;
    at.weight[0][i] = factor * (1 - down) * (1 - right);
    at.weight[1][i] = factor * (1 - down) * right;
    at.weight[2][i] = factor * down * (1 - right);
    at.weight[3][i] = factor * down * right;
  }
}

// to[i, :] = the modulated samples of all channels.
template <class S, int WIDTH>
void sample(const Problem& p, const S* map, const Places<S>& at, int64_t count, S* to, int64_t to_row) {
  const int64_t width = WIDTH ? WIDTH : p.slice_width, below = p.map_width() * width;
  for (int64_t i = 0; i < count; ++i, to += to_row) {
    const S* from = map + at.corner[i];
    const S a = at.weight[0][i], b = at.weight[1][i], c = at.weight[2][i], d = at.weight[3][i];
    if constexpr (WIDTH > 0) {
      using V = Vec<S, WIDTH>;
      store(to, V(a * load<V>(from) + b * load<V>(from + WIDTH) + c * load<V>(from + below) + d * load<V>(from + below + WIDTH)));
    } else {
      for (int64_t j = 0; j < width; ++j)
        to[j] = a * from[j] + b * from[j + width] + c * from[j + below] + d * from[j + below + width];
    }
  }
}

// dots[i] = sum over channels of grad[i, :] times each of the four corners.
template <class S, int WIDTH>
void dot_corners(const Problem& p, const S* map, const Places<S>& at, int64_t count, const S* grad, int64_t grad_row, S (*dots)[4]) {
  const int64_t width = WIDTH ? WIDTH : p.slice_width, below = p.map_width() * width;
  for (int64_t i = 0; i < count; ++i, grad += grad_row) {
    const S* from = map + at.corner[i];
    if constexpr (WIDTH > 0) {
      using V = Vec<S, WIDTH>;
      const V g = load<V>(grad);
      store(dots[i], sums_of_lanes<S, WIDTH>(V(g * load<V>(from)), V(g * load<V>(from + WIDTH)), V(g * load<V>(from + below)),
                                             V(g * load<V>(from + below + WIDTH))));
    } else {
      S a = 0, b = 0, c = 0, d = 0;
      for (int64_t j = 0; j < width; ++j) {
        a += grad[j] * from[j];
        b += grad[j] * from[j + width];
        c += grad[j] * from[j + below];
        d += grad[j] * from[j + below + width];
      }
      dots[i][0] = a, dots[i][1] = b, dots[i][2] = c, dots[i][3] = d;
    }
  }
}

// The transpose of `sample`: adds grad[i, :] times the corner weights to the map.
template <class S, int WIDTH>
void scatter(const Problem& p, S* map, const Places<S>& at, int64_t count, const S* grad, int64_t grad_row) {
  const int64_t width = WIDTH ? WIDTH : p.slice_width, below = p.map_width() * width;
  for (int64_t i = 0; i < count; ++i, grad += grad_row) {
    S* to = map + at.corner[i];
    const S a = at.weight[0][i], b = at.weight[1][i], c = at.weight[2][i], d = at.weight[3][i];
    if constexpr (WIDTH > 0) {
      using V = Vec<S, WIDTH>;
      const V g = load<V>(grad);
      store(to, V(load<V>(to) + a * g));
      store(to + WIDTH, V(load<V>(to + WIDTH) + b * g));
      store(to + below, V(load<V>(to + below) + c * g));
      store(to + below + WIDTH, V(load<V>(to + below + WIDTH) + d * g));
    } else {
      for (int64_t j = 0; j < width; ++j) {
        to[j] += a * grad[j];
        to[j + width] += b * grad[j];
        to[j + below] += c * grad[j];
        to[j + below + width] += d * grad[j];
      }
    }
  }
}

}  // namespace
