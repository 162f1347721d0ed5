// What /status and /metrics say.
#include <fmt/core.h>

#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <iterator>

#include "launch/books_json.h"
#include "launch/http_server.h"

namespace detente {

namespace json = boost::json;

namespace {

json::object page_of(const ProcessView& process, Time now) {
    json::object values;
    for (const NamedValue& value : process.last.values) values[value.name] = value.value;
    json::object page{{"name", to_string(process.node)},
                      {"phase", name_of(process.phase)},
                      {"phase_s", as_seconds(now - process.since)},
                      {"host", process.endpoint.host},
                      {"pid", process.process},
                      {"address", process.endpoint.tcp},
                      {"does", process.last.activity},
                      {"waits_for", process.last.waiting_for},
                      {"waited_s", as_seconds(process.last.waited)},
                      {"silent_s", as_seconds(now - process.heard)},
                      {"values", std::move(values)}};
    if (!process.reason.empty()) page["reason"] = process.reason;
    return page;
}

// Prometheus: a label value's backslash, quote and line feed are escaped.
std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') {
            out += "\\n";
            continue;
        }
        if (c == '\\' || c == '"') out += '\\';
        out += c;
    }
    return out;
}

// Prometheus spells what C's printf spells "nan" and "inf" otherwise.
std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    return fmt::format("{}", value);
}

}  // namespace

std::string status_json(const ClusterView& view) {
    json::array processes;
    for (const ProcessView& process : view.processes) {
        processes.push_back(page_of(process, view.now));
    }
    json::object losses;
    const std::vector<double> mean = mean_losses(view);
    for (std::size_t i = 0; i < mean.size() && i < view.tasks.size(); ++i) {
        losses[view.tasks[i]] = std::isfinite(mean[i]) ? json::value(mean[i]) : json::value();
    }
    json::array checkpoints;
    for (const CheckpointView& checkpoint : view.checkpoints) {
        json::object accuracy;
        for (const auto& [task, score] : checkpoint.accuracy) accuracy[task] = score;
        checkpoints.push_back(json::object{{"number", checkpoint.number},
                                           {"directory", checkpoint.directory},
                                           {"accuracy", std::move(accuracy)}});
    }
    json::array groups;
    for (const Group& group : view.groups) {
        json::array members;
        for (const WorkerId member : group.members) {
            members.emplace_back(to_string(node_of(member)));
        }
        groups.push_back(
            json::object{{"epoch", group.epoch.value}, {"workers", std::move(members)}});
    }
    return json::serialize(json::object{{"job", view.job},
                                        {"in_step", std::move(groups)},
                                        {"stage", name_of(view.stage)},
                                        {"stage_s", as_seconds(view.now - view.stage_since)},
                                        {"run_s", as_seconds(view.now)},
                                        {"batches_done", batches_done(view)},
                                        {"losses", std::move(losses)},
                                        {"updates", json_of(total_books(view))},
                                        {"checkpoints", std::move(checkpoints)},
                                        {"processes", std::move(processes)}}) +
           "\n";
}

std::string metrics_text(const ClusterView& view) {
    std::string text;
    const auto out = std::back_inserter(text);
    fmt::format_to(out,
                   "# HELP detente_up Whether the process is there (1) or not.\n"
                   "# TYPE detente_up gauge\n");
    for (const ProcessView& process : view.processes) {
        fmt::format_to(out, "detente_up{{process=\"{}\",host=\"{}\",phase=\"{}\"}} {}\n",
                       to_string(process.node), escaped(process.endpoint.host),
                       name_of(process.phase), process.live() ? 1 : 0);
    }
    fmt::format_to(out,
                   "# HELP detente_process_value What a process reports, by name.\n"
                   "# TYPE detente_process_value gauge\n");
    for (const ProcessView& process : view.processes) {
        for (const NamedValue& value : process.last.values) {
            fmt::format_to(out, "detente_process_value{{process=\"{}\",name=\"{}\"}} {}\n",
                           to_string(process.node), escaped(value.name), number(value.value));
        }
    }
    const Books books = total_books(view);
    struct Count {
        const char* name;
        const char* type;
        const char* help;
        std::uint64_t value;
    };
    const Count counts[] = {
        {"updates_computed_total", "counter", "Block updates that workers began.", books.computed},
        {"updates_applied_total", "counter", "Block updates applied.", books.applied},
        {"updates_rejected_total", "counter", "Block updates refused as too old.", books.rejected},
        {"updates_cancelled_total", "counter", "Block updates given up by their worker.",
         books.cancelled},
        {"updates_lost_total", "counter", "Block updates that went with a lost worker.",
         books.lost},
        {"updates_in_flight", "gauge", "Block updates begun and not yet judged.", books.in_flight},
        {"samples_total", "counter", "Training samples computed.", total_samples(view)},
        {"steps_total", "counter", "Steps of all workers.", total_steps(view)}};
    for (const Count& count : counts) {
        fmt::format_to(out, "# HELP detente_{} {}\n# TYPE detente_{} {}\ndetente_{} {}\n",
                       count.name, count.help, count.name, count.type, count.name, count.value);
    }
    const std::vector<double> losses = mean_losses(view);
    fmt::format_to(out,
                   "# HELP detente_loss Recent training loss of a task.\n"
                   "# TYPE detente_loss gauge\n");
    for (std::size_t i = 0; i < losses.size() && i < view.tasks.size(); ++i) {
        fmt::format_to(out, "detente_loss{{task=\"{}\"}} {}\n", escaped(view.tasks[i]),
                       number(losses[i]));
    }
    const std::vector<std::uint64_t> staleness = total_staleness(view);
    std::uint64_t below = 0;
    fmt::format_to(out,
                   "# HELP detente_staleness Of applied block updates, in versions.\n"
                   "# TYPE detente_staleness histogram\n");
    double sum = 0;
    for (const ProcessView& process : view.processes) {
        sum += process.value("staleness.sum").value_or(0);
    }
    for (std::size_t bin = 0; bin + 1 < staleness.size(); ++bin) {
        below += staleness[bin];
        fmt::format_to(out, "detente_staleness_bucket{{le=\"{}\"}} {}\n", bin, below);
    }
    if (!staleness.empty()) below += staleness.back();
    fmt::format_to(out,
                   "detente_staleness_bucket{{le=\"+Inf\"}} {}\ndetente_staleness_sum {}\n"
                   "detente_staleness_count {}\n",
                   below, number(sum), below);
    return text;
}

std::optional<HttpAnswer> answer_of(const ClusterView& view, const std::string& path) {
    if (path == "/status") return HttpAnswer{"application/json", status_json(view)};
    if (path == "/metrics") return HttpAnswer{"text/plain; version=0.0.4", metrics_text(view)};
    return std::nullopt;
}

}  // namespace detente
