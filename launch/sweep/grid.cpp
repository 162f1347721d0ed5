#include "launch/sweep/grid.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <span>
#include <sstream>

#include "common/checksum.h"
#include "launch/job.h"
#include "launch/job_values.h"

namespace detente {
namespace {

constexpr std::size_t kMostNameBytes = 160;

Error bad_grid(const std::string& given, const std::string& why) {
    return fail(
        ErrorCode::bad_job,
        fmt::format("--grid {}: {}; expected KEY=[VALUE, …], like --grid workers=[1,2,4] or "
                    "--grid 'staleness.policy=[\"async\",\"bsp\"]'",
                    given, why));
}

// As a person writes it, 0.1 and not 0.10000000000000001; still no whole number for TOML.
std::string shortest(double number) {
    std::string text = fmt::format("{}", number);
    if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
    return text;
}

Result<GridAxis> axis_of(const std::string& given) {
    const std::size_t equals = given.find('=');
    if (equals == std::string::npos || equals == 0) return bad_grid(given, "there is no KEY=");
    GridAxis axis{given.substr(0, equals), {}};
    try {
        const toml::table parsed = toml::parse("v = " + given.substr(equals + 1));
        const toml::array* values = parsed.get_as<toml::array>("v");
        if (values == nullptr || parsed.size() != 1) {
            return bad_grid(given, "the value is no list in brackets");
        }
        for (const toml::node& value : *values) {
            if (const toml::value<std::string>* text = value.as_string()) {
                axis.values.push_back(in_quotes(text->get()));
                continue;
            }
            if (const toml::value<double>* number = value.as_floating_point()) {
                axis.values.push_back(shortest(number->get()));
                continue;
            }
            std::ostringstream written;
            value.visit([&written](const auto& node) { written << node; });
            axis.values.push_back(written.str());
        }
    } catch (const toml::parse_error& error) {
        return bad_grid(given, fmt::format("not TOML: {}", error.description()));
    }
    if (axis.values.empty()) return bad_grid(given, "the list is empty");
    for (std::size_t i = 1; i < axis.values.size(); ++i) {
        const auto end = axis.values.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(axis.values.begin(), end, axis.values[i]) != end) {
            return bad_grid(given, axis.values[i] + " is there twice");
        }
    }
    return axis;
}

// A folder's name that tells what the cell is, the same in every grid that has it.
std::string cell_name(const SweepCell& cell) {
    std::string exact;
    std::string name;
    for (const auto& [key, value] : cell.settings) {
        exact += fmt::format("{}={}\n", key, value);
        name += key + "=";
        for (const char c : value) {
            const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ||
                               c == '_' || c == '-' || c == '+';
            if (plain) name += c;
        }
        name += ",";
    }
    // Only quotes around a text may go unnoticed; what else was left out stands in a checksum.
    std::string quoted_only = exact;
    std::erase(quoted_only, '"');
    std::string shown = name;
    std::replace(shown.begin(), shown.end(), ',', '\n');
    if (shown != quoted_only || name.size() > kMostNameBytes) {
        name = fmt::format("{},{:08x},", name.substr(0, kMostNameBytes),
                           checksum_of(std::as_bytes(std::span(exact))) & 0xffffffffU);
    }
    return fmt::format("{}seed={}", name, cell.seed);
}

// Settings by settings: the last axis moves fastest, seeds within.
Result<std::vector<SweepCell>> cells_of(const std::vector<GridAxis>& axes, std::uint64_t first_seed,
                                        std::uint32_t seeds) {
    std::size_t count = seeds;
    for (const GridAxis& axis : axes) {
        count *= axis.values.size();
        if (count > kMostCells) {
            return fail(ErrorCode::bad_job,
                        fmt::format("the grid has more than {} cells: take fewer values or seeds",
                                    kMostCells));
        }
    }
    std::vector<SweepCell> cells;
    std::vector<std::size_t> at(axes.size(), 0);
    while (cells.size() < count) {
        for (std::uint32_t i = 0; i < seeds; ++i) {
            SweepCell cell;
            for (std::size_t axis = 0; axis < axes.size(); ++axis) {
                cell.settings.emplace_back(axes[axis].key, axes[axis].values[at[axis]]);
            }
            cell.seed = first_seed + i;
            cell.name = cell_name(cell);
            cells.push_back(std::move(cell));
        }
        for (std::size_t axis = axes.size(); axis-- > 0;) {
            if (++at[axis] < axes[axis].values.size()) break;
            at[axis] = 0;
        }
    }
    return cells;
}

// The job's complaint names --set; the user wrote --grid.
std::string as_grid(std::string text, const SweepCell& cell) {
    for (const auto& [key, value] : cell.settings) {
        const std::string said = "--set " + key + "=";
        for (std::size_t at = 0; (at = text.find(said, at)) != std::string::npos;) {
            text.replace(at, 5, "--grid");
        }
    }
    return text;
}

}  // namespace

std::vector<std::string> overrides_of(const GridWanted& wanted, const SweepCell& cell) {
    std::vector<std::string> overrides = wanted.overrides;
    for (const auto& [key, value] : cell.settings)
        overrides.push_back(fmt::format("{}={}", key, value));
    overrides.push_back(fmt::format("seed={}", cell.seed));
    return overrides;
}

Result<Job> job_of(const GridWanted& wanted, const SweepCell& cell,
                   const std::string& program_dir) {
    return read_job(wanted.job_file, overrides_of(wanted, cell), program_dir);
}

Result<SweepRecord> plan_sweep(const GridWanted& wanted, const std::string& program_dir) {
    const auto plain = read_job(wanted.job_file, wanted.overrides, program_dir);
    if (plain.has_error()) return plain.error();
    SweepRecord record;
    record.job = plain->name;
    record.verb = wanted.verb;
    for (const std::string& given : wanted.grid) {
        auto axis = axis_of(given);
        if (axis.has_error()) return axis.error();
        if (axis->key == "seed") return bad_grid(given, "seeds are counted by --seeds");
        for (const GridAxis& other : record.axes) {
            if (other.key == axis->key) return bad_grid(given, axis->key + " is there twice");
        }
        record.axes.push_back(std::move(*axis));
    }
    auto cells = cells_of(record.axes, plain->seed, wanted.seeds);
    if (cells.has_error()) return cells.error();
    record.cells = std::move(*cells);
    for (const SweepCell& cell : record.cells) {
        const auto job = job_of(wanted, cell, program_dir);
        if (job.has_error()) return fail(job.error().code, as_grid(job.error().text, cell));
    }
    return record;
}

}  // namespace detente
