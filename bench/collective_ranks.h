// What the two processes of collective_bench do, however they were started: rounds in which every
// way to average, and a plain copy, take their turn.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>

namespace detente::bench {

struct RankSetup {
    std::size_t rank = 0;
    std::string run;  // the same for both
    bool quick = false;
    std::function<void()> barrier;
    // Sums `from` over both ranks into `to`; empty: there is no MPI to compare with.
    std::function<void(const float* from, float* to, std::size_t elements)> mpi_sum;
};

// Median seconds by size in bytes and way: "memcpy", "in place", "copied", "mpi".
using RankTimes = std::map<std::size_t, std::map<std::string, double>>;
RankTimes measure_ranks(const RankSetup& setup);

// As lines of "bytes seconds way", and back.
std::string text_of(const RankTimes& times);
RankTimes times_of(const std::string& text);

}  // namespace detente::bench
