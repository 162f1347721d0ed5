// detente ledger RUN: what every node of a run recorded, as text or as JSON lines.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "launch/cli.h"
#include "launch/run_directory.h"
#include "ps/ledger.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

// A run directory's ledgers, those of any other folder, or the one file itself.
Result<std::vector<std::string>> ledgers_of(const std::string& where) {
    std::error_code failed;
    if (fs::is_regular_file(where, failed)) return std::vector<std::string>{where};
    const RunDirectory run{where};
    const std::string folder =
        fs::is_directory(run.ledger_dir(), failed) ? run.ledger_dir() : where;
    std::vector<std::string> files;
    for (fs::directory_iterator at(folder, failed), end; !failed && at != end;
         at.increment(failed)) {
        if (at->path().extension() == ".ledger") files.push_back(at->path().string());
    }
    if (failed || files.empty()) {
        return fail(ErrorCode::io, fmt::format("{}: no ledger here; expected a run directory (like "
                                               "runs/latest), or a .ledger file of one",
                                               where));
    }
    std::sort(files.begin(), files.end());
    return files;
}

// One line per entry; in JSON each names the node and incarnation that wrote it.
Result<void> print_ledger(const std::string& path, bool as_json) {
    auto reader = LedgerReader::open(path);
    if (!reader) return reader.error();
    const LedgerOrigin origin = reader->origin();
    if (as_json) {
        fmt::print("{}\n", ledger_to_json_line(origin));
    } else {
        fmt::print("# {}: {}, incarnation {}, generation {}, job {}, {}, {}\n", path,
                   to_string(origin.node), origin.incarnation.value, origin.generation.value,
                   origin.job, origin.build, origin.machine);
    }
    LedgerEntry entry;
    while (true) {
        const auto more = reader->next(entry);
        if (!more) return more.error();
        if (!*more) break;
        if (as_json) {
            fmt::print("{{\"node\":\"{}\",\"node_incarnation\":{},{}\n", to_string(origin.node),
                       origin.incarnation.value, ledger_to_json_line(entry).substr(1));
        } else {
            fmt::print("{}\n", ledger_to_text(entry));
        }
    }
    if (const auto& torn = reader->torn_tail()) {
        std::fflush(stdout);
        fmt::print(stderr,
                   "detente ledger: {}: whole up to byte {}; {} bytes behind it are cut off, as a "
                   "crash leaves them\n",
                   path, torn->offset_bytes, torn->bytes);
    }
    return {};
}

int print_ledgers(const std::string& where, bool as_json) {
    const auto files = ledgers_of(where);
    if (!files) return report("ledger", files.error());
    for (const std::string& file : *files) {
        const auto printed = print_ledger(file, as_json);
        if (!printed) return report("ledger", printed.error());
    }
    return 0;
}

}  // namespace

void add_ledger_verb(CLI::App& app, int& exit_code) {
    struct Options {
        std::string where;
        bool as_json = false;
    };
    const auto options = std::make_shared<Options>();
    CLI::App* verb = app.add_subcommand("ledger", "Prints what a run recorded");
    verb->add_option("RUN", options->where, "A run directory, or one .ledger file")->required();
    verb->add_flag("--json", options->as_json, "JSON lines instead of text");
    verb->callback(
        [options, &exit_code] { exit_code = print_ledgers(options->where, options->as_json); });
}

}  // namespace detente
