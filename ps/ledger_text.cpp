// Ledger entries for people and for other programs.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>

#include "ps/ledger.h"

namespace detente {
namespace json = boost::json;
namespace {

json::array tasks_of(TaskSet set) {
    json::array tasks;
    for (std::uint32_t task = 0; task < kMaxTasks; ++task) {
        if (set.contains(TaskId{task})) tasks.emplace_back(task);
    }
    return tasks;
}

json::object range_of(const BatchRange& range) {
    json::object object{
        {"data_epoch", range.data_epoch}, {"first", range.first}, {"count", range.count}};
    if (!range.tasks.empty()) object["tasks"] = tasks_of(range.tasks);
    return object;
}

json::object row_of(const VerdictRecord::Row& row) {
    json::object object{{"block", row.block.value},     {"verdict", name_of(row.verdict)},
                        {"tasks", tasks_of(row.tasks)}, {"base", row.base.value},
                        {"version", row.version.value}, {"staleness", row.staleness},
                        {"step_scale", row.step_scale}};
    if (row.verdict == Verdict::applied) object["learning_rate"] = row.learning_rate();
    if (row.reason != ErrorCode::internal) object["reason"] = name_of(row.reason);
    return object;
}

bool decided(const VerdictRecord& record) {
    return record.decision != Sequence{} || record.gradient_weight != 1 || record.denominator != 1;
}

struct JsonMembers {
    json::object& object;

    void operator()(const PullRecord& record) {
        object["kind"] = "pull";
        who(record.worker, record.incarnation, &record.step);
        object["epoch"] = record.epoch.value;
        object["blocks"] = versions_of(record.blocks, record.versions);
    }
    void operator()(const VerdictRecord& record) {
        object["kind"] = "verdict";
        who(record.worker, record.incarnation, &record.step);
        object["part"] = record.part.value;
        object["epoch"] = record.epoch.value;
        object["batch"] = range_of(record.batch);
        object["samples"] = record.samples;
        if (record.gradient_hash != 0) {  // as text: programs round larger integers than 2^53
            object["gradient_hash"] = fmt::format("{:016x}", record.gradient_hash);
        }
        if (decided(record)) {
            object["decision"] = json::object{{"lead_epoch", record.decision.lead_epoch.value},
                                              {"number", record.decision.number}};
            object["gradient_weight"] = record.gradient_weight;
            object["denominator"] = record.denominator;
            object["arrived_ns"] = record.arrived.time_since_epoch().count();
        }
        json::array blocks;
        for (const VerdictRecord::Row& row : record.rows) blocks.push_back(row_of(row));
        object["blocks"] = std::move(blocks);
    }
    void operator()(const ClosedRecord& record) {
        object["kind"] = "closed";
        who(record.worker, record.incarnation, &record.step);
        object["blocks"] = record.blocks;
        object["as"] = record.lost ? "lost" : "cancelled";
        object["reason"] = record.reason;
    }
    void operator()(const LeaseRecord& record) {
        object["kind"] = "lease";
        who(record.worker, record.incarnation, nullptr);
        object["granted"] = record.granted;
        object["range"] = range_of(record.range);
    }
    void operator()(const ControlRecord& record) {
        object["kind"] = "control";
        object["what"] = record.what;
    }
    void operator()(const ResolvedRecord& record) {
        object["kind"] = "resolved";
        object["worker"] = record.worker.value;
        object["step"] = record.step.value;
        object["batch"] = range_of(record.batch);
        object["losses"] = numbers_of(record.losses);
        json::array gramians;
        for (const auto& gramian : record.gramians) gramians.push_back(numbers_of(gramian));
        object["gramians"] = std::move(gramians);
        json::array weights;
        for (const auto& list : record.weights) weights.push_back(numbers_of(list));
        object["weights"] = std::move(weights);
        if (!record.result.empty()) object["result"] = numbers_of(record.result);
        object["reused"] = record.reused;
    }
    void operator()(const ShareRecord& record) {
        object["kind"] = "share";
        of_round(record);
        object["batch"] = range_of(record.batch);
        object["tasks"] = tasks_of(record.tasks);
        if (record.gradient_hash != 0) {
            object["gradient_hash"] = fmt::format("{:016x}", record.gradient_hash);
        }
        object["blocks"] = versions_of(record.blocks, record.versions);
    }
    void operator()(const AveragedRecord& record) {
        object["kind"] = "averaged";
        of_round(record);
    }
    template <class Record>
    void of_round(const Record& record) {
        object["worker"] = record.worker.value;
        object["step"] = record.step.value;
        object["group"] = record.group.value;
        object["round"] = record.round.value;
        object["samples"] = record.samples;
    }
    void operator()(const NamesRecord& record) {
        object["kind"] = "names";
        object["method"] = record.method;
        object["tasks"] = json::array(record.tasks.begin(), record.tasks.end());
        object["layers"] = json::array(record.layers.begin(), record.layers.end());
    }
    // JSON has no NaN.
    static json::array numbers_of(const std::vector<float>& values) {
        json::array numbers;
        for (const float value : values) {
            numbers.push_back(std::isfinite(value) ? json::value(value) : json::value(nullptr));
        }
        return numbers;
    }
    void operator()(const LostRecord& record) {
        object["kind"] = "lost";
        who(record.worker, record.incarnation, &record.step);
        object["part"] = record.part.value;
        object["epoch"] = record.epoch.value;
        object["blocks"] = versions_of(record.blocks, record.versions);
        object["reason"] = record.reason;
    }
    static json::array versions_of(const std::vector<BlockId>& ids,
                                   const std::vector<Version>& versions) {
        json::array blocks;
        for (std::size_t i = 0; i < ids.size(); ++i) {
            blocks.push_back(json::object{{"block", ids[i].value}, {"version", versions[i].value}});
        }
        return blocks;
    }
    void who(WorkerId worker, Incarnation incarnation, const Step* step) {
        object["worker"] = worker.value;
        object["incarnation"] = incarnation.value;
        if (step != nullptr) object["step"] = step->value;
    }
};

std::string who_text(WorkerId worker, Incarnation incarnation) {
    return incarnation.value == 1
               ? fmt::format("worker:{}", worker.value)
               : fmt::format("worker:{} (incarnation {})", worker.value, incarnation.value);
}

// " tasks 0+1"; nothing where the row names none.
std::string tasks_text(TaskSet set) {
    std::string text;
    for (std::uint32_t task = 0; task < kMaxTasks; ++task) {
        if (!set.contains(TaskId{task})) continue;
        text += fmt::format("{}{}", text.empty() ? " tasks " : "+", task);
    }
    return text;
}

std::string range_text(const BatchRange& range) {
    const std::string tasks = range.tasks.empty() ? "" : " of" + tasks_text(range.tasks);
    if (range.count == 1) return fmt::format("batch {}.{}{}", range.data_epoch, range.first, tasks);
    return fmt::format("batches {}.{}-{}{}", range.data_epoch, range.first,
                       std::uint64_t{range.first} + range.count - (range.count > 0 ? 1 : 0), tasks);
}

std::string versions_text(const std::vector<BlockId>& blocks,
                          const std::vector<Version>& versions) {
    std::string text;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        text += fmt::format(" {}:{}", blocks[i].value, versions[i].value);
    }
    return text;
}

struct Text {
    std::string operator()(const PullRecord& record) const {
        return fmt::format("pull     {} step {}, epoch {}, versions{}",
                           who_text(record.worker, record.incarnation), record.step.value,
                           record.epoch.value, versions_text(record.blocks, record.versions));
    }
    std::string operator()(const VerdictRecord& record) const {
        std::string text = fmt::format("verdict  {} step {} part {}, epoch {}, {}, {} samples",
                                       who_text(record.worker, record.incarnation),
                                       record.step.value, record.part.value, record.epoch.value,
                                       range_text(record.batch), record.samples);
        if (record.gradient_hash != 0) text += fmt::format(", hash {:016x}", record.gradient_hash);
        text += ":";
        const char* separator = " ";
        for (const VerdictRecord::Row& row : record.rows) {
            text += fmt::format("{}{} {} {}>{} stale {}{}", separator, row.block.value,
                                name_of(row.verdict), row.base.value, row.version.value,
                                row.staleness, tasks_text(row.tasks));
            if (row.verdict == Verdict::applied)
                text += fmt::format(" rate {}", row.learning_rate());
            if (row.step_scale != 1) text += fmt::format(" scale {}", row.step_scale);
            if (row.reason != ErrorCode::internal)
                text += fmt::format(" ({})", name_of(row.reason));
            separator = "; ";
        }
        if (decided(record)) {
            text +=
                fmt::format("; decision {}:{}, weight {} / {}", record.decision.lead_epoch.value,
                            record.decision.number, record.gradient_weight, record.denominator);
        }
        return text;
    }
    std::string operator()(const ClosedRecord& record) const {
        return fmt::format("{} {} step {}, {} blocks: {}", record.lost ? "lost    " : "cancelled",
                           who_text(record.worker, record.incarnation), record.step.value,
                           record.blocks, record.reason);
    }
    std::string operator()(const LeaseRecord& record) const {
        return fmt::format("lease    {} {} {}", who_text(record.worker, record.incarnation),
                           record.granted ? "takes" : "gives back", range_text(record.range));
    }
    std::string operator()(const ControlRecord& record) const {
        return fmt::format("control  {}", record.what);
    }
    std::string operator()(const ResolvedRecord& record) const {
        std::string text =
            fmt::format("resolved worker:{} step {}, {}, losses {:.4g}", record.worker.value,
                        record.step.value, range_text(record.batch), fmt::join(record.losses, " "));
        for (const auto& list : record.weights) {
            text += fmt::format("; weights {:.4g}", fmt::join(list, " "));
        }
        return text + (record.reused ? " (of an earlier step)" : "");
    }
    std::string operator()(const ShareRecord& record) const {
        std::string text = fmt::format(
            "share    worker:{} step {} to round {} of group {}, {}, {} samples,{}",
            record.worker.value, record.step.value, record.round.value, record.group.value,
            range_text(record.batch), record.samples, tasks_text(record.tasks));
        if (record.gradient_hash != 0) text += fmt::format(", hash {:016x}", record.gradient_hash);
        return text + ", versions" + versions_text(record.blocks, record.versions);
    }
    std::string operator()(const AveragedRecord& record) const {
        return fmt::format("averaged worker:{} step {} in round {} of group {}, {} samples",
                           record.worker.value, record.step.value, record.round.value,
                           record.group.value, record.samples);
    }
    std::string operator()(const NamesRecord& record) const {
        return fmt::format("names    method {}, tasks {}, shared layers {}", record.method,
                           fmt::join(record.tasks, " "), fmt::join(record.layers, " "));
    }
    std::string operator()(const LostRecord& record) const {
        return fmt::format("lost     {} step {} part {}, epoch {}, versions{}: {}",
                           who_text(record.worker, record.incarnation), record.step.value,
                           record.part.value, record.epoch.value,
                           versions_text(record.blocks, record.versions), record.reason);
    }
};

}  // namespace

std::string ledger_to_json_line(const LedgerOrigin& origin) {
    return json::serialize(json::object{{"node", to_string(origin.node)},
                                        {"node_incarnation", origin.incarnation.value},
                                        {"kind", "origin"},
                                        {"generation", origin.generation.value},
                                        {"job", origin.job},
                                        {"build", origin.build},
                                        {"machine", origin.machine}});
}

std::string ledger_to_json_line(const LedgerEntry& entry) {
    json::object object{{"at_ns", entry.at.time_since_epoch().count()}};
    std::visit(JsonMembers{object}, entry.record);
    return json::serialize(object);
}

std::string ledger_to_text(const LedgerEntry& entry) {
    const double seconds = as_seconds(entry.at);
    return fmt::format("{:12.6f} s  {}", seconds, std::visit(Text{}, entry.record));
}

}  // namespace detente
