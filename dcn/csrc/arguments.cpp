// Checks of the deformable convolution's arguments, for every device.
#include "operator.h"

namespace dcn {
namespace {

void check_kind(const char* name, const Tensor& tensor, const Tensor& input, bool float32_too) {
  TORCH_CHECK(tensor.device() == input.device(), "deform_conv2d: ", name, " is on ", tensor.device(), " but input is on ", input.device());
  const bool wider = float32_too && tensor.scalar_type() == at::kFloat && input.scalar_type() != at::kDouble;
  TORCH_CHECK(tensor.scalar_type() == input.scalar_type() || wider, "deform_conv2d: ", name, " is ", tensor.scalar_type(),
              " but input is ", input.scalar_type());
}

void check_shape(const char* name, const Tensor& tensor, IntArrayRef expected) {
  TORCH_CHECK(tensor.sizes() == expected, "deform_conv2d: ", name, " must have shape ", expected, ", got ", tensor.sizes());
}

void check_pair(const char* name, IntArrayRef value, int64_t least) {
  TORCH_CHECK(value.size() == 2 && value[0] >= least && value[1] >= least, "deform_conv2d: ", name, " must be two numbers of at least ",
              least, ", got ", value);
}

void check_weight(const Tensor& input, const Tensor& weight) {
  TORCH_CHECK(input.dim() == 4, "deform_conv2d: input must be (B, C, H, W), got ", input.sizes());
  TORCH_CHECK(weight.dim() == 4 && weight.numel() > 0, "deform_conv2d: weight must be (O, C/groups, kh, kw), got ", weight.sizes());
  const int64_t channels = input.size(1), per_group = weight.size(1);
  TORCH_CHECK(channels > 0 && channels % per_group == 0 && weight.size(0) % (channels / per_group) == 0, "deform_conv2d: weight ",
              weight.sizes(), " does not fit input with ", channels, " channels");
}

}  // namespace

Type type_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return Type::f32;
    case at::kDouble: return Type::f64;
    case at::kHalf: return Type::f16;
    case at::kBFloat16: return Type::bf16;
    default: TORCH_CHECK(false, "deform_conv2d: unsupported type ", tensor.scalar_type(), " (float32, float64, float16 or bfloat16)");
  }
}

Problem check(const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& mask,
              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
  check_weight(input, weight);
  check_pair("stride", stride, 1);
  check_pair("padding", padding, 0);
  check_pair("dilation", dilation, 1);
  Problem p{};
  p.channels = input.size(1), p.height = input.size(2), p.width = input.size(3);
  p.out_channels = weight.size(0), p.kernel_h = weight.size(2), p.kernel_w = weight.size(3);
  p.stride_h = stride[0], p.stride_w = stride[1];
  p.pad_h = padding[0], p.pad_w = padding[1];
  p.dilation_h = dilation[0], p.dilation_w = dilation[1];
  p.groups = p.channels / weight.size(1);
  const int64_t free_h = p.height + 2 * p.pad_h - p.dilation_h * (p.kernel_h - 1) - 1;
  const int64_t free_w = p.width + 2 * p.pad_w - p.dilation_w * (p.kernel_w - 1) - 1;
  TORCH_CHECK(free_h >= -p.stride_h && free_w >= -p.stride_w, "deform_conv2d: the kernel does not fit on the map: the output size is negative");
  p.out_h = free_h < 0 ? 0 : free_h / p.stride_h + 1;
  p.out_w = free_w < 0 ? 0 : free_w / p.stride_w + 1;
  TORCH_CHECK(offset.dim() == 4 && offset.size(1) > 0 && offset.size(1) % (2 * p.points()) == 0,
              "deform_conv2d: offset must be (B, 2*G*", p.points(), ", Ho, Wo), got ", offset.sizes());
  p.deform_groups = offset.size(1) / (2 * p.points());
  TORCH_CHECK(p.channels % p.deform_groups == 0, "deform_conv2d: ", p.channels, " input channels cannot be split into ", p.deform_groups,
              " deformable groups");
  check_shape("offset", offset, {input.size(0), 2 * p.deform_groups * p.points(), p.out_h, p.out_w});
  check_kind("offset", offset, input, true);
  check_kind("weight", weight, input, false);
  if (mask) {
    check_shape("mask", *mask, {input.size(0), p.deform_groups * p.points(), p.out_h, p.out_w});
    check_kind("mask", *mask, input, true);
  }
  if (bias) {
    check_shape("bias", *bias, {p.out_channels});
    check_kind("bias", *bias, input, false);
  }
  return p;
}

void check_grad(const Problem& p, const Tensor& grad, const Tensor& input) {
  check_shape("the output's gradient", grad, {input.size(0), p.out_channels, p.out_h, p.out_w});
  check_kind("the output's gradient", grad, input, false);
}

}  // namespace dcn
