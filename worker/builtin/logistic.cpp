// builtin:logistic: multinomial logistic regression, one task per target column of a CSV file of
// numbers: softmax of Wx + b, mean cross entropy of the batch plus l2/2·‖W‖². The other columns are
// the features, brought to mean 0 and deviation 1 over the training rows. Every `test_every`-th row
// is for the test.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "worker/builtin/models.h"
#include "worker/builtin/tensors.h"

namespace detente {
namespace {

struct NumberTable {
    std::vector<std::string> columns;  // "c0", "c1", … where the file has no header
    std::vector<std::vector<float>> rows;
};

std::vector<std::string> cells_of(const std::string& line) {
    std::vector<std::string> cells;
    std::istringstream text(line);
    for (std::string cell; std::getline(text, cell, ',');) cells.push_back(cell);
    return cells;
}

bool number_of(std::string_view cell, float& value) {
    while (!cell.empty() && (cell.back() == '\r' || cell.back() == ' ')) cell.remove_suffix(1);
    const auto read = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    return read.ec == std::errc() && read.ptr == cell.data() + cell.size() && std::isfinite(value);
}

Result<NumberTable> read_numbers(const std::string& path) {
    std::ifstream file(path);
    if (!file || std::filesystem::is_directory(path)) {
        return fail(ErrorCode::bad_dataset,
                    path +
                        ": cannot read it; builtin:logistic takes the file that "
                        "[model.options] file names in data.dir: CSV, numbers only, not packed "
                        "(gunzip -c FILE.gz > FILE)");
    }
    NumberTable table;
    std::string line;
    for (std::size_t number = 1; std::getline(file, line); ++number) {
        const std::vector<std::string> cells = cells_of(line);
        if (cells.empty()) continue;
        std::vector<float> row(cells.size());
        std::size_t wrong = 0;
        while (wrong < cells.size() && number_of(cells[wrong], row[wrong])) ++wrong;
        const bool is_row = wrong == cells.size();
        if (number == 1) {
            table.columns = cells;
            for (std::size_t i = 0; i < cells.size() && is_row; ++i) {
                table.columns[i] = "c" + std::to_string(i);
            }
            if (!is_row) continue;
        }
        if (!is_row || cells.size() != table.columns.size()) {
            return fail(ErrorCode::bad_dataset,
                        path + ":" + std::to_string(number) + ": expected " +
                            std::to_string(table.columns.size()) + " numbers, found \"" +
                            line.substr(0, 80) + "\"");
        }
        table.rows.push_back(std::move(row));
    }
    return table;
}

// One task: a column of class numbers.
struct Target {
    std::size_t column = 0;
    std::size_t classes = 0;
};

class LogisticEngine final : public PlainEngine {
  public:
    static Result<std::unique_ptr<Engine>> create(BuiltinOptions& options,
                                                  const EngineOptions& engine) {
        std::unique_ptr<LogisticEngine> made(new LogisticEngine);
        const std::string name = options.text("file", "data.csv");
        const std::string targets = options.text("targets", "");
        made->l2_ = options.number("l2", 0, 0, 1e6);
        const std::uint64_t test_every = options.whole("test_every", 5, 2, 1'000'000);
        if (const auto mistake = options.mistake()) return *mistake;
        const std::string path = (std::filesystem::path(engine.dataset_dir) / name).string();
        auto table = read_numbers(path);
        if (!table) return table.error();
        // Without a name the last column is what is to be told.
        const std::vector<std::string> wanted =
            targets.empty() ? std::vector<std::string>{table->columns.back()} : cells_of(targets);
        for (const std::string& target : wanted) {
            if (auto added = made->add_target(*table, target, path); !added) return added.error();
        }
        made->take_rows(*table, test_every);
        if (made->test_.empty() || made->training_.empty()) {
            return fail(ErrorCode::bad_dataset, path + ": " + std::to_string(table->rows.size()) +
                                                    " rows are too few to train and test");
        }
        made->describe();
        return std::unique_ptr<Engine>(std::move(made));
    }

    Result<GradientReport> gradients(const GradientRequest& request) override {
        auto held = std::make_shared<PlainGradients>();
        GradientReport report;
        for (std::uint32_t t = 0; t < targets_.size(); ++t) {
            std::vector<std::vector<float>>& rows = held->rows.emplace_back(tensors_.size());
            report.losses.push_back(0);
            if (!request.tasks.contains(TaskId{t})) continue;
            const std::size_t first = std::size_t{2} * t;  // weight, then bias
            backward(t, request.samples, rows[first], rows[first + 1], report.losses.back());
        }
        report.gradients = std::move(held);
        return report;
    }

    Result<std::vector<TaskScore>> evaluate() override {
        std::vector<TaskScore> scores;
        std::vector<double> shares;
        for (std::size_t t = 0; t < targets_.size(); ++t) {
            TaskScore score{description_.tasks[t], 0, 0, test_.size()};
            for (const Sample& sample : test_) {
                score.loss += softmax(t, sample, shares);
                const auto best = std::max_element(shares.begin(), shares.end()) - shares.begin();
                score.accuracy += static_cast<std::size_t>(best) == sample.classes[t] ? 1 : 0;
            }
            score.loss /= static_cast<double>(test_.size());
            score.accuracy /= static_cast<double>(test_.size());
            scores.push_back(std::move(score));
        }
        return scores;
    }

  private:
    struct Sample {
        std::vector<float> features;
        std::vector<std::size_t> classes;  // per task
    };

    Result<void> add_target(const NumberTable& table, const std::string& name,
                            const std::string& path) {
        const auto column = std::find(table.columns.begin(), table.columns.end(), name);
        if (column == table.columns.end()) {
            return fail(ErrorCode::bad_job, "[model.options] targets: " + path +
                                                " has no column '" + name +
                                                "'; without a header they are c0, c1, …");
        }
        Target target{static_cast<std::size_t>(column - table.columns.begin()), 0};
        constexpr float kMostClasses = 1000;
        for (const std::vector<float>& row : table.rows) {
            const float label = row[target.column];
            if (label < 0 || label >= kMostClasses || label != std::floor(label)) {
                return fail(ErrorCode::bad_dataset,
                            fmt::format("{}: column {}: expected class numbers from 0 on, found {}",
                                        path, name, label));
            }
            target.classes = std::max(target.classes, static_cast<std::size_t>(label) + 1);
        }
        targets_.push_back(target);
        description_.tasks.push_back(name);
        return {};
    }

    void take_rows(const NumberTable& table, std::uint64_t test_every) {
        std::vector<std::size_t> columns;
        for (std::size_t c = 0; c < table.columns.size(); ++c) {
            const auto is_it = [c](const Target& target) { return target.column == c; };
            if (std::none_of(targets_.begin(), targets_.end(), is_it)) columns.push_back(c);
        }
        features_ = columns.size();
        for (std::size_t i = 0; i < table.rows.size(); ++i) {
            Sample sample;
            for (const std::size_t c : columns) sample.features.push_back(table.rows[i][c]);
            for (const Target& target : targets_) {
                sample.classes.push_back(static_cast<std::size_t>(table.rows[i][target.column]));
            }
            (i % test_every == test_every - 1 ? test_ : training_).push_back(std::move(sample));
        }
        for (std::size_t f = 0; f < features_; ++f) standardise(f);
    }

    void standardise(std::size_t feature) {
        double sum = 0;
        double squares = 0;
        for (const Sample& sample : training_) sum += sample.features[feature];
        const double count = std::max<double>(1, static_cast<double>(training_.size()));
        const double mean = sum / count;
        for (const Sample& sample : training_) {
            squares += (sample.features[feature] - mean) * (sample.features[feature] - mean);
        }
        const double deviation = std::sqrt(squares / count);
        const auto bring = [&](Sample& sample) {
            float& value = sample.features[feature];
            value = deviation > 0 ? static_cast<float>((value - mean) / deviation) : 0;
        };
        std::for_each(training_.begin(), training_.end(), bring);
        std::for_each(test_.begin(), test_.end(), bring);
    }

    void describe() {
        description_.model = "logistic";
        description_.training_samples = training_.size();
        description_.test_samples = test_.size();
        for (std::uint32_t t = 0; t < targets_.size(); ++t) {
            TaskSet only;
            only.insert(TaskId{t});
            const std::size_t classes = targets_[t].classes;
            const auto count = static_cast<std::int64_t>(classes);
            add_tensor(description_.tasks[t] + ".weight",
                       {count, static_cast<std::int64_t>(features_)}, only,
                       std::vector<float>(classes * features_, 0.0F));
            add_tensor(description_.tasks[t] + ".bias", {count}, only,
                       std::vector<float>(classes, 0.0F));
        }
    }

    // Cross entropy of one sample; `shares` = the probabilities of the classes.
    double softmax(std::size_t task, const Sample& sample, std::vector<double>& shares) const {
        const std::vector<float>& weight = tensors_[2 * task];
        const std::vector<float>& bias = tensors_[2 * task + 1];
        shares.resize(bias.size());
        for (std::size_t c = 0; c < bias.size(); ++c) {
            double sum = bias[c];
            for (std::size_t f = 0; f < features_; ++f) {
                sum += static_cast<double>(weight[c * features_ + f]) * sample.features[f];
            }
            shares[c] = sum;
        }
        const double largest = *std::max_element(shares.begin(), shares.end());
        const double own = shares[sample.classes[task]];
        double total = 0;
        for (double& share : shares) total += share = std::exp(share - largest);
        for (double& share : shares) share /= total;
        return std::log(total) + largest - own;
    }

    void backward(std::size_t task, const std::vector<std::uint32_t>& batch,
                  std::vector<float>& weight_row, std::vector<float>& bias_row,
                  double& loss) const {
        const std::vector<float>& weight = tensors_[2 * task];
        std::vector<double> weight_sum(weight.size(), 0.0);
        std::vector<double> bias_sum(tensors_[2 * task + 1].size(), 0.0);
        std::vector<double> shares;
        for (const std::uint32_t index : batch) {
            const Sample& sample = training_[index];
            loss += softmax(task, sample, shares);
            shares[sample.classes[task]] -= 1;
            for (std::size_t c = 0; c < shares.size(); ++c) {
                bias_sum[c] += shares[c];
                for (std::size_t f = 0; f < features_; ++f) {
                    weight_sum[c * features_ + f] += shares[c] * sample.features[f];
                }
            }
        }
        const double count = std::max<double>(1, static_cast<double>(batch.size()));
        loss /= count;
        for (std::size_t i = 0; i < weight.size(); ++i) {
            weight_row.push_back(static_cast<float>(weight_sum[i] / count + l2_ * weight[i]));
            loss += l2_ / 2 * weight[i] * weight[i];
        }
        for (const double sum : bias_sum) bias_row.push_back(static_cast<float>(sum / count));
    }

    double l2_ = 0;
    std::size_t features_ = 0;
    std::vector<Target> targets_;
    std::vector<Sample> training_;
    std::vector<Sample> test_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_logistic_engine(BuiltinOptions& options,
                                                     const EngineOptions& engine) {
    return LogisticEngine::create(options, engine);
}

}  // namespace detente
