// What a module of collectives exports (nccl, mpi), and how one is loaded: only when a job asks for
// it, visible to nobody else (RTLD_LOCAL), resolved at once (RTLD_NOW). It stays loaded as long as
// the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/collectives/collective.h"

namespace detente {

struct CollectiveOptions {
    std::string run;  // as SharedMemoryOptions::run
    // A module's own, by name; an unknown one is refused with those that there are.
    std::vector<std::pair<std::string, std::string>> options;
};

// Exported as `extern "C" const detente::CollectiveEntry detente_collective_entry`.
inline constexpr std::uint32_t kCollectiveAbi = 1;
inline constexpr const char* kCollectiveSymbol = "detente_collective_entry";
struct CollectiveEntry {
    std::uint32_t abi = kCollectiveAbi;
    const char* built_with = "";  // the library's version, for messages
    // nullptr on failure, with `error` filled: what was looked for, where, and what to do.
    CollectiveBackend* (*create)(const CollectiveOptions& options, Error& error) = nullptr;
};

// not_supported: no such file, no module, another ABI, or what it needs is not on this machine.
Result<std::unique_ptr<CollectiveBackend>> load_collectives(const std::string& module_path,
                                                            const CollectiveOptions& options);

// The value of an option, or what it is by default. For modules.
std::string option_of(const CollectiveOptions& options, const std::string& name,
                      const std::string& by_default);
// not_supported: an option that is none of these.
Result<void> check_options(const CollectiveOptions& options, const std::vector<std::string>& known);

}  // namespace detente
