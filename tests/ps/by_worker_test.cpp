#include "ps/by_worker.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace detente {
namespace {

std::vector<std::uint32_t> ids_of(const ByWorker<std::string>& table) {
    std::vector<std::uint32_t> ids;
    for (const auto& [worker, value] : table) ids.push_back(worker.value);
    return ids;
}

}  // namespace

TEST_CASE("by worker: what was put in is found, in the order of ids, whatever lies between") {
    ByWorker<std::string> table;
    CHECK(table.empty());
    CHECK(table.begin() == table.end());
    CHECK(table.find(WorkerId{3}) == table.end());
    table[WorkerId{7}] = "seven";
    table[WorkerId{2}] = "two";
    CHECK(table[WorkerId{2}] == "two");
    CHECK(table.size() == 2);
    CHECK(ids_of(table) == std::vector<std::uint32_t>{2, 7});
    CHECK(table.find(WorkerId{7})->second == "seven");
    CHECK_FALSE(table.contains(WorkerId{3}));
    CHECK_FALSE(table.contains(WorkerId{8}));
    CHECK_FALSE(table.contains(WorkerId{~std::uint32_t{0}}));
}

TEST_CASE("by worker: what was erased is gone once and comes back empty") {
    ByWorker<std::string> table;
    table[WorkerId{0}] = "zero";
    table[WorkerId{5}] = "five";
    CHECK(table.erase(WorkerId{0}) == 1);
    CHECK(table.erase(WorkerId{0}) == 0);
    CHECK(table.erase(WorkerId{9}) == 0);
    CHECK(table.size() == 1);
    CHECK(ids_of(table) == std::vector<std::uint32_t>{5});
    CHECK(table[WorkerId{0}].empty());
    CHECK(table.size() == 2);
}

}  // namespace detente
