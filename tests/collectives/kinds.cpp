#include "tests/collectives/kinds.h"

#include <unistd.h>

#include <atomic>
#include <iostream>

#include "tests/collectives/module_kinds.h"
#include "worker/collectives/local.h"
#include "worker/collectives/shared_memory.h"

namespace detente::testing {

std::string unique_run() {
    static std::atomic<int> count{0};
    return "test-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

Kind local_kind() {
    Kind kind{"local", {}, true, true, {}};
    kind.run = [](const std::string& scenario, std::size_t count) {
        const auto hub = std::make_shared<LocalHub>();
        return run_on_threads([hub] { return std::make_unique<LocalBackend>(hub); }, scenario,
                              count);
    };
    return kind;
}

Kind shared_memory_kind() {
    Kind kind{"shared_memory", {}, true, true, {}};
    kind.run = [](const std::string& scenario, std::size_t count) {
        const SharedMemoryOptions options{unique_run(), std::size_t{32} << 20U};
        return run_in_processes(
            [options] { return std::make_unique<SharedMemoryBackend>(options); }, scenario, count);
    };
    return kind;
}

const std::vector<Kind>& kinds() {
    static const std::vector<Kind> all = [] {
        std::vector<Kind> list{local_kind(), shared_memory_kind()};
        for (Kind& kind : module_kinds()) list.push_back(std::move(kind));
        std::vector<Kind> usable;
        for (Kind& kind : list) {
            if (kind.left_out.empty()) {
                usable.push_back(std::move(kind));
            } else {
                std::cout << "left out: " << kind.name << ": " << kind.left_out << "\n";
            }
        }
        return usable;
    }();
    return all;
}

}  // namespace detente::testing
