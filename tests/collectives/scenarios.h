// What one member does in a test of the contract, and what it reports: lines of text, so that a
// member may be a thread, a forked process, or a rank that mpirun started. The suite
// (contract_test.cpp) runs a scenario in every member and compares what they say.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "worker/collectives/collective.h"

namespace detente::testing {

using Lines = std::vector<std::string>;

struct Member {
    std::size_t index = 0;
    std::size_t count = 0;
    CollectiveBackend& backend;
    // Ends this member as kill -9 ends a process, as far as its kind can.
    std::function<void()> die;
    // A line that the test sees while the member still runs.
    std::function<void(const std::string&)> say;
};

using Scenario = Lines (*)(Member&);
const std::map<std::string, Scenario>& scenarios();

// ---- what scenarios and other tests are made of ----

Time clock_now();
WorkerId worker(std::size_t index);  // ids are not indices
Group group_of(std::uint64_t epoch, std::vector<std::size_t> indices);
Group whole_group(std::uint64_t epoch, std::size_t count);
CollectiveKey key_of(std::uint64_t epoch, std::uint64_t step, std::uint32_t bucket);

// The gradient of a member for a key, a function of these numbers; at an odd address if asked.
std::vector<float> gradient_of(std::size_t index, const CollectiveKey& key, std::size_t elements);
Payload payload_of_floats(const std::vector<float>& values, bool odd_address = false);
GradientShare share_of(std::size_t index, const CollectiveKey& key, std::size_t elements,
                       double weight);

// Polls and waits until so many keys have ended, or for ten seconds.
std::vector<CollectiveEnd> ends_of(Collective& collective, std::size_t count);
// Until the group is broken, or for ten seconds.
void wait_until_broken(Collective& collective);

// "averaged, weight 3, bits 0123456789abcdef", "weightless", or "broken: timed_out, missing
// worker:4".
std::string text_of(const CollectiveEnd& end);
std::string text_of(const Broken& broken);
// Largest |mean - reference| over the weighted sum of |gᵢ|, reference in double.
double error_of(const Averaged& averaged, const CollectiveKey& key,
                const std::vector<double>& weights);

}  // namespace detente::testing
