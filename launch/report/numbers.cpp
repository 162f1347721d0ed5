#include "launch/report/numbers.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <iterator>

#include "launch/books_json.h"
#include "launch/pairs_json.h"

namespace detente {
namespace {

namespace json = boost::json;

json::object accuracies(const std::vector<std::pair<std::string, double>>& of_tasks) {
    json::object object;
    for (const auto& [task, accuracy] : of_tasks) object[task] = number(accuracy);
    return object;
}

json::object conflict_json(const RunRecord& run) {
    json::object conflict;
    if (run.mean_cosine) conflict["mean_cosine"] = number(*run.mean_cosine);
    if (!run.pairs.empty()) conflict["pairs"] = json_of(run.pairs);
    if (!run.layers.empty()) conflict["layers"] = json_of(run.layers);
    if (!run.layers_error.empty()) conflict["layers_error"] = run.layers_error;
    if (!run.by_task.empty()) conflict["by_task"] = json_of(run.by_task);
    if (run.interference_index) conflict["interference_index"] = number(*run.interference_index);
    if (run.steps_in_conflict) conflict["steps_in_conflict"] = number(*run.steps_in_conflict);
    if (run.degenerate_steps) conflict["degenerate_steps"] = *run.degenerate_steps;
    json::array rows;
    for (const auto& row : run.cosines) {
        json::array numbers;
        for (const double value : row) numbers.push_back(number(value));
        rows.emplace_back(std::move(numbers));
    }
    conflict["tasks"] = json::array(run.cosine_tasks.begin(), run.cosine_tasks.end());
    conflict["cosines"] = std::move(rows);
    return conflict;
}

json::array workers_json(const RunRecord& run) {
    json::array workers;
    for (const WorkerSummary& worker : run.workers) {
        workers.push_back(json::object{{"worker", worker.worker},
                                       {"steps", worker.steps},
                                       {"samples", worker.samples},
                                       {"computing_s", number(worker.computing_s)},
                                       {"waiting_s", number(worker.waiting_s)},
                                       {"step_time", json_of(worker.step_times)}});
    }
    return workers;
}

json::array series_json(const RunRecord& run) {
    json::array series;
    for (const SeriesPoint& point : run.points) {
        json::object line{{"seconds", point.seconds},
                          {"steps", point.steps},
                          {"samples", point.samples},
                          {"staleness_mean", number(point.staleness_mean)}};
        for (const auto& [name, count] : json_of(point.books)) line[name] = count;
        json::object losses;
        for (std::size_t i = 0; i < run.tasks.size(); ++i) {
            losses[run.tasks[i]] = number(point.losses[i]);
        }
        line["loss"] = std::move(losses);
        series.push_back(std::move(line));
    }
    return series;
}

json::object run_json(const NamedRun& named) {
    const RunRecord& run = *named.run;
    json::object settings;
    for (const auto& [key, value] : named.settings) settings[key] = value;
    json::array scores;
    for (const SeriesScore& score : run.scores) {
        scores.push_back(json::object{{"seconds", number(score.seconds)},
                                      {"samples", score.samples},
                                      {"checkpoint", score.checkpoint},
                                      {"accuracy", accuracies(score.accuracy)}});
    }
    json::object object{
        {"name", named.name},
        {"directory", run.directory},
        {"virtual", run.virtual_time},
        {"ended", run.ended},
        {"failed", run.failed},
        {"accuracy", accuracies(run.accuracy)},
        {"updates", json_of(run.books)},
        {"staleness", json::object{{"mean", number(run.staleness.mean)},
                                   {"p50", run.staleness.p50},
                                   {"p99", run.staleness.p99},
                                   {"max", run.staleness.max},
                                   {"histogram", json::array(run.staleness_histogram.begin(),
                                                             run.staleness_histogram.end())}}},
        {"conflict", conflict_json(run)},
        {"workers", workers_json(run)},
        {"step_time", json_of(run.step_times)},
        {"steps", run.steps},
        {"samples", run.samples},
        {"wall_s", number(run.wall_s)},
        {"training_s", number(run.training_s)},
        {"samples_per_s", number(run.samples_per_s)},
        {"series", series_json(run)},
        {"scores", std::move(scores)}};
    if (named.reach) object["reached_s"] = number(seconds_to_reach(run, *named.reach));
    if (!run.gaps.empty()) {
        json::array gaps;
        for (const GapPoint& point : run.gaps) {
            gaps.push_back(json::object{{"staleness", point.staleness},
                                        {"gradients", point.gradients},
                                        {"gap", number(point.gap)},
                                        {"cosine", number(point.cosine)}});
        }
        object["gaps"] = std::move(gaps);
    }
    if (run.failed) object["error"] = run.error;
    if (named.seed) {
        object["settings"] = std::move(settings);
        object["seed"] = *named.seed;
    }
    return object;
}

std::string field(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
}

// Writes the lines of one run.
class CsvRun {
  public:
    CsvRun(std::string& out, const std::string& name) : out_(out), name_(field(name)) {}
    void add(const char* quantity, const std::string& of, double value) {
        fmt::format_to(std::back_inserter(out_), "{},{},{},,,{}\n", name_, quantity, field(of),
                       text_of(value));
    }
    void add(const char* quantity, const std::string& of, const SeriesPoint& at, double value) {
        fmt::format_to(std::back_inserter(out_), "{},{},{},{},{},{}\n", name_, quantity, field(of),
                       at.seconds, at.books.applied, text_of(value));
    }

  private:
    static std::string text_of(double value) {
        return std::isfinite(value) ? fmt::format("{}", value) : "";
    }
    std::string& out_;
    std::string name_;
};

void add_run(std::string& out, const NamedRun& named) {
    const RunRecord& run = *named.run;
    CsvRun csv(out, named.name);
    for (const auto& [task, accuracy] : run.accuracy) csv.add("accuracy", task, accuracy);
    for (const auto& [kind, count] : json_of(run.books)) {
        csv.add("updates", std::string(kind), count.to_number<double>());
    }
    csv.add("staleness_mean", "", run.staleness.mean);
    for (std::size_t bin = 0; bin < run.staleness_histogram.size(); ++bin) {
        if (run.staleness_histogram[bin] == 0) continue;
        csv.add("staleness", std::to_string(bin),
                static_cast<double>(run.staleness_histogram[bin]));
    }
    for (std::size_t i = 0; i < run.cosines.size(); ++i) {
        for (std::size_t j = i + 1; j < run.cosines.size(); ++j) {
            if (std::isnan(run.cosines[i][j])) continue;
            csv.add("cosine", run.cosine_tasks[i] + "/" + run.cosine_tasks[j], run.cosines[i][j]);
        }
    }
    for (const TaskSummary& task : run.by_task) {
        csv.add("gradient_norm", task.task, task.norm_mean);
        if (task.weight_mean) csv.add("weight", task.task, *task.weight_mean);
    }
    if (run.interference_index) csv.add("interference_index", "", *run.interference_index);
    if (named.reach) csv.add("reached_s", "", seconds_to_reach(run, *named.reach));
    for (std::size_t part = 0; part < kStepTimeParts && run.step_times.steps > 0; ++part) {
        csv.add("step_time_ms", kStepTimeNames[part], run.step_times.mean_ms(part));
    }
    csv.add("wall_s", "", run.wall_s);
    csv.add("training_s", "", run.training_s);
    csv.add("samples_per_s", "", run.samples_per_s);
    for (const SeriesPoint& point : run.points) {
        for (std::size_t i = 0; i < run.tasks.size(); ++i) {
            csv.add("loss", run.tasks[i], point, point.losses[i]);
        }
        csv.add("staleness_mean", "so far", point, point.staleness_mean);
    }
}

}  // namespace

std::vector<NamedRun> named_runs(const SweepRuns& sweep) {
    std::vector<NamedRun> runs;
    for (const SweepGroup& group : sweep.groups) {
        for (const RunRecord& run : group.runs) {
            for (const SweepCell& cell : group.cells) {
                if (cell_dir(sweep.directory, cell) != run.directory) continue;
                runs.push_back({cell.name, cell.settings, cell.seed, &run, sweep.reach});
            }
        }
    }
    return runs;
}

std::string numbers_as_json(const std::vector<NamedRun>& runs) {
    json::array all;
    for (const NamedRun& run : runs) all.push_back(run_json(run));
    return json::serialize(json::object{{"runs", std::move(all)}}) + "\n";
}

std::string numbers_as_csv(const std::vector<NamedRun>& runs) {
    std::string out = "run,quantity,of,seconds,applied,value\n";
    for (const NamedRun& run : runs) add_run(out, run);
    return out;
}

}  // namespace detente
