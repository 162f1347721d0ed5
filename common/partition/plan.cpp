#include "common/partition/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <utility>

#include "common/codec/codec.h"
#include "common/nearest_name.h"
#include "common/staleness/policy.h"

namespace detente {
namespace {

constexpr std::uint64_t kTileBytes = kTileElements * sizeof(float);

// What a job's patterns make of one tensor.
struct TensorPlan {
    TaskSet owners;
    bool frozen = false;
    std::uint32_t rule = 0;
    std::uint32_t policy = 0;
    bool in_step = false;
    const MaskConfig* mask = nullptr;  // of the job; nullptr: none is for it
};

std::vector<std::string> tensor_names(const ModelDescription& model) {
    std::vector<std::string> names;
    names.reserve(model.tensors.size());
    for (const TensorDescription& tensor : model.tensors) names.push_back(tensor.name);
    return names;
}

std::optional<Error> matches_nothing(const std::string& pattern, const std::string& key,
                                     const ModelDescription& model) {
    for (const TensorDescription& tensor : model.tensors) {
        if (name_matches(pattern, tensor.name)) return std::nullopt;
    }
    return fail(ErrorCode::bad_job,
                fmt::format("{}: expected a pattern that matches a tensor of model '{}', found "
                            "'{}', which matches none; the nearest tensor is '{}' (`detente plan "
                            "JOB` lists all)",
                            key, model.model, pattern, nearest_name(pattern, tensor_names(model))));
}

std::optional<Error> bad_pattern(const ModelDescription& model, const Job& job) {
    for (const std::string& pattern : job.frozen) {
        if (auto error = matches_nothing(pattern, "model.frozen", model)) return error;
    }
    for (const RuleFor& entry : job.rule_for) {
        if (auto error = matches_nothing(entry.pattern, "rule.for", model)) return error;
    }
    for (const PolicyFor& entry : job.policy_for) {
        if (auto error = matches_nothing(entry.pattern, "staleness.for", model)) return error;
    }
    for (const MaskConfig& mask : job.masks) {
        if (auto error = matches_nothing(mask.pattern, "mask", model)) return error;
    }
    for (const std::string& pattern : job.sync_layers) {
        if (auto error = matches_nothing(pattern, "sync.layers", model)) return error;
    }
    for (const TaskConfig& task : job.tasks) {
        for (const std::string& pattern : task.exclude) {
            const std::string key = fmt::format("task '{}', exclude", task.name);
            if (auto error = matches_nothing(pattern, key, model)) return error;
        }
    }
    return std::nullopt;
}

std::optional<Error> bad_task(const ModelDescription& model, const Job& job) {
    std::set<std::string> seen;
    for (const TaskConfig& task : job.tasks) {
        if (std::find(model.tasks.begin(), model.tasks.end(), task.name) == model.tasks.end()) {
            return fail(ErrorCode::bad_job,
                        fmt::format("task: model '{}' has no task '{}'; did you mean '{}'?",
                                    model.model, task.name, nearest_name(task.name, model.tasks)));
        }
        if (!seen.insert(task.name).second) {
            return fail(ErrorCode::bad_job,
                        fmt::format("task: '{}' is listed twice; put all its settings under one "
                                    "[[task]]",
                                    task.name));
        }
    }
    return std::nullopt;
}

std::optional<Error> bad_size(const Job& job) {
    if (job.block_bytes == 0 || job.block_bytes % kTileBytes != 0) {
        return fail(
            ErrorCode::bad_job,
            fmt::format("blocks.bytes: expected a multiple of {} (a tile of {} "
                        "elements), found {}; the nearest is {}",
                        kTileBytes, kTileElements, job.block_bytes,
                        std::max<std::uint64_t>(1, job.block_bytes / kTileBytes) * kTileBytes));
    }
    if (job.shards() == 0) {
        return fail(ErrorCode::bad_job,
                    fmt::format("servers and shards_per_server: expected at least 1 each, found "
                                "{} and {}",
                                job.servers, job.shards_per_server));
    }
    return std::nullopt;
}

std::optional<Error> bad_space(const ModelDescription& model, const Job& job) {
    if (job.conflict_space == ConflictSpace::parameters || model.gates.empty()) return std::nullopt;
    return fail(
        ErrorCode::bad_job,
        fmt::format("conflict.space = \"representation\": model '{}' has gates, which scale "
                    "each task's own way back through the trunk, and there is one way for "
                    "all there: set gates.enabled = false, or \"parameters\"",
                    model.model));
}

// A gate learns from one step of its task to the next of all tasks together.
std::optional<Error> bad_split(const ModelDescription& model, const Job& job) {
    if (!job.split_tasks || model.gates.empty()) return std::nullopt;
    return fail(ErrorCode::bad_job,
                fmt::format("worker.split_tasks: model '{}' has gates, which learn from the "
                            "gradients of all tasks at the next step, and a step is of one task: "
                            "set gates.enabled = false",
                            model.model));
}

// 0 for the job's own, i + 1 for the first entry whose pattern matches.
template <class Entry>
std::uint32_t first_match(const std::vector<Entry>& entries, const std::string& tensor) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (name_matches(entries[i].pattern, tensor)) return static_cast<std::uint32_t>(i + 1);
    }
    return 0;
}

Result<TensorPlan> plan_tensor(const TensorDescription& tensor, const ModelDescription& model,
                               const Job& job) {
    TensorPlan plan;
    plan.owners = tensor.owners;
    for (const TaskConfig& task : job.tasks) {
        const auto at = std::find(model.tasks.begin(), model.tasks.end(), task.name);
        const auto bit = std::uint64_t{1} << std::distance(model.tasks.begin(), at);
        for (const std::string& pattern : task.exclude) {
            if (name_matches(pattern, tensor.name)) plan.owners.bits &= ~bit;
        }
    }
    if (job.conflict_space == ConflictSpace::representation && tensor.owners.count() > 1 &&
        plan.owners != tensor.owners) {
        return fail(ErrorCode::bad_job,
                    fmt::format("task.exclude takes tensor '{}' from some of its tasks, but under "
                                "conflict.space = \"representation\" one backward through the "
                                "trunk serves all of them: remove the pattern, or set "
                                "\"parameters\"",
                                tensor.name));
    }
    plan.frozen = tensor.frozen || tensor.owners.empty();
    for (const std::string& pattern : job.frozen) {
        plan.frozen = plan.frozen || name_matches(pattern, tensor.name);
    }
    if (!plan.frozen && plan.owners.empty()) {
        return fail(ErrorCode::bad_job,
                    fmt::format("task.exclude: expected at least one task that may update tensor "
                                "'{}', found that every task whose loss reaches it excludes it; "
                                "to leave it as it is, add it to model.frozen",
                                tensor.name));
    }
    plan.rule = first_match(job.rule_for, tensor.name);
    plan.policy = first_match(job.policy_for, tensor.name);
    plan.in_step = !plan.frozen && std::any_of(job.sync_layers.begin(), job.sync_layers.end(),
                                               [&tensor](const std::string& pattern) {
                                                   return name_matches(pattern, tensor.name);
                                               });
    const std::uint32_t mask = first_match(job.masks, tensor.name);
    if (mask > 0) plan.mask = &job.masks[mask - 1];
    return plan;
}

// Part of a tensor that is cut into blocks of its own: element first, first + stride …
struct Stretch {
    std::uint64_t first = 0;
    std::uint64_t elements = 0;
    std::uint64_t stride = 1;
};

// As few blocks as the bound allows, equal to within one tile: a tensor slightly over the bound
// then gives two halves, which balance better than a large block and a crumb. Stretches of a tensor
// are stored in the order in which they are cut.
void cut(std::uint32_t index, const Stretch& stretch, const TensorPlan& tensor,
         std::uint64_t block_bytes, std::vector<Block>& blocks) {
    const std::uint64_t tiles = (stretch.elements + kTileElements - 1) / kTileElements;
    const std::uint64_t most = block_bytes / kTileBytes;
    const std::uint64_t count = (tiles + most - 1) / most;
    const bool goes_on = !blocks.empty() && blocks.back().tensor == index;
    std::uint64_t offset = goes_on ? blocks.back().offset + blocks.back().elements : 0;
    std::uint64_t done = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t own_tiles = tiles / count + (i < tiles % count ? 1 : 0);
        Block block;
        block.id = BlockId{blocks.size()};
        block.tensor = index;
        block.offset = offset;
        block.elements = std::min(own_tiles * kTileElements, stretch.elements - done);
        block.first = stretch.first + done * stretch.stride;
        block.stride = stretch.stride;
        block.owners = tensor.owners;
        block.frozen = tensor.frozen;
        block.rule = tensor.rule;
        block.policy = tensor.policy;
        block.in_step = tensor.in_step;
        done += block.elements;
        offset += block.elements;
        blocks.push_back(block);
    }
}

// The nth of so many owners' share of the `elements` from `first` on. In runs: equal to within a
// row (elements / shape[0]: an output unit's weights stay together). Strided: to within an element.
Stretch own_share(std::uint64_t first, std::uint64_t elements, std::uint64_t row, std::uint64_t nth,
                  std::uint64_t owners, ExclusiveParts parts) {
    if (parts == ExclusiveParts::strided) {
        return {first + nth, elements / owners + (nth < elements % owners ? 1 : 0), owners};
    }
    const std::uint64_t rows = elements / row;
    const std::uint64_t begin = rows * nth / owners;
    const std::uint64_t end = rows * (nth + 1) / owners;
    return {first + begin * row, (end - begin) * row, 1};
}

// A tensor under a mask: what stays shared, whole rows, then one stretch per owner, in task order.
void cut_masked(std::uint32_t index, const TensorDescription& described, const TensorPlan& tensor,
                std::uint64_t block_bytes, std::vector<Block>& blocks) {
    const std::uint64_t elements = described.elements();
    const std::uint64_t rows =
        described.shape.empty() ? 1 : static_cast<std::uint64_t>(described.shape[0]);
    const std::uint64_t row = std::max<std::uint64_t>(1, rows == 0 ? 1 : elements / rows);
    const std::uint64_t shared =
        row * static_cast<std::uint64_t>(std::llround(std::clamp(tensor.mask->shared, 0.0, 1.0) *
                                                      static_cast<double>(rows)));
    cut(index, {0, shared, 1}, tensor, block_bytes, blocks);
    const auto owners = static_cast<std::uint64_t>(tensor.owners.count());
    std::uint64_t nth = 0;
    for (std::uint32_t task = 0; task < kMaxTasks; ++task) {
        if (!tensor.owners.contains(TaskId{task})) continue;
        TensorPlan own = tensor;
        own.owners = {};
        own.owners.insert(TaskId{task});
        const Stretch share =
            own_share(shared, elements - shared, row, nth, owners, tensor.mask->exclusive);
        cut(index, share, own, block_bytes, blocks);
        ++nth;
    }
}

void place(Plan& plan, std::uint32_t shards) {
    std::vector<std::size_t> order(plan.blocks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&plan](std::size_t a, std::size_t b) {
        return plan.blocks[a].elements > plan.blocks[b].elements;
    });
    using Load = std::pair<std::uint64_t, std::uint32_t>;  // bytes, shard
    std::priority_queue<Load, std::vector<Load>, std::greater<>> lightest;
    for (std::uint32_t shard = 0; shard < shards; ++shard) lightest.emplace(0, shard);
    for (const std::size_t index : order) {
        const auto [bytes, shard] = lightest.top();
        lightest.pop();
        plan.blocks[index].home = ShardId{shard};
        lightest.emplace(bytes + plan.blocks[index].bytes(), shard);
    }
    plan.by_shard.resize(shards);
    plan.shard_bytes.resize(shards);
    for (const Block& block : plan.blocks) {
        plan.by_shard[block.home.value].push_back(block.id);
        plan.shard_bytes[block.home.value] += block.bytes();
        plan.parameters += block.elements;
    }
}

std::string owners_text(const Block& block, const ModelDescription& model) {
    if (block.frozen) return "frozen";
    std::string text;
    for (std::uint32_t task = 0; task < model.tasks.size(); ++task) {
        if (!block.owners.contains(TaskId{task})) continue;
        text += (text.empty() ? "" : "+") + model.tasks[task];
    }
    return text;
}

std::string choice_text(std::uint32_t index) {
    return index == 0 ? "job" : fmt::format("for[{}]", index - 1);
}

// A notice of what a shard has staged carries sums for each of its blocks.
std::optional<Error> too_many_measured(const Plan& plan, const Job& job) {
    const auto policy = make_policy(job.policy);
    if (!policy || !(*policy)->needs().measures) return std::nullopt;
    for (std::size_t shard = 0; shard < plan.by_shard.size(); ++shard) {
        const std::size_t blocks = plan.by_shard[shard].size();
        if (blocks <= kMostBlocksPerMessage) continue;
        return fail(ErrorCode::bad_job,
                    fmt::format("staleness.policy '{}' measures every block of a step: shard {} "
                                "has {} blocks, at most {} fit one notice; raise "
                                "blocks.bytes or the number of shards",
                                job.policy.name, shard, blocks, kMostBlocksPerMessage));
    }
    return std::nullopt;
}

}  // namespace

double Plan::imbalance() const {
    std::uint64_t total = 0;
    std::uint64_t most = 0;
    for (const std::uint64_t bytes : shard_bytes) {
        total += bytes;
        most = std::max(most, bytes);
    }
    if (total == 0) return 1;
    return static_cast<double>(most) * static_cast<double>(shard_bytes.size()) /
           static_cast<double>(total);
}

Result<Plan> make_plan(const ModelDescription& model, const Job& job) {
    if (auto error = bad_size(job)) return *error;
    if (auto error = bad_task(model, job)) return *error;
    if (auto error = bad_space(model, job)) return *error;
    if (auto error = bad_split(model, job)) return *error;
    if (auto error = bad_pattern(model, job)) return *error;
    Plan plan;
    for (std::uint32_t index = 0; index < model.tensors.size(); ++index) {
        const TensorDescription& tensor = model.tensors[index];
        const Result<TensorPlan> planned = plan_tensor(tensor, model, job);
        if (planned.has_error()) return planned.error();
        if (planned->mask != nullptr && !planned->frozen && planned->owners.count() > 1) {
            cut_masked(index, tensor, *planned, job.block_bytes, plan.blocks);
        } else {
            cut(index, {0, tensor.elements(), 1}, *planned, job.block_bytes, plan.blocks);
        }
    }
    place(plan, job.shards());
    if (auto error = too_many_measured(plan, job)) return *error;
    return plan;
}

std::string describe(const Plan& plan, const ModelDescription& model) {
    using Row = std::vector<std::string>;
    std::vector<Row> rows = {
        {"block", "shard", "tensor", "first", "elements", "bytes", "owners", "rule", "policy"}};
    for (const Block& block : plan.blocks) {
        rows.push_back({std::to_string(block.id.value), std::to_string(block.home.value),
                        model.tensors[block.tensor].name, std::to_string(block.first),
                        std::to_string(block.elements), std::to_string(block.bytes()),
                        owners_text(block, model), choice_text(block.rule),
                        choice_text(block.policy)});
    }
    const bool any_strided = std::any_of(plan.blocks.begin(), plan.blocks.end(),
                                         [](const Block& block) { return block.stride != 1; });
    for (std::size_t i = 0; any_strided && i < rows.size(); ++i) {
        const std::uint64_t stride = i == 0 ? 1 : plan.blocks[i - 1].stride;
        rows[i].push_back(i == 0 ? "stride" : stride == 1 ? "" : std::to_string(stride));
    }
    const bool any_in_step = std::any_of(plan.blocks.begin(), plan.blocks.end(),
                                         [](const Block& block) { return block.in_step; });
    for (std::size_t i = 0; any_in_step && i < rows.size(); ++i) {
        rows[i].emplace_back(i == 0 ? "in step" : plan.blocks[i - 1].in_step ? "yes" : "");
    }
    std::vector<std::size_t> widths(rows[0].size());
    for (const Row& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    const auto is_text = [](std::size_t column) { return column == 2 || column >= 6; };
    std::string text;
    for (const Row& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += is_text(i) ? fmt::format("{:<{}}  ", row[i], widths[i])
                               : fmt::format("{:>{}}  ", row[i], widths[i]);
        }
        text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
    text += "\n";
    const double mean = static_cast<double>(plan.parameters * sizeof(float)) /
                        static_cast<double>(std::max<std::size_t>(1, plan.by_shard.size()));
    for (std::size_t shard = 0; shard < plan.by_shard.size(); ++shard) {
        text += fmt::format("shard {}: {} blocks, {} bytes, {:.3f} of the mean\n", shard,
                            plan.by_shard[shard].size(), plan.shard_bytes[shard],
                            mean == 0 ? 1.0 : static_cast<double>(plan.shard_bytes[shard]) / mean);
    }
    text +=
        fmt::format("{} parameters in {} blocks on {} shards; largest shard {:.3f} of the mean\n",
                    plan.parameters, plan.blocks.size(), plan.by_shard.size(), plan.imbalance());
    return text;
}

}  // namespace detente
