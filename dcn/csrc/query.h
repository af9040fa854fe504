// Description of one rendering by STNO's query, for the CPU kernels. No PyTorch here, see problem.h.
#pragma once
#include <cstdint>

namespace dcn {

// models/stno/query.py derives it. Along an axis of n cells there are n + 1 intervals between neighbouring centres. The first and the
// last are beyond the outermost centres; there both cells are the same. A corner of an output pixel's interval is 2 * (lower) + (right).
struct Rendering {
  int64_t batch, channels, height, width, hidden, out_height, out_width;  // hidden: a multiple of kHiddenStep
  const float* features;                      // (N, h, w, channels)
  const float* corners;                       // (channels, 4, hidden): contribution of each corner's cell to the hidden values
  const float *shift_y, *shift_x;             // (h + 1, 2, hidden): added at an interval's upper and lower end; (w + 1, 2, hidden): left, right
  const float *colour, *bias;                 // (3, hidden), (3): after the GELU
  const int64_t *interval_y, *interval_x;     // of each output row and column, ascending
  const float *fraction_y, *fraction_x;       // position inside the interval
  float* out;                                 // (N, 3, out_height, out_width)

  int64_t blocks_y() const { return (height + kBlock) / kBlock; }
  int64_t blocks_x() const { return (width + kBlock) / kBlock; }
  int64_t tasks() const { return batch * blocks_y() * blocks_x(); }

  static constexpr int64_t kBlock = 32;       // intervals per block along either axis; their maps stay in the L2 cache
  static constexpr int64_t kHiddenStep = 16;  // a multiple of the vector length of every instruction set
};

struct QueryKernels {
  int64_t (*scratch)(const Rendering&);  // floats that one thread needs, aligned to 64 bytes
  void (*run)(const Rendering&, float* scratch, int64_t begin, int64_t end);  // tasks
};

}  // namespace dcn
