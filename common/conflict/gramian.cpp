#include "common/conflict/gramian.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/conflict/gramian_kernels.h"
#include "common/invariant.h"

namespace detente {

void Gramian::add_block(std::span<const float* const> rows, std::size_t elements) {
    invariant(rows.size() == tasks_,
              "a block has one row, possibly empty, per task of the Gramian");
    std::vector<std::size_t> tasks;
    std::vector<const float*> present;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] == nullptr) continue;
        tasks.push_back(i);
        present.push_back(rows[i]);
    }
    const std::size_t n = present.size();
    if (n == 0 || elements == 0) return;
    // Tiles are added to the entries themselves, not to a sum of the block's own: a vector cut into
    // blocks then adds up in the same order as the whole.
    std::vector<double> sums(n * n);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = i; j < n; ++j) sums[i * n + j] = at(tasks[i], tasks[j]);
    }
    kernels::add_products(present, elements, sums.data());
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = i; j < n; ++j) {
            at(tasks[i], tasks[j]) = sums[i * n + j];
            at(tasks[j], tasks[i]) = sums[i * n + j];
        }
    }
}

void Gramian::add(const Gramian& other) {
    invariant(other.tasks_ == tasks_, "Gramians that are added have the same number of tasks");
    for (std::size_t k = 0; k < entries_.size(); ++k) entries_[k] += other.entries_[k];
}

std::vector<double> cosines_of(const Gramian& gramian) {
    const std::size_t n = gramian.tasks();
    std::vector<double> cosines(n * n, 0.0);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            // Two roots: the product of two squared norms may leave the range of a double.
            const double norms = std::sqrt(gramian.at(i, i)) * std::sqrt(gramian.at(j, j));
            if (!(norms > 0)) continue;
            cosines[i * n + j] = i == j ? 1.0 : std::clamp(gramian.at(i, j) / norms, -1.0, 1.0);
        }
    }
    return cosines;
}

void combine(std::span<const double> weights, std::span<const float* const> rows,
             std::span<float> out) {
    invariant(weights.size() == rows.size(), "combine takes one weight per row");
    std::vector<float> counted_weights;
    std::vector<const float*> counted_rows;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto weight = static_cast<float>(weights[i]);
        if (rows[i] == nullptr || weight == 0) continue;
        counted_weights.push_back(weight);
        counted_rows.push_back(rows[i]);
    }
    if (out.empty()) return;
    if (counted_rows.empty()) {
        std::memset(static_cast<void*>(out.data()), 0, out.size_bytes());  // at any address
        return;
    }
    kernels::weigh_rows(counted_weights, counted_rows, out.data(), out.size());
}

double squared_norm(const float* values, std::size_t elements) {
    double sum = 0;
    if (elements > 0) kernels::add_products({&values, 1}, elements, &sum);
    return sum;
}

}  // namespace detente
