// The operators of kernels.py, where their arguments are explained.
//
// Each row of scores stays in the first cache from the first pass over it to the last.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

using at::Tensor;
using at::vec::Vectorized;

// Numbers that are worth a thread of their own.
constexpr int64_t kGrain = 32768;

// Sums that fit into the registers: of eight rows, and of four heads.
#ifdef CPU_CAPABILITY_AVX512
constexpr int kOuts = 3, kValues = 4;
#else
constexpr int kOuts = 1, kValues = 2;
#endif

// The compiler's own vectors: it keeps sums of the library's in memory.
template <typename T>
struct Registers {
  typedef T Lanes __attribute__((vector_size(sizeof(Vectorized<T>))));
  typedef T Unaligned __attribute__((vector_size(sizeof(Vectorized<T>)), aligned(1), may_alias));
  static constexpr int64_t kLanes = sizeof(Lanes) / sizeof(T);

  static inline Lanes load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
  static inline void store(T* to, Lanes values) { *reinterpret_cast<Unaligned*>(to) = values; }
};

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

// A whole vector by a plain load: the other kind goes through a buffer.
template <typename T>
inline Vectorized<T> load(const T* from, int64_t count) {
  return count == Vectorized<T>::size() ? Vectorized<T>::loadu(from)
                                        : Vectorized<T>::loadu(from, count);
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

// The sum of a vector's numbers.
template <typename T>
inline T add_up(typename Registers<T>::Lanes vector) {
  using Vec = Vectorized<T>;
  return at::vec::vec_reduce_all<T>(
      [](Vec a, Vec b) { return a + b; }, Vec::loadu(reinterpret_cast<const T*>(&vector)));
}

// The same of each of four vectors.
template <typename T>
inline void add_up_four(const typename Registers<T>::Lanes* vectors, T* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = add_up<T>(vectors[i]);
}

#ifdef CPU_CAPABILITY_AVX512
template <>
inline void add_up_four<float>(const Registers<float>::Lanes* vectors, float* sums) {
  const __m512 a = (__m512)vectors[0], b = (__m512)vectors[1];
  const __m512 c = (__m512)vectors[2], d = (__m512)vectors[3];
  // Within each quarter [a, b, a, b] and [c, d, c, d], then [a, b, c, d]; the quarters at last.
  const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
  const __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
  const __m512 quarters = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) +
      _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
  const __m256 halves = _mm512_castps512_ps256(quarters) + _mm512_extractf32x8_ps(quarters, 1);
  _mm_storeu_ps(sums, _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1));
}
#endif

// Weights as numbers to multiply by; those of 16 bits are widened, which is exact.
template <typename T>
inline typename Registers<T>::Lanes load_weights(const T* from) {
  return Registers<T>::load(from);
}

inline Registers<float>::Lanes load_weights(const at::BFloat16* from) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Registers<float>::Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#elif defined(CPU_CAPABILITY_AVX2)
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Registers<float>::Lanes)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
  Registers<float>::Lanes wide;
  for (int64_t i = 0; i < Registers<float>::kLanes; ++i) wide[i] = from[i];
  return wide;
#endif
}

// y[r][o] = x[r] · w[o] + bias[o] for `Rows` rows and `Outs` outputs, all of the sums at once in
// registers: each weight is loaded once. Meanwhile the weights of the next outputs are fetched, from
// `begun` of them on a `share` of them.
template <typename T, typename W, int Rows, int Outs>
void multiply_block(
    const T* x, const W* w, const W* bias, T* y, int64_t inputs, int64_t outputs, double begun,
    double share) {
  using R = Registers<T>;
  typename R::Lanes sums[Outs * Rows];
  // One by one: all at once would be done in memory.
#pragma GCC unroll 24
  for (int i = 0; i < Outs * Rows; ++i) sums[i] = typename R::Lanes{};
  const W* next = w + Outs * inputs + static_cast<int64_t>(begun * inputs);
  const auto pace = static_cast<int64_t>(share * R::kLanes);
  int64_t whole = 0;
  for (; whole + R::kLanes <= inputs; whole += R::kLanes, next += pace) {
    typename R::Lanes weights[Outs];
#pragma GCC unroll 8
    for (int o = 0; o < Outs; ++o) {
      weights[o] = load_weights(w + o * inputs + whole);
      __builtin_prefetch(next + o * inputs);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const auto values = R::load(x + r * inputs + whole);
#pragma GCC unroll 8
      for (int o = 0; o < Outs; ++o) sums[o * Rows + r] += values * weights[o];
    }
  }
  T totals[Outs * Rows];
  int done = 0;
  for (; done + 4 <= Outs * Rows; done += 4) add_up_four<T>(sums + done, totals + done);
  for (; done < Outs * Rows; ++done) totals[done] = add_up<T>(sums[done]);
  for (int r = 0; r < Rows; ++r)
    for (int o = 0; o < Outs; ++o) {
      T total = totals[o * Rows + r] + (bias ? static_cast<T>(bias[o]) : T(0));
      for (int64_t i = whole; i < inputs; ++i)
        total += x[r * inputs + i] * static_cast<T>(w[o * inputs + i]);
      y[r * outputs + o] = total;
    }
}

// All `count` rows for `Outs` outputs, whose weights stay in the cache from rows to rows.
template <typename T, typename W, int Outs>
void multiply_outputs(
    const T* x, int64_t count, const W* w, const W* bias, T* y, int64_t inputs, int64_t outputs) {
  int64_t r = 0;
  const auto multiply = [&](auto height) {
    constexpr int Rows = decltype(height)::value;
    for (; r + Rows <= count; r += Rows)
      multiply_block<T, W, Rows, Outs>(
          x + r * inputs, w, bias, y + r * outputs, inputs, outputs,
          static_cast<double>(r) / count, static_cast<double>(Rows) / count);
  };
  multiply(std::integral_constant<int, 8>());
  multiply(std::integral_constant<int, 4>());
  multiply(std::integral_constant<int, 2>());
  multiply(std::integral_constant<int, 1>());
}

template <typename T, typename W>
void multiply_all(
    const T* x, int64_t count, const W* w, const W* bias, T* y, int64_t inputs, int64_t outputs) {
  const int64_t grain = std::max<int64_t>(kOuts, kGrain / inputs);
  at::parallel_for(0, outputs, grain, [&](int64_t begin, int64_t end) {
    int64_t o = begin;
    const auto multiply = [&](auto width) {
      constexpr int Outs = decltype(width)::value;
      for (; o + Outs <= end; o += Outs)
        multiply_outputs<T, W, Outs>(
            x, count, w + o * inputs, bias ? bias + o : nullptr, y + o, inputs, outputs);
    };
    multiply(std::integral_constant<int, kOuts>());
    multiply(std::integral_constant<int, 1>());
  });
}

Tensor multiply_few(
    const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias) {
  TORCH_CHECK(rows.is_contiguous() && weight.is_contiguous(), "both must be contiguous");
  const int64_t inputs = weight.size(1), outputs = weight.size(0);
  TORCH_CHECK(rows.size(-1) == inputs, "rows must have as many inputs as the weights");
  const int64_t count = rows.numel() / inputs;
  auto sizes = rows.sizes().vec();
  sizes.back() = outputs;
  Tensor found = at::empty(sizes, rows.options());
  const auto multiply = [&](auto number, auto weight_number) {
    using T = decltype(number);
    using W = decltype(weight_number);
    multiply_all<T, W>(
        rows.const_data_ptr<T>(), count, weight.const_data_ptr<W>(),
        bias ? bias->const_data_ptr<W>() : nullptr, found.data_ptr<T>(), inputs, outputs);
  };
  if (weight.scalar_type() == at::kBFloat16)
    multiply(float(), at::BFloat16());
  else
    AT_DISPATCH_FLOATING_TYPES(
        rows.scalar_type(), "multiply_few", [&] { multiply(scalar_t(), scalar_t()); });
  return found;
}

// scores[h][j] = q[h] · keys[:, j] for `Heads` query heads, and keys [D, stride] by columns.
template <typename T, int Heads>
void score(
    const T* q, int64_t width, const T* keys, int64_t stride, int64_t count, T* scores,
    int64_t scores_stride) {
  using R = Registers<T>;
  int64_t j = 0;
  for (; j + 2 * R::kLanes <= count; j += 2 * R::kLanes) {
    typename R::Lanes sums[Heads][2] = {};
    for (int64_t d = 0; d < width; ++d) {
      const auto first = R::load(keys + d * stride + j);
      const auto second = R::load(keys + d * stride + j + R::kLanes);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) {
        sums[h][0] += q[h * width + d] * first;
        sums[h][1] += q[h * width + d] * second;
      }
    }
    for (int h = 0; h < Heads; ++h)
      for (int i = 0; i < 2; ++i)
        R::store(scores + h * scores_stride + j + i * R::kLanes, sums[h][i]);
  }
  using Vec = Vectorized<T>;
  for (; j < count; j += Vec::size()) {
    const int64_t some = std::min<int64_t>(Vec::size(), count - j);
    Vec sums[Heads];
    for (int h = 0; h < Heads; ++h) sums[h] = Vec(0);
    for (int64_t d = 0; d < width; ++d) {
      const Vec key = load<T>(keys + d * stride + j, some);
      for (int h = 0; h < Heads; ++h)
        sums[h] = at::vec::fmadd(Vec(q[h * width + d]), key, sums[h]);
    }
    for (int h = 0; h < Heads; ++h) sums[h].store(scores + h * scores_stride + j, some);
  }
}

// seen[h] += Σ_j weights[h][j] values[j] for `Heads` query heads.
template <typename T, int Heads>
void gather(
    const T* weights, int64_t weights_stride, const T* values, int64_t width, int64_t count,
    T* seen) {
  using R = Registers<T>;
  int64_t d = 0;
  for (; d + kValues * R::kLanes <= width; d += kValues * R::kLanes) {
    typename R::Lanes sums[Heads][kValues];
    for (int h = 0; h < Heads; ++h)
      for (int i = 0; i < kValues; ++i) sums[h][i] = R::load(seen + h * width + d + i * R::kLanes);
    for (int64_t j = 0; j < count; ++j) {
      typename R::Lanes some[kValues];
#pragma GCC unroll 4
      for (int i = 0; i < kValues; ++i) some[i] = R::load(values + j * width + d + i * R::kLanes);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h)
#pragma GCC unroll 4
        for (int i = 0; i < kValues; ++i) sums[h][i] += weights[h * weights_stride + j] * some[i];
    }
    for (int h = 0; h < Heads; ++h)
      for (int i = 0; i < kValues; ++i) R::store(seen + h * width + d + i * R::kLanes, sums[h][i]);
  }
  using Vec = Vectorized<T>;
  for (; d < width; d += Vec::size()) {
    const int64_t some = std::min<int64_t>(Vec::size(), width - d);
    Vec sums[Heads];
    for (int h = 0; h < Heads; ++h) sums[h] = load<T>(seen + h * width + d, some);
    for (int64_t j = 0; j < count; ++j) {
      const Vec value = load<T>(values + j * width + d, some);
      for (int h = 0; h < Heads; ++h)
        sums[h] = at::vec::fmadd(Vec(weights[h * weights_stride + j]), value, sums[h]);
    }
    for (int h = 0; h < Heads; ++h) sums[h].store(seen + h * width + d, some);
  }
}

// One more token for each of R rows: it is put into the row's own caches at `place`, and sees the
// prompt, `lengths` tokens from `starts` on, and what the row's slot holds up to itself.
Tensor attend_next(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& prompt_keys,
    const Tensor& prompt_values, const Tensor& own_keys, const Tensor& own_values,
    const Tensor& starts, const Tensor& lengths, const Tensor& slots, int64_t place,
    std::optional<int64_t> window, double scaling, std::optional<double> softcap) {
  for (const Tensor& each :
       {query, key, value, prompt_keys, prompt_values, own_keys, own_values, starts, lengths, slots})
    TORCH_CHECK(each.is_contiguous(), "everything must be contiguous");
  TORCH_CHECK(place < own_values.size(2), "the caches are full");
  const int64_t rows = query.size(0), width = query.size(2), value_width = own_values.size(3);
  const int64_t key_heads = own_keys.size(1), capacity = own_keys.size(3);
  const int64_t heads = query.size(1) / key_heads, prompt_tokens = prompt_keys.size(2);
  const auto* start = starts.const_data_ptr<int64_t>();
  const auto* length = lengths.const_data_ptr<int64_t>();
  const auto* slot_of = slots.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row)
    TORCH_CHECK(
        slot_of[row] < own_keys.size(0) && start[row] + length[row] <= prompt_tokens,
        "a row must have a slot, and its prompt a place");
  Tensor found = at::zeros({rows, query.size(1), value_width}, query.options());
  AT_DISPATCH_FLOATING_TYPES(query.scalar_type(), "attend_next", [&] {
    using Vec = Vectorized<scalar_t>;
    const scalar_t cap = softcap.value_or(1.0);
    const Vec factor(softcap ? scaling / *softcap : scaling);
    at::parallel_for(0, rows * key_heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> buffer;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / key_heads, key_head = item % key_heads;
        const int64_t slot = slot_of[row] * key_heads + key_head;
        auto* own_key = own_keys.data_ptr<scalar_t>() + slot * width * capacity;
        auto* own_value = own_values.data_ptr<scalar_t>() + slot * capacity * value_width;
        const auto* new_key = key.const_data_ptr<scalar_t>() + item * width;
        const auto* new_value = value.const_data_ptr<scalar_t>() + item * value_width;
        for (int64_t d = 0; d < width; ++d) own_key[d * capacity + place] = new_key[d];
        std::copy(new_value, new_value + value_width, own_value + place * value_width);

        const int64_t prompt = length[row];
        const int64_t hidden = window ? std::max<int64_t>(0, prompt + place + 1 - *window) : 0;
        const int64_t skipped = std::min(hidden, prompt), own_first = hidden - skipped;
        const int64_t first = start[row] + skipped;
        const int64_t of_prompt = prompt - skipped, of_own = place + 1 - own_first;
        const int64_t count = of_prompt + of_own;
        const auto* prompt_key =
            prompt_keys.const_data_ptr<scalar_t>() + key_head * width * prompt_tokens + first;
        const auto* prompt_value = prompt_values.const_data_ptr<scalar_t>() +
            (key_head * prompt_tokens + first) * value_width;
        const auto* q = query.const_data_ptr<scalar_t>() + item * heads * width;
        auto* seen = found.data_ptr<scalar_t>() + item * heads * value_width;
        buffer.resize(heads * count);

        const auto some_heads = [&](auto number, int64_t h) {
          constexpr int Heads = decltype(number)::value;
          scalar_t* scores = buffer.data() + h * count;
          score<scalar_t, Heads>(
              q + h * width, width, prompt_key, prompt_tokens, of_prompt, scores, count);
          score<scalar_t, Heads>(
              q + h * width, width, own_key + own_first, capacity, of_own, scores + of_prompt,
              count);
          for (int64_t i = 0; i < Heads; ++i) {
            scalar_t* x = scores + i * count;
            if (softcap)
              at::vec::map<scalar_t>([=](Vec v) { return (v * factor).tanh(); }, x, x, count);
            else
              at::vec::map<scalar_t>([=](Vec v) { return v * factor; }, x, x, count);
            normalise(x, count, cap);
          }
          gather<scalar_t, Heads>(
              scores, count, prompt_value, value_width, of_prompt, seen + h * value_width);
          gather<scalar_t, Heads>(
              scores + of_prompt, count, own_value + own_first * value_width, value_width, of_own,
              seen + h * value_width);
        };
        int64_t h = 0;
        for (; h + 4 <= heads; h += 4) some_heads(std::integral_constant<int, 4>(), h);
        if (heads - h == 3) some_heads(std::integral_constant<int, 3>(), h);
        if (heads - h == 2) some_heads(std::integral_constant<int, 2>(), h);
        if (heads - h == 1) some_heads(std::integral_constant<int, 1>(), h);
      }
    });
  });
  return found;
}

// Call `work(row)` for rows of `width` numbers, some in each thread.
template <typename Work>
void for_each(int64_t rows, int64_t width, const Work& work) {
  at::parallel_for(
      0, rows, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) work(row);
      });
}

std::tuple<Tensor, Tensor> rms_norm(
    const Tensor& x, const Tensor& weight, double eps, double offset) {
  TORCH_CHECK(x.is_contiguous() && weight.is_contiguous(), "both must be contiguous");
  const int64_t width = weight.numel(), rows = x.numel() / width;
  TORCH_CHECK(x.size(-1) == width, "x must have as many columns as the weight");
  Tensor found = at::empty(x.sizes(), x.options());
  Tensor inverse = at::empty(x.sizes().slice(0, x.dim() - 1), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] {
    using Vec = Vectorized<scalar_t>;
    const auto* from = x.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    auto* to = found.data_ptr<scalar_t>();
    auto* inverses = inverse.data_ptr<scalar_t>();
    const Vec added(static_cast<scalar_t>(offset));
    for_each(rows, width, [&](int64_t row) {
      const scalar_t* own = from + row * width;
      const scalar_t squares = at::vec::map_reduce_all<scalar_t>(
          [](Vec v) { return v * v; }, [](Vec a, Vec b) { return a + b; }, own, width);
      inverses[row] = 1 / std::sqrt(squares / width + static_cast<scalar_t>(eps));
      const Vec scale(inverses[row]);
      at::vec::map2<scalar_t>(
          [=](Vec v, Vec weights) { return v * scale * (added + weights); }, to + row * width, own,
          w, width);
    });
  });
  return {found, inverse};
}

Tensor rms_norm_backward(
    const Tensor& d_found, const Tensor& x, const Tensor& weight, const Tensor& inverse,
    double offset) {
  TORCH_CHECK(d_found.is_contiguous() && d_found.sizes() == x.sizes(), "gradients must fit");
  const int64_t width = weight.numel(), rows = x.numel() / width;
  Tensor d_x = at::empty(x.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm_backward", [&] {
    using Vec = Vectorized<scalar_t>;
    const auto* from = x.const_data_ptr<scalar_t>();
    const auto* slopes = d_found.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    const auto* inverses = inverse.const_data_ptr<scalar_t>();
    auto* to = d_x.data_ptr<scalar_t>();
    const Vec added(static_cast<scalar_t>(offset));
    for_each(rows, width, [&](int64_t row) {
      const scalar_t *own = from + row * width, *slope = slopes + row * width;
      // The slope by x / rms, then what of it goes along x.
      scalar_t* d = to + row * width;
      at::vec::map2<scalar_t>(
          [=](Vec v, Vec weights) { return v * (added + weights); }, d, slope, w, width);
      const scalar_t along = at::vec::map2_reduce_all<scalar_t>(
          [](Vec a, Vec b) { return a * b; }, [](Vec a, Vec b) { return a + b; }, d, own, width);
      const Vec scale(inverses[row]);
      const Vec part(along * inverses[row] * inverses[row] / width);
      at::vec::map2<scalar_t>(
          [=](Vec v, Vec values) { return scale * (v - values * part); }, d, d, own, width);
    });
  });
  return d_x;
}

// Ask for pages of two MiB where these addresses lie; a system that has none goes on as it was.
void use_large_pages(int64_t first, int64_t last) {
#ifdef __linux__
  constexpr int64_t kPage = int64_t{1} << 21;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, since Linux 6.1; older headers lack the name
  const int64_t begin = (first + kPage - 1) / kPage * kPage, end = last / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, kCollapse);
#endif
}

}  // namespace

TORCH_LIBRARY(judicaita, library) {
  library.def(
      "weigh_(Tensor(a!) scores, int place, int? window, float? softcap) -> Tensor", &weigh_);
  library.def(
      "weigh_backward_(Tensor(a!) scores, Tensor(b!) d_weights, Tensor log_sum, int place, "
      "int? window, float? softcap) -> ()",
      &weigh_backward_);
  library.def("multiply_few(Tensor rows, Tensor weight, Tensor? bias) -> Tensor", &multiply_few);
  library.def(
      "attend_next(Tensor query, Tensor key, Tensor value, Tensor prompt_keys, "
      "Tensor prompt_values, Tensor(a!) own_keys, Tensor(b!) own_values, Tensor starts, "
      "Tensor lengths, Tensor slots, int place, int? window, float scaling, float? softcap) "
      "-> Tensor",
      &attend_next);
  library.def(
      "rms_norm(Tensor x, Tensor weight, float eps, float offset) -> (Tensor, Tensor)", &rms_norm);
  library.def(
      "rms_norm_backward(Tensor d_found, Tensor x, Tensor weight, Tensor inverse, float offset) "
      "-> Tensor",
      &rms_norm_backward);
  library.def("use_large_pages(int first, int last) -> ()", &use_large_pages);
}
