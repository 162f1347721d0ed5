// What a seed of `detente fuzz` is: a job with a cluster's shape, a policy and its parameters, a
// network and a schedule of faults and of live changes of policy, all a function of the seed. Every
// fault ends, so that afterwards the run must. Pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/conflict/aggregator.h"
#include "common/staleness/policy.h"

namespace detente {

// What policies and conflict methods are drawn from. A seed is another case when one is added, but
// for who says what there was.
//
// A case is drawn part by part, each from a key of its own, so that a new part moves no other: who
// says how many parts there were has the case of then.
constexpr std::uint64_t kFuzzParts = 15;
struct FuzzNames {
    std::vector<std::string> policies = policy_names();
    std::vector<std::string> methods = aggregator_names();
    std::uint64_t parts = kFuzzParts;
};

// Valid as a job file is; simulate.thorough is on.
Job fuzz_case(std::uint64_t seed, const FuzzNames& names = {});

// Cases with one thing less each, the largest step first: no faults at all, one fault less, a
// network that loses nothing, the policy's own parameters, no policy for some tensors, one live
// change less, fewer workers, servers, shards, epochs.
std::vector<Job> smaller_cases(const Job& job);

// Goes on to a smaller case as long as one `fails`, at most `most` times asked.
Job shrink(Job job, const std::function<bool(const Job&)>& fails, std::size_t most = 60);

}  // namespace detente
