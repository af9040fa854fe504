// Description of one motion-compensated addition, for the CPU kernels. No PyTorch here, see problem.h.
#pragma once
#include <cstdint>

namespace dcn {

// total += weight * image(p + motion(p)) and weights += weight, for each pixel p of the output. Motion and weight are given at another
// (lower) resolution and interpolated bilinearly; the image is sampled with the bicubic kernel (a = -0.75), beyond its border the border.
struct MovedSum {
  int64_t height, width;                     // output
  int64_t image_height, image_width;         // may differ from the output's: positions are relative to the frame
  int64_t motion_height, motion_width;
  const float* image;                        // (3, image_height, image_width)
  const float* motion;                       // (2, motion_height, motion_width), x then y, in pixels of this map
  const float* weight;                       // (motion_height, motion_width)
  float *total, *weights;                    // (3, height, width), (height, width)
};

struct MotionKernels {
  int64_t (*scratch)(const MovedSum&);  // floats that one thread needs
  void (*run)(const MovedSum&, float* scratch, int64_t begin, int64_t end);  // rows of the output
};

}  // namespace dcn
