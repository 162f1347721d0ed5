// A worker's ledger written by hand, with the steps that a test wants.
#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <vector>

#include "common/ledger_entry.h"
#include "launch/run_directory.h"
#include "ps/ledger.h"

namespace detente::test {

// Of worker 0, the only one of the run.
inline void write_steps(const RunDirectory& run, const NamesRecord& names,
                        const std::vector<ResolvedRecord>& steps) {
    LedgerOrigin origin;
    origin.node = node_of(WorkerId{0});
    std::filesystem::create_directories(run.ledger_dir());
    const auto ledger = LedgerWriter::create(
        run.ledger_dir() + "/" + ledger_file_name(origin.node, Incarnation{1}), origin);
    REQUIRE(ledger.has_value());
    REQUIRE((*ledger)->append({Time(), names}).has_value());
    for (const ResolvedRecord& step : steps) REQUIRE((*ledger)->append({Time(), step}).has_value());
    REQUIRE((*ledger)->flush().has_value());
}

}  // namespace detente::test
