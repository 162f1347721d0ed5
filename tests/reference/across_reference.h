// Resolution across workers the slow way: everything in double, every inner product made anew.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

namespace detente::reference {

class AcrossReference {
  public:
    double ema = 0.9;
    double half_life = 16;
    double lambda = 0;

    using Vector = std::vector<double>;
    // The resolved gradient; it is remembered. Whether it is in conflict is asked of what it would
    // be now, how much is taken out is its own.
    Vector resolve(std::uint32_t task, std::uint64_t base, const Vector& gradient,
                   const Vector& now, const Vector& then) {
        Vector seen = gradient;
        for (std::size_t i = 0; i < seen.size(); ++i) {
            seen[i] += lambda * gradient[i] * gradient[i] * (now[i] - then[i]);
        }
        Vector resolved = gradient;
        for (const auto& [other, memory] : memory_) {  // ascending
            if (other == task) continue;
            const double mean_sq = product(memory.mean, memory.mean);
            const double opposed = product(resolved, memory.mean);
            const bool in_conflict = product(seen, memory.mean) < 0;
            if (!(mean_sq > 0) || !in_conflict || !(opposed < 0)) continue;
            const double apart = std::abs(static_cast<double>(base) - memory.version);
            const double weight = std::pow(0.5, apart / half_life) * opposed / mean_sq;
            for (std::size_t i = 0; i < seen.size(); ++i) {
                seen[i] -= weight * memory.mean[i];
                resolved[i] -= weight * memory.mean[i];
            }
        }
        const auto [at, first] = memory_.try_emplace(task);
        Memory& own = at->second;
        if (first) own.mean = gradient;
        for (std::size_t i = 0; i < gradient.size() && !first; ++i) {
            own.mean[i] = ema * own.mean[i] + (1 - ema) * gradient[i];
        }
        own.version = std::max(own.version, static_cast<double>(base));
        return resolved;
    }

  private:
    struct Memory {
        Vector mean;
        double version = 0;
    };
    static double product(const Vector& a, const Vector& b) {
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
        return sum;
    }
    std::map<std::uint32_t, Memory> memory_;
};

}  // namespace detente::reference
