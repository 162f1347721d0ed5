// One rank of a test: loads a module of collectives, does a scenario, writes its lines to a file.
//   collective_member MODULE SCENARIO FOLDER
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "tests/collectives/members.h"
#include "worker/collectives/collective_module.h"

using namespace detente;
using namespace detente::testing;

namespace {

std::size_t number_of(const char* first, const char* second) {
    const char* text = std::getenv(first) != nullptr ? std::getenv(first) : std::getenv(second);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    const std::size_t index = number_of("OMPI_COMM_WORLD_RANK", "PMI_RANK");
    const std::size_t count = number_of("OMPI_COMM_WORLD_SIZE", "PMI_SIZE");
    CollectiveOptions options;
    std::string ranks;
    for (std::size_t i = 0; i < count; ++i) {
        ranks += (i > 0 ? "," : "") + std::to_string(worker(i).value) + "=" + std::to_string(i);
    }
    options.options.emplace_back("ranks", ranks);
    Lines lines;
    {
        auto backend = load_collectives(argv[1], options);
        if (backend.has_error()) {
            std::cerr << backend.error().text << "\n";
            return 1;
        }
        Member member{index, count, **backend, [] {}, [](const std::string&) {}};
        lines = run_member(member, argv[2]);
        std::ofstream file(std::string(argv[3]) + "/" + std::to_string(index));
        for (const std::string& line : lines) file << line << "\n";
    }
    return 0;
}
