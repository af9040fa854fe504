// The operator's arguments, checked once for every device.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "problem.h"

namespace dcn {

using at::IntArrayRef;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // input, offset, weight, mask

// Raises with one line for invalid arguments; fills all of Problem but the slices.
Problem check(const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& mask,
              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation);
void check_grad(const Problem& p, const Tensor& grad, const Tensor& input);
// Raises for other types.
Type type_of(const Tensor& tensor);

// One pair of functions per device. Unwanted gradients are empty tensors.
#define DCN_DECLARE(device)                                                                                                            \
  Tensor device##_forward(const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& bias,                 \
                          const OptionalTensor& mask, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation);                  \
  Gradients device##_backward(const Tensor& grad, const Tensor& input, const Tensor& offset, const Tensor& weight,                     \
                              const OptionalTensor& mask, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,               \
                              std::array<bool, 4> wanted);
DCN_DECLARE(cpu)
DCN_DECLARE(cuda)

// The kernels' instruction sets that this processor supports.
enum class Level : int { baseline, avx2, avx512, avx512bf16 };
Level instruction_set();

// Declares an operator's kernels of every instruction set, and `best_NAME()`: those for this processor.
#ifdef DCN_X86
#define DCN_KERNELS(Kernels, name)                                                                           \
  extern const Kernels name##_baseline, name##_avx2, name##_avx512;                                          \
  inline const Kernels& best_##name() {                                                                      \
    const Level level = instruction_set();                                                                   \
    return level >= Level::avx512 ? name##_avx512 : level == Level::avx2 ? name##_avx2 : name##_baseline;    \
  }
#else
#define DCN_KERNELS(Kernels, name)      \
  extern const Kernels name##_baseline; \
  inline const Kernels& best_##name() { return name##_baseline; }
#endif

// Documented in attention.h.
Tensor cpu_window_attention(const Tensor& qkv, const Tensor& bias, int64_t heads, int64_t window, int64_t margin, int64_t shift, double scale);

// Documented in query.h.
Tensor cpu_query(const Tensor& features, const Tensor& corners, const Tensor& shift_y, const Tensor& shift_x, const Tensor& colour,
                 const Tensor& bias, const Tensor& interval_y, const Tensor& fraction_y, const Tensor& interval_x, const Tensor& fraction_x);

// Documented in motion.h.
void cpu_add_moved(Tensor& total, Tensor& weights, const Tensor& image, const Tensor& motion, const Tensor& weight);

}  // namespace dcn
