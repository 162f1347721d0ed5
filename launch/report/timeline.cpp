#include "launch/report/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <map>
#include <optional>
#include <tuple>

#include "launch/ledger_files.h"
#include "ps/ledger.h"

namespace detente {
namespace {

namespace json = boost::json;

using StepKey = std::tuple<WorkerId, Incarnation, Step>;

// What one shard says of one step, by its own clock.
struct Seen {
    std::optional<double> pulled;
    std::optional<double> first_verdict;
    std::optional<double> last_verdict;
    std::uint32_t applied = 0;
    std::uint32_t wasted = 0;
    std::uint64_t staleness = 0;
};
using ShardView = std::map<StepKey, Seen>;

// Takes one shard's entries; steps beyond the bound are counted, not kept.
class Collector {
  public:
    void take(const LedgerEntry& entry) {
        at_s_ = as_seconds(entry.at);
        if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
            Seen* seen = step({pull->worker, pull->incarnation, pull->step});
            if (seen != nullptr && !seen->pulled) seen->pulled = at_s_;
        } else if (const auto* verdict = std::get_if<VerdictRecord>(&entry.record)) {
            judge(*verdict);
        } else if (const auto* closed = std::get_if<ClosedRecord>(&entry.record)) {
            Seen* seen = step({closed->worker, closed->incarnation, closed->step});
            if (seen == nullptr) return;
            settle(*seen);
            seen->wasted += closed->blocks;
        }
    }
    ShardView view;
    bool full = false;

  private:
    Seen* step(const StepKey& key) {
        const auto found = view.find(key);
        if (found != view.end()) return &found->second;
        if (view.size() >= Timeline::kMostSteps) {
            full = true;
            return nullptr;
        }
        return &view[key];
    }
    void settle(Seen& seen) const {
        if (!seen.first_verdict) seen.first_verdict = at_s_;
        seen.last_verdict = at_s_;
    }
    void judge(const VerdictRecord& verdict) {
        Seen* seen = step({verdict.worker, verdict.incarnation, verdict.step});
        if (seen == nullptr) return;
        settle(*seen);
        for (const VerdictRecord::Row& row : verdict.rows) {
            if (row.verdict == Verdict::applied) ++seen->applied;
            if (row.verdict == Verdict::rejected || row.verdict == Verdict::lost) ++seen->wasted;
            seen->staleness = std::max(seen->staleness, row.staleness);
        }
    }
    double at_s_ = 0;
};

Result<ShardView> read_shard(const std::string& path, Timeline& timeline) {
    auto reader = LedgerReader::open(path);
    if (reader.has_error()) return reader.error();
    Collector collector;
    LedgerEntry entry;
    while (true) {
        const auto more = reader->next(entry);
        if (more.has_error()) return more.error();
        if (!*more) break;
        collector.take(entry);
    }
    if (collector.full) {
        timeline.remarks.push_back(
            fmt::format("Of {} only the first {} steps are shown.", path, Timeline::kMostSteps));
    }
    if (const auto& torn = reader->torn_tail()) {
        timeline.remarks.push_back(fmt::format("{} is cut off after byte {}, as a crash leaves it.",
                                               path, torn->offset_bytes));
    }
    return std::move(collector.view);
}

// What must be added to `other`'s clock to read it as `first`'s.
double clock_offset(const ShardView& first, const ShardView& other) {
    std::vector<double> differences;
    for (const auto& [key, seen] : other) {
        const auto same = first.find(key);
        if (same == first.end() || !seen.pulled || !same->second.pulled) continue;
        differences.push_back(*same->second.pulled - *seen.pulled);
    }
    if (differences.empty()) return 0;
    const auto middle = differences.begin() + static_cast<std::ptrdiff_t>(differences.size() / 2);
    std::nth_element(differences.begin(), middle, differences.end());
    return *middle;
}

// All shards' views as one: weights are there when the last shard has handed them out.
void fold_in(ShardView& all, const ShardView& shard, double offset) {
    const auto later = [&](std::optional<double>& mine, const std::optional<double>& theirs) {
        if (theirs) mine = std::max(mine.value_or(*theirs + offset), *theirs + offset);
    };
    for (const auto& [key, seen] : shard) {
        Seen& mine = all[key];
        later(mine.pulled, seen.pulled);
        later(mine.last_verdict, seen.last_verdict);
        if (seen.first_verdict) {
            const double at = *seen.first_verdict + offset;
            mine.first_verdict = std::min(mine.first_verdict.value_or(at), at);
        }
        mine.applied += seen.applied;
        mine.wasted += seen.wasted;
        mine.staleness = std::max(mine.staleness, seen.staleness);
    }
}

void add_spans(const ShardView& all, Timeline& timeline) {
    Span pushed;  // the one before, if any
    bool any = false;
    for (const auto& [key, seen] : all) {
        const auto& [worker, incarnation, step] = key;
        if (!seen.pulled || !seen.first_verdict || !seen.last_verdict) continue;
        Span span{worker, incarnation, step, Doing::computing, 0, 0, 0, 0, 0};
        const bool same = any && pushed.worker == worker && pushed.incarnation == incarnation;
        // With pull_ahead the weights lie ready before the last step is pushed.
        span.begin_s = same ? std::max(*seen.pulled, pushed.end_s) : *seen.pulled;
        if (same && span.begin_s > pushed.end_s) {
            Span wait = span;
            wait.doing = Doing::waiting;
            wait.begin_s = pushed.end_s;
            wait.end_s = span.begin_s;
            timeline.spans.push_back(wait);
        }
        span.end_s = std::max(span.begin_s, *seen.first_verdict);
        timeline.spans.push_back(span);
        pushed = span;
        pushed.doing = Doing::pushing;
        pushed.begin_s = span.end_s;
        pushed.end_s = std::max(span.end_s, *seen.last_verdict);
        pushed.applied = seen.applied;
        pushed.wasted = seen.wasted;
        pushed.staleness = seen.staleness;
        timeline.spans.push_back(pushed);
        any = true;
        if (timeline.workers.empty() || timeline.workers.back() != worker) {
            timeline.workers.push_back(worker);
        }
    }
}

}  // namespace

const char* name_of(Doing doing) {
    switch (doing) {
        case Doing::computing:
            return "computing";
        case Doing::pushing:
            return "pushing";
        case Doing::waiting:
            return "waiting";
    }
    return "unknown";
}

Result<Timeline> read_timeline(const std::string& ledger_dir) {
    Timeline timeline;
    const auto found = ledger_files(ledger_dir, Role::shard);
    const std::vector<std::string> files = found ? *found : std::vector<std::string>{};
    if (files.empty()) {
        timeline.remarks.push_back(
            fmt::format("There is no shard's ledger in {}: no timeline.", ledger_dir));
    }
    ShardView first;
    ShardView all;
    for (std::size_t i = 0; i < files.size(); ++i) {
        auto shard = read_shard(files[i], timeline);
        if (shard.has_error()) return shard.error();
        fold_in(all, *shard, i == 0 ? 0 : clock_offset(first, *shard));
        if (i == 0) first = std::move(*shard);
    }
    add_spans(all, timeline);
    if (timeline.spans.empty()) return timeline;
    timeline.begin_s = timeline.spans.front().begin_s;
    for (const Span& span : timeline.spans) {
        timeline.begin_s = std::min(timeline.begin_s, span.begin_s);
        timeline.end_s = std::max(timeline.end_s, span.end_s);
    }
    return timeline;
}

std::string to_trace_json(const Timeline& timeline, const std::string& job) {
    json::array events;
    events.push_back(json::object{
        {"name", "process_name"}, {"ph", "M"}, {"pid", 1}, {"args", json::object{{"name", job}}}});
    for (const WorkerId worker : timeline.workers) {
        events.push_back(
            json::object{{"name", "thread_name"},
                         {"ph", "M"},
                         {"pid", 1},
                         {"tid", worker.value + 1},
                         {"args", json::object{{"name", to_string(node_of(worker))}}}});
    }
    for (const Span& span : timeline.spans) {
        json::object slice{{"name", name_of(span.doing)},
                           {"cat", name_of(span.doing)},
                           {"ph", "X"},
                           {"pid", 1},
                           {"tid", span.worker.value + 1},
                           {"ts", (span.begin_s - timeline.begin_s) * 1e6},
                           {"dur", (span.end_s - span.begin_s) * 1e6}};
        json::object more{{"step", span.step.value}};
        if (span.doing == Doing::pushing) {
            more["applied"] = span.applied;
            more["wasted"] = span.wasted;
            more["staleness"] = span.staleness;
        }
        slice["args"] = std::move(more);
        events.push_back(std::move(slice));
    }
    for (const StepTimeStretch& stretch : timeline.step_times) {
        json::object parts;
        for (std::size_t part = 0; part < kStepTimeParts; ++part) {
            parts[kStepTimeNames[part]] = stretch.times.mean_ms(part);
        }
        events.push_back(json::object{{"name", to_string(node_of(stretch.worker)) + " step, ms"},
                                      {"ph", "C"},
                                      {"pid", 1},
                                      {"ts", stretch.begin_s * 1e6},
                                      {"args", std::move(parts)}});
    }
    return json::serialize(
               json::object{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}) +
           "\n";
}

}  // namespace detente
