// Motion-compensated addition on a CPU: the four taps of a row are one vector, so that motion may send each pixel anywhere.
// Compiled once per instruction set; all computation is in float32.
#include "motion.h"
#include "vector.h"

#include <cstdint>

namespace {

using dcn::MovedSum;

using V = Vec<float, 4>;

inline int64_t bounded(int64_t value, int64_t end) { return value < 0 ? 0 : value < end ? value : end - 1; }

// A position between -4 and n + 3, beyond which every tap is the border; NaN becomes -4.
inline float bounded_position(float position, int64_t n) {
  const float least = -4.f, most = float(n) + 3.f;
  position = position > least ? position : least;
  return position < most ? position : most;
}

// Two neighbouring cells of a map for an output position, and the share of the second: bilinear, half-pixel centres.
struct Between {
  int32_t first, second;
  float share;

  static Between of(int64_t output, int64_t outputs, int64_t cells) {
    const double position = (double(output) + 0.5) * double(cells) / double(outputs) - 0.5;
    if (position <= 0) return {0, 0, 0.f};
    const int64_t first = smaller(int64_t(position), cells - 1);
    return {int32_t(first), int32_t(smaller(first + 1, cells - 1)), float(position - double(first))};
  }
};

// The bicubic kernel (a = -0.75) at distances 1 + t, t, 1 - t and 2 - t, each a cubic polynomial in t.
inline V taps(float t) {
  constexpr float a = -0.75f;
  const V cubic = {a, a + 2.f, -a - 2.f, -a}, square = {-2.f * a, -a - 3.f, 2.f * a + 3.f, a}, linear = {a, 0.f, -a, 0.f};
  return ((cubic * t + square) * t + linear) * t + V{0.f, 1.f, 0.f, 0.f};
}

struct Column {
  Between cells;  // of the motion
  float centre;   // in pixels of the image
};

class Rows {
 public:
  static int64_t floats(const MovedSum& s) { return 3 * s.motion_width + s.width * int64_t(sizeof(Column) / sizeof(float)); }

  Rows(const MovedSum& sum, float* memory)
      : s(sum), across(memory), down(memory + s.motion_width), share(memory + 2 * s.motion_width),
        columns(reinterpret_cast<Column*>(memory + 3 * s.motion_width)) {
    const double cell = double(s.image_width) / double(s.width);
    for (int64_t x = 0; x < s.width; ++x)
      columns[x] = {Between::of(x, s.width, s.motion_width), float((double(x) + 0.5) * cell - 0.5)};
  }

  void run(int64_t y) {
    blend(y);
    const double cell_y = double(s.image_height) / double(s.height);
    const float step_x = float(double(s.image_width) / double(s.motion_width)), step_y = float(double(s.image_height) / double(s.motion_height));
    const float centre_y = float((double(y) + 0.5) * cell_y - 0.5);
    const int64_t plane = s.height * s.width;
    float *total = s.total + y * s.width, *weights = s.weights + y * s.width;
    for (int64_t x = 0; x < s.width; ++x) {
      const auto [b, centre] = columns[x];
      const float weight = lerp(share, b);
      const V colour = sample(centre + step_x * lerp(across, b), centre_y + step_y * lerp(down, b));
      for (int channel = 0; channel < 3; ++channel) total[channel * plane + x] += weight * colour[channel];
      weights[x] += weight;
    }
  }

 private:
  const MovedSum& s;
  float *across, *down, *share;  // motion and weight of the current output row, at the width of the motion
  Column* columns;

  static float lerp(const float* row, Between b) { return row[b.first] + b.share * (row[b.second] - row[b.first]); }

  void blend(int64_t y) {
    const Between b = Between::of(y, s.height, s.motion_height);
    const int64_t w = s.motion_width, plane = s.motion_height * w;
    const float* maps[] = {s.motion, s.motion + plane, s.weight};
    float* rows[] = {across, down, share};
    for (int map = 0; map < 3; ++map) {
      const float *upper = maps[map] + b.first * w, *lower = maps[map] + b.second * w;
      for (int64_t x = 0; x < w; ++x) rows[map][x] = upper[x] + b.share * (lower[x] - upper[x]);
    }
  }

  // The three colours of the image at a position in its pixels.
  V sample(float x, float y) const {
    x = bounded_position(x, s.image_width), y = bounded_position(y, s.image_height);
    const int64_t left = int64_t(x + 8.f) - 8, top = int64_t(y + 8.f) - 8;  // rounded down
    const V horizontal = taps(x - float(left)), vertical = taps(y - float(top));
    const int64_t w = s.image_width, h = s.image_height, plane = h * w;
    V sums[3] = {};
    if (left >= 1 && left + 2 < w && top >= 1 && top + 2 < h) {
      const float* from = s.image + (top - 1) * w + left - 1;
      for (int tap = 0; tap < 4; ++tap, from += w)
        for (int channel = 0; channel < 3; ++channel) sums[channel] += vertical[tap] * load<V>(from + channel * plane);
    } else {
      for (int tap = 0; tap < 4; ++tap) {
        const float* from = s.image + bounded(top - 1 + tap, h) * w;
        for (int channel = 0; channel < 3; ++channel, from += plane) {
          const V row = {from[bounded(left - 1, w)], from[bounded(left, w)], from[bounded(left + 1, w)], from[bounded(left + 2, w)]};
          sums[channel] += vertical[tap] * row;
        }
      }
    }
    return sums_of_lanes<float, 4>(sums[0] * horizontal, sums[1] * horizontal, sums[2] * horizontal, V{});
  }
};

int64_t scratch_of(const MovedSum& s) { return Rows::floats(s); }

void run_rows(const MovedSum& s, float* scratch, int64_t begin, int64_t end) {
  Rows rows(s, scratch);
  for (int64_t y = begin; y < end; ++y) rows.run(y);
}

}  // namespace

namespace dcn {
extern const MotionKernels DCN_NAME(motion_, DCN_ISA);
const MotionKernels DCN_NAME(motion_, DCN_ISA) = {scratch_of, run_rows};
}  // namespace dcn
