// Motion-compensated addition on CPUs: arguments, memory, threads and the choice of the kernel.
#include "motion.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "operator.h"

namespace dcn {

DCN_KERNELS(MotionKernels, motion)

namespace {

void check_map(const char* name, const Tensor& map, int64_t channels) {
  TORCH_CHECK(map.dim() == 3 && map.size(0) == channels && map.size(1) > 0 && map.size(2) > 0, "add_moved: ", name, " must be (", channels,
              ", h, w), got ", map.sizes());
  TORCH_CHECK(map.scalar_type() == at::kFloat, "add_moved: ", name, " is ", map.scalar_type(), ", expected float32");
}

}  // namespace

void cpu_add_moved(Tensor& total, Tensor& weights, const Tensor& image, const Tensor& motion, const Tensor& weight) {
  check_map("total", total, 3), check_map("weights", weights, 1), check_map("image", image, 3);
  check_map("motion", motion, 2), check_map("weight", weight, 1);
  TORCH_CHECK(total.is_contiguous() && weights.is_contiguous(), "add_moved: total and weights must be contiguous");
  TORCH_CHECK(weights.size(1) == total.size(1) && weights.size(2) == total.size(2), "add_moved: weights must have the size of total");
  TORCH_CHECK(weight.size(1) == motion.size(1) && weight.size(2) == motion.size(2), "add_moved: weight must have the size of motion");
  const Tensor images = image.contiguous(), motions = motion.contiguous(), shares = weight.contiguous();
  MovedSum s{};
  s.height = total.size(1), s.width = total.size(2);
  s.image_height = images.size(1), s.image_width = images.size(2);
  s.motion_height = motions.size(1), s.motion_width = motions.size(2);
  s.image = images.const_data_ptr<float>(), s.motion = motions.const_data_ptr<float>(), s.weight = shares.const_data_ptr<float>();
  s.total = total.mutable_data_ptr<float>(), s.weights = weights.mutable_data_ptr<float>();
  const MotionKernels& k = best_motion();
  at::parallel_for(0, s.height, 16, [&](int64_t begin, int64_t end) {
    const Tensor memory = at::empty({k.scratch(s)}, at::TensorOptions(at::kFloat));
    k.run(s, memory.mutable_data_ptr<float>(), begin, end);
  });
}

}  // namespace dcn
