#include "launch/conflict_ledger.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "common/conflict/aggregator.h"
#include "common/file.h"
#include "launch/job.h"
#include "launch/ledger_files.h"
#include "ps/ledger.h"

namespace detente {
namespace {

Gramian square_of(const std::vector<float>& triangle, std::size_t tasks) {
    Gramian gramian(tasks);
    std::size_t at = 0;
    for (std::size_t i = 0; i < tasks; ++i) {
        for (std::size_t j = i; j < tasks; ++j, ++at) {
            gramian.at(i, j) = gramian.at(j, i) = static_cast<double>(triangle[at]);
        }
    }
    return gramian;
}

ResolvedStep step_of(const LedgerOrigin& origin, Time at, ResolvedRecord&& record) {
    ResolvedStep step;
    step.worker = record.worker;
    step.incarnation = origin.incarnation;
    step.step = record.step;
    step.batch = record.batch;
    step.at = at;
    for (const auto& triangle : record.gramians) {
        step.gramians.push_back(square_of(triangle, record.losses.size()));
    }
    step.losses = std::move(record.losses);
    step.weights = std::move(record.weights);
    step.result = std::move(record.result);
    step.reused = record.reused;
    return step;
}

Result<std::uint64_t> read_one(const std::string& path, const VisitStep& visit) {
    auto reader = LedgerReader::open(path);
    if (reader.has_error()) return reader.error();
    std::optional<NamesRecord> names;
    std::uint64_t steps = 0;
    LedgerEntry entry;
    while (true) {
        const auto more = reader->next(entry);
        if (more.has_error()) return more.error();
        if (!*more) return steps;
        if (auto* named = std::get_if<NamesRecord>(&entry.record)) names = std::move(*named);
        auto* resolved = std::get_if<ResolvedRecord>(&entry.record);
        if (resolved == nullptr) continue;
        if (!names || names->tasks.size() != resolved->losses.size()) {
            return fail(ErrorCode::bad_message,
                        fmt::format("{}, entry {}: a step of {} tasks, but {} are named before it: "
                                    "the file was put together from others",
                                    path, reader->entries(), resolved->losses.size(),
                                    names ? names->tasks.size() : 0));
        }
        visit(*names, step_of(reader->origin(), entry.at, std::move(*resolved)));
        ++steps;
    }
}

std::optional<Job> job_of(const RunDirectory& run) {
    constexpr std::uint64_t kMostBytes = 4U << 20U;
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(run.job_file(), ignored)) return std::nullopt;
    const auto text = read_text(run.job_file(), kMostBytes);
    if (!text) return std::nullopt;
    auto job = parse_job(*text, run.job_file());
    if (!job) return std::nullopt;
    return std::move(*job);
}

// As the saved job has it; all that it can be where there is none.
std::string why_none(const RunDirectory& run) {
    const std::string one_task = "it had one task, or ended before the first step";
    const std::string off = "its job says ledger.conflicts = \"off\"";
    const std::string split =
        "its tasks were split over workers (worker.split_tasks), where none of them sees two "
        "tasks' gradients of a batch";
    const std::optional<Job> job = job_of(run);
    if (!job) return fmt::format("{}, or {}, or {}", one_task, off, split);
    if (job->split_tasks) {
        return split + (job->across.method == AcrossMethod::off
                            ? "; with [across] servers compare them, and summary.json says what "
                              "came of it"
                            : "; what servers saw of them is in summary.json, as across.pairs");
    }
    return job->ledger_conflicts == LedgerConflicts::off ? off : one_task;
}

}  // namespace

Gramian ResolvedStep::whole() const {
    Gramian sum(losses.size());
    for (const Gramian& gramian : gramians) sum.add(gramian);
    return sum;
}

bool have_met(const Gramian& gramian, std::size_t a, std::size_t b) {
    return gramian.at(a, b) != 0;
}

std::vector<double> pair_cosines(const Gramian& gramian) {
    const std::vector<double> cosines = cosines_of(gramian);
    std::vector<double> pairs;
    for (std::size_t i = 0; i < gramian.tasks(); ++i) {
        for (std::size_t j = i + 1; j < gramian.tasks(); ++j) {
            pairs.push_back(have_met(gramian, i, j) ? cosines[i * gramian.tasks() + j]
                                                    : std::nan(""));
        }
    }
    return pairs;
}

Weighs weighs(const std::string& method) {
    const auto known = make_aggregator({method, {}});
    if (!known) return Weighs::gradients;
    const AggregatorNeeds needs = (*known)->needs();
    return needs.coordinates ? Weighs::nothing
           : needs.averages  ? Weighs::averages
                             : Weighs::gradients;
}

Result<void> read_resolved_steps(const RunDirectory& run, const VisitStep& visit) {
    const auto files = ledger_files(run.ledger_dir(), Role::worker);
    if (files.has_error()) return files.error();
    std::uint64_t steps = 0;
    for (const std::string& file : *files) {
        const auto read = read_one(file, visit);
        if (read.has_error()) return read.error();
        steps += *read;
    }
    if (steps > 0) return {};
    return fail(
        ErrorCode::not_supported,
        fmt::format("{}: its workers recorded nothing of conflicts: {}", run.path, why_none(run)));
}

}  // namespace detente
