// Whom each task visits in turn, for methods that go through the others one by one: drawn from the
// random key at every step, or fixed by a parameter.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/conflict/aggregator.h"

namespace detente {

class VisitingOrder {
  public:
    // The parameter `order` of such methods.
    static ExplainedParameter explained();
    // "drawn", or per task, separated by ';', the tasks it visits, separated by ','. A task in its
    // own list is passed over. bad_job: a list that does not visit each other task once.
    static Result<VisitingOrder> parse(std::string_view text, const std::string& method);

    // bad_job: fixed for another number of tasks.
    Result<void> check(std::size_t tasks, const std::string& method) const;
    std::vector<std::uint32_t> of(std::size_t task, std::size_t tasks, std::uint64_t key) const;

  private:
    std::vector<std::vector<std::uint32_t>> lists_;  // empty: drawn
};

}  // namespace detente
