// The operator's arguments, checked once for every device.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "problem.h"

namespace dcn {

using at::IntArrayRef;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // input, offset, weight, mask

// Raises with one line unless everything fits; fills all of Problem but the slices.
Problem check(const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& mask,
              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation);
void check_grad(const Problem& p, const Tensor& grad, const Tensor& input);

}  // namespace dcn
