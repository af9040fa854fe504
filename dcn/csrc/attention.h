// Description of one windowed attention, for the CPU kernels. No PyTorch here, see problem.h.
#pragma once
#include <cstdint>

#include "problem.h"

namespace dcn {

// Tokens are a map (B, H, W); a token holds query, key and value of every head: [3][heads][width]. Windows of window x window queries
// tile the map after it was rolled by -shift; the keys of a window extend `margin` tokens beyond it. Keys beyond the map are zero and
// take part. With a shift, pairs that are neighbours only because of the roll get `kApart` added to their score.
struct Attention {
  int64_t batch, height, width, heads, head_width, window, margin, shift;
  float scale;
  Type type;         // f32 or bf16, of everything below
  const void* qkv;   // (B, H, W, 3, heads, head_width)
  const void* bias;  // (heads, queries, keys)
  void* out;         // (B, H, W, heads, head_width)

  int64_t reach() const { return window + 2 * margin; }
  int64_t queries() const { return window * window; }
  int64_t keys() const { return reach() * reach(); }
  int64_t rows() const { return height / window; }
  int64_t columns() const { return width / window; }
  int64_t tasks() const { return heads * batch * rows() * columns(); }  // windows of one head are consecutive: they share its bias
};

constexpr float kApart = -100.f;

struct AttentionKernels {
  int64_t (*scratch)(const Attention&);                                            // bytes that one thread needs, aligned to 64
  void (*run)(const Attention&, void* scratch, int64_t begin, int64_t end);  // tasks
};

}  // namespace dcn
