// The operators of kernels.py, where their arguments are explained.
//
// Each row of scores stays in the first cache from the first pass over it to the last.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace {

using at::Tensor;
using at::vec::Vectorized;

// Numbers that are worth a thread of their own.
constexpr int64_t kGrain = 32768;

// Call `work(row, first, last)` for every row of scores: the query sees keys [first, last).
template <typename Work>
void for_each_row(
    const Tensor& scores, int64_t place, std::optional<int64_t> window, const Work& work) {
  const int64_t keys = scores.size(-1), queries = scores.size(-2);
  const int64_t rows = scores.numel() / keys;
  TORCH_CHECK(place >= 0 && place + queries <= keys, "a query must stand among its keys");
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / keys), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t last = place + row % queries + 1;
      work(row, window ? std::max<int64_t>(0, last - *window) : 0, last);
    }
  });
}

// exp(cap · x) over their sum, whose logarithm is returned.
template <typename T>
T normalise(T* x, int64_t count, T cap) {
  using Vec = Vectorized<T>;
  const T top = at::vec::reduce_all<T>(
      [](Vec a, Vec b) { return at::vec::maximum(a, b); }, x, count);
  const Vec tops(top), caps(cap);
  at::vec::map<T>([=](Vec v) { return ((v - tops) * caps).exp(); }, x, x, count);
  const T sum = at::vec::reduce_all<T>([](Vec a, Vec b) { return a + b; }, x, count);
  const Vec inverse(1 / sum);
  at::vec::map<T>([=](Vec v) { return v * inverse; }, x, x, count);
  return top * cap + std::log(sum);
}

template <typename T>
void clear_hidden(T* row, int64_t first, int64_t last, int64_t keys) {
  std::fill(row, row + first, T(0));
  std::fill(row + last, row + keys, T(0));
}

Tensor weigh_(
    Tensor scores, int64_t place, std::optional<int64_t> window, std::optional<double> softcap) {
  TORCH_CHECK(scores.is_contiguous(), "scores must be contiguous");
  const int64_t keys = scores.size(-1);
  Tensor log_sum = at::empty(scores.sizes().slice(0, scores.dim() - 1), scores.options());
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "weigh_", [&] {
    using Vec = Vectorized<scalar_t>;
    auto* all = scores.data_ptr<scalar_t>();
    auto* sums = log_sum.data_ptr<scalar_t>();
    const scalar_t cap = softcap.value_or(1.0);
    for_each_row(scores, place, window, [&](int64_t row, int64_t first, int64_t last) {
      scalar_t* x = all + row * keys;
      clear_hidden(x, first, last, keys);
      sums[row] = normalise(x + first, last - first, cap);
    });
  });
  return log_sum;
}

void weigh_backward_(
    Tensor scores, Tensor d_weights, const Tensor& log_sum, int64_t place,
    std::optional<int64_t> window, std::optional<double> softcap) {
  TORCH_CHECK(scores.is_contiguous() && d_weights.is_contiguous(), "both must be contiguous");
  const int64_t keys = scores.size(-1);
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "weigh_backward_", [&] {
    using Vec = Vectorized<scalar_t>;
    auto* all = scores.data_ptr<scalar_t>();
    auto* d_all = d_weights.data_ptr<scalar_t>();
    const auto* sums = log_sum.const_data_ptr<scalar_t>();
    const Vec caps(softcap.value_or(1.0)), one(1);
    for_each_row(scores, place, window, [&](int64_t row, int64_t first, int64_t last) {
      scalar_t *x = all + row * keys, *d = d_all + row * keys;
      clear_hidden(x, first, last, keys);
      clear_hidden(d, first, last, keys);
      x += first;
      d += first;
      const int64_t count = last - first;
      static thread_local std::vector<scalar_t> buffer;
      buffer.resize(keys);
      scalar_t* weights = buffer.data();
      const Vec log_sums(sums[row]);
      at::vec::map<scalar_t>(
          [=](Vec v) { return (v * caps - log_sums).exp(); }, weights, x, count);
      const Vec mean(at::vec::map2_reduce_all<scalar_t>(
          [](Vec w, Vec g) { return w * g; }, [](Vec a, Vec b) { return a + b; },
          weights, d, count));
      if (softcap) {
        at::vec::map3<scalar_t>(
            [=](Vec t, Vec w, Vec g) { return w * (g - mean) * (one - t * t) * caps; },
            d, x, weights, d, count);
      } else {
        at::vec::map2<scalar_t>([=](Vec w, Vec g) { return w * (g - mean); }, d, weights, d, count);
      }
      std::copy(weights, weights + count, x);
    });
  });
}

}  // namespace

TORCH_LIBRARY(judicaita, library) {
  library.def(
      "weigh_(Tensor(a!) scores, int place, int? window, float? softcap) -> Tensor", &weigh_);
  library.def(
      "weigh_backward_(Tensor(a!) scores, Tensor(b!) d_weights, Tensor log_sum, int place, "
      "int? window, float? softcap) -> ()",
      &weigh_backward_);
}
