#include "launch/replay/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/invariant.h"
#include "common/ledger_controls.h"
#include "common/partition/task_placement.h"
#include "common/random.h"
#include "launch/weights_digest.h"
#include "ps/checkpoint.h"
#include "ps/restore.h"

namespace detente {

Replay::Replay(const Recording& recording, const Plan& plan, std::shared_ptr<EnginePool> engines,
               ReplayOptions options)
    : recording_(recording),
      job_(std::make_shared<const Job>(recording.job)),
      plan_(std::make_shared<const Plan>(plan)),
      engines_(std::move(engines)),
      options_(std::move(options)),
      orders_(std::make_shared<SampleOrders>(job_->seed, engines_->description().training_samples)),
      in_step_(*plan_, engines_->description().tasks.size()) {}

Result<std::unique_ptr<Replay>> Replay::create(const Recording& recording, const Plan& plan,
                                               std::shared_ptr<EnginePool> engines,
                                               ReplayOptions options) {
    std::unique_ptr<Replay> made(
        new Replay(recording, plan, std::move(engines), std::move(options)));
    if (auto begun = made->begin(); begun.has_error()) return begun.error();
    return made;
}

Result<void> Replay::begin() {
    for (const Block& block : plan_->blocks) {
        if (block.trainable()) trainable_.push_back(block.id);
    }
    if (auto checked = check_recording(); checked.has_error()) return checked;
    auto resolver = Resolver::create(*job_, engines_->description().tasks.size());
    if (resolver.has_error()) return resolver.error();
    first_ = std::move(*resolver);
    const auto& restored = recording_.shards.front().restored;
    epoch_ = restored ? restored->epoch : Epoch{1};
    for (std::uint32_t i = 0; i < job_->shards(); ++i) {
        auto store = BlockStore::create(*plan_, *job_, ShardId{i}, epoch_);
        if (store.has_error()) return store.error();
        stores_.push_back(std::move(*store));
    }
    places_.resize(stores_.size());
    if (options_.gaps && !recording_.rounds.empty()) {
        return fail(ErrorCode::not_supported,
                    "gaps: layers in step ([sync]) are pushed as a node's averages, so that there "
                    "is no gradient of the same step at other weights to compare with");
    }
    auto halves = WorkerHalves::create(*job_, *plan_);
    if (halves.has_error()) return halves.error();
    bool ahead = *halves != nullptr;
    for (BlockStore& store : stores_) {
        for (const LiveBlock& block : store.blocks()) ahead |= block.policy->needs().look_ahead;
    }
    if (options_.gaps && ahead) {
        return fail(ErrorCode::not_supported,
                    fmt::format("gaps: under staleness.policy = \"{}\" workers compute at other "
                                "weights than the stored ones, so that neither is the point a "
                                "gradient should have been computed at",
                                job_->policy.name));
    }
    if (options_.gaps && !engines_->description().gates.empty()) {
        return fail(ErrorCode::not_supported,
                    "gaps: the model's gates learn from one step to the next, so that there is no "
                    "other gradient of the same step to compare with");
    }
    const AggregatorNeeds needs = first_->aggregator().needs();
    if (options_.gaps && (needs.averages || needs.excess)) {
        return fail(ErrorCode::not_supported,
                    fmt::format("gaps: conflict.method = \"{}\" resolves what it keeps of earlier "
                                "gradients, so that there is no other gradient of the same step to "
                                "compare with",
                                job_->aggregator.name));
    }
    count_uses();
    return restored ? begin_with_checkpoint(restored->directory) : begin_anew();
}

// As a server that is started with --resume.
Result<void> Replay::begin_with_checkpoint(const std::string& directory) {
    for (std::uint32_t i = 0; i < job_->shards(); ++i) {
        ShardSetup setup;
        setup.id = ShardId{i};
        setup.job = job_;
        setup.plan = plan_;
        const auto gaps = restore_shard(setup, directory, engines_->description());
        if (gaps.has_error()) {
            return fail(gaps.error().code,
                        fmt::format("this run began with checkpoint {}: {}; a replay needs it "
                                    "where it was",
                                    directory, gaps.error().text));
        }
        for (auto& [id, contents] : setup.restored) {
            LiveBlock& block = live(id);
            if (auto filled = stores_[i].fill(block, contents); filled.has_error()) return filled;
            updated(block);
        }
    }
    return {};
}

Result<void> Replay::begin_anew() {
    Result<void> filled;
    const auto first = [&](std::uint32_t block, const Payload& values) {
        LiveBlock& at = live(BlockId{block});
        BlockContents contents;
        contents.weights = values;
        auto done = stores_[at.plan->home.value].fill(at, contents);
        if (done.has_error() && filled.has_value()) filled = done;
        updated(at);
    };
    EngineComputer initial(engines_->engine(), plan_, orders_, false);
    if (auto begun = initial.run(InitialWork{}, never_, first); begun.has_error()) {
        return begun.error();
    }
    return filled;
}

Result<void> Replay::check_recording() const {
    const TaskSet tasks = trained_tasks(*plan_);
    const auto at_home = [&](BlockId block, std::size_t shard) {
        return block.value < plan_->blocks.size() && plan_->block(block).home.value == shard;
    };
    for (std::size_t shard = 0; shard < recording_.shards.size(); ++shard) {
        for (const LedgerEntry& entry : recording_.shards[shard].entries) {
            bool sound = true;
            if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
                for (const BlockId block : pull->blocks) sound = sound && at_home(block, shard);
            } else if (const auto* push = std::get_if<VerdictRecord>(&entry.record)) {
                sound = !push->rows.empty() && tasks.contains_all(push->batch.tasks) &&
                        (push->batch.tasks.count() == 1) == job_->split_tasks;
                for (const VerdictRecord::Row& row : push->rows) {
                    sound = sound && at_home(row.block, shard) && !plan_->block(row.block).frozen &&
                            plan_->block(row.block).owners.contains_all(row.tasks) &&
                            (!job_->split_tasks || row.tasks == push->batch.tasks);
                }
            }
            if (sound) continue;
            return fail(ErrorCode::bad_message,
                        fmt::format("shard:{}: \"{}\" names no block, or one that does not live "
                                    "there: the ledger is not of this job and model",
                                    shard, ledger_to_text(entry)));
        }
    }
    for (const auto& [key, step] : recording_.steps) {
        if (step.round && !sound_share(step)) {
            return fail(ErrorCode::bad_message,
                        fmt::format("{} brought its node what no worker of this job and model has: "
                                    "the ledger is of another",
                                    to_string(key)));
        }
        if (!step.carries) continue;
        const std::vector<BlockId>& before = recording_.steps.at(*step.carries).pushed;
        const bool whole = std::all_of(step.pushed.begin(), step.pushed.end(), [&](BlockId block) {
            return std::find(before.begin(), before.end(), block) != before.end();
        });
        if (whole) continue;
        return fail(ErrorCode::bad_message,
                    fmt::format("{} carries a gradient of {}, which lacks blocks of it",
                                to_string(key), to_string(*step.carries)));
    }
    return {};
}

bool Replay::sound_share(const RecordedStep& step) const {
    bool sound = !job_->split_tasks && step.batch.tasks.empty();
    for (const auto& [block, version] : step.base) sound &= block.value < plan_->blocks.size();
    for (std::uint32_t task = 0; task < kMaxTasks; ++task) {
        if (!step.brought.contains(TaskId{task})) continue;
        sound = sound && task < in_step_.tasks() && in_step_.elements(TaskId{task}) > 0;
    }
    return sound;
}

void Replay::count_uses() {
    for (const auto& [key, step] : recording_.steps) {
        for (const auto& [block, version] : step.base) ++uses_[{block, version}];
        if (!step.carries) continue;
        const RecordedStep& rejected = recording_.steps.at(*step.carries);
        for (const BlockId block : step.pushed) ++uses_[{block, rejected.base.at(block)}];
        carried_rows_[*step.carries] += step.pushed.size();
    }
}

LiveBlock& Replay::live(BlockId block) {
    LiveBlock* found = stores_[plan_->block(block).home.value].find(block);
    invariant(found != nullptr, "a block is at home on its shard");
    return *found;
}

// ---- going through the entries ----

Result<ReplayFigures> Replay::run() {
    constexpr std::uint64_t kEntriesBetween = 256;
    std::vector<std::size_t> order(stores_.size());
    while (true) {
        order.clear();
        for (std::size_t i = 0; i < places_.size(); ++i) {
            if (places_[i].next < recording_.shards[i].entries.size()) order.push_back(i);
        }
        if (order.empty()) break;
        const auto at = [&](std::size_t i) {
            return recording_.shards[i].entries[places_[i].next].at;
        };
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return std::pair(at(a), a) < std::pair(at(b), b);
        });
        Went went = Went::not_yet;
        for (std::size_t i = 0; i < order.size() && went == Went::not_yet; ++i) {
            auto gone = go_on(order[i]);
            if (gone.has_error()) return gone.error();
            went = *gone;
        }
        if (went == Went::not_yet) return stuck();
        if (++figures_.entries % kEntriesBetween == 0 && options_.pause_point &&
            !options_.pause_point(figures_.entries)) {
            return fail(ErrorCode::cancelled, "the replay was interrupted");
        }
    }
    for (std::size_t i = 0; i < places_.size(); ++i) {
        if (auto closed = close(i); closed.has_error()) return closed.error();
    }
    if (auto done = compute_last_rounds(); done.has_error()) return done.error();
    return figures_;
}

Result<Replay::Went> Replay::go_on(std::size_t shard) {
    Place& place = places_[shard];
    const LedgerEntry& entry = recording_.shards[shard].entries[place.next];
    const auto* push = std::get_if<VerdictRecord>(&entry.record);
    if (push != nullptr) {
        auto went = take(shard, entry.at, *push);
        if (went.has_value() && *went == Went::on) ++place.next;
        return went;
    }
    if (auto closed = close(shard); closed.has_error()) return closed.error();
    if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
        if (auto taken = take(shard, *pull); taken.has_error()) return taken.error();
    } else if (const auto* control = std::get_if<ControlRecord>(&entry.record)) {
        if (auto taken = take(shard, *control); taken.has_error()) return taken.error();
    } else if (const auto* closed = std::get_if<ClosedRecord>(&entry.record)) {
        figures_.others += closed->blocks;
    }
    ++place.next;
    return Went::on;
}

Result<void> Replay::take(std::size_t shard, const PullRecord& pull) {
    const auto step = recording_.steps.find(key_of(pull));
    for (std::size_t i = 0; i < pull.blocks.size(); ++i) {
        LiveBlock* block = stores_[shard].find(pull.blocks[i]);
        if (block == nullptr || block->version != pull.versions[i]) {
            return fail(
                ErrorCode::internal,
                fmt::format("shard:{}, entry {}: {} was handed block {} at version {}; here "
                            "it is at {}",
                            shard, places_[shard].next, to_string(key_of(pull)),
                            pull.blocks[i].value, pull.versions[i].value,
                            block == nullptr ? "no version: it lives elsewhere"
                                             : std::to_string(block->version.value)));
        }
        const PolicyNeeds needs = block->policy->needs();
        if (!stores_[shard].remembers_pulls(*block)) continue;
        Payload handed = stores_[shard].hand_out(*block, pull.worker);
        if (!needs.look_ahead || block->plan->frozen || step == recording_.steps.end()) continue;
        if (step->second.base.at(pull.blocks[i]) != block->version) continue;
        handed_[key_of(pull)][pull.blocks[i]] = std::move(handed);
    }
    return {};
}

Result<void> Replay::take(std::size_t shard, const ControlRecord& control) {
    if (const auto number = checkpoint_of(control)) {
        if (options_.checkpoints.contains(*number)) {
            for (const LiveBlock& block : stores_[shard].blocks()) {
                checkpoints_[*number][block.plan->id] = block.weight_payload();
            }
        }
    }
    if (const auto worker = forgotten_worker(control)) stores_[shard].forget(*worker);
    if (!changes_policy(control)) return {};
    const auto refused = [&](ErrorCode code, const std::string& why) {
        return fail(code, fmt::format("shard:{}, entry {}: {}: {}", shard, places_[shard].next,
                                      control.what, why));
    };
    const auto change = changed_policy(control);
    if (!change) return refused(ErrorCode::bad_message, "not a change this build can read");
    // What was decided before is whole: nothing more comes to an average.
    if (auto closed = close(shard); closed.has_error()) return closed.error();
    auto changed = stores_[shard].change_policy(change->policy, change->admission);
    if (changed.has_error()) return refused(changed.error().code, changed.error().text);
    if (options_.gaps && stores_[shard].job_policy().needs().look_ahead) {
        return refused(ErrorCode::not_supported,
                       "gaps: from here on workers compute at other weights than the stored ones");
    }
    return {};
}

Result<Replay::Went> Replay::take(std::size_t shard, Time at, const VerdictRecord& push) {
    const StepKey key = key_of(push);
    const RecordedStep& step = recording_.steps.at(key);
    auto gradient = gradients_.find(key);
    if (gradient == gradients_.end()) {
        if (lacking(key, step)) return Went::not_yet;
        if (auto computed = compute(key, step); computed.has_error()) return computed.error();
        gradient = gradients_.find(key);
    }
    if (push.decision == Sequence{}) {
        if (auto closed = close(shard); closed.has_error()) return closed.error();
    }
    for (const VerdictRecord::Row& row : push.rows) {
        if (row.verdict != Verdict::applied) ++figures_.others;
        Result<void> done;
        const Payload& values = gradient->second.blocks.at(row.block);
        if (push.decision == Sequence{}) {
            done = apply_alone(shard, at, push, row, values);
        } else if (row.verdict == Verdict::applied) {
            done = fold(shard, push, row, values);
        }
        if (done.has_error()) return done.error();
    }
    used(key, push.rows.size());
    return Went::on;
}

void Replay::used(const StepKey& key, std::size_t rows) {
    const auto gradient = gradients_.find(key);
    gradient->second.rows_left -= rows;
    if (gradient->second.rows_left == 0) gradients_.erase(gradient);
}

Error Replay::stuck() const {
    std::string text = "the ledgers do not fit together:";
    for (std::size_t i = 0; i < places_.size(); ++i) {
        if (places_[i].next >= recording_.shards[i].entries.size()) {
            text += fmt::format(" shard:{} is at its end;", i);
            continue;
        }
        const LedgerEntry& entry = recording_.shards[i].entries[places_[i].next];
        const auto& push = std::get<VerdictRecord>(entry.record);
        const StepKey key = key_of(push);
        const auto lacks = lacking(key, recording_.steps.at(key));
        text += fmt::format(" shard:{} is at entry {}, a push of {}", i, places_[i].next,
                            to_string(key));
        if (lacks) {
            const auto& [step, block] = *lacks;
            const auto& base = recording_.steps.at(step).base;
            const auto version = base.find(block);
            text += fmt::format(", which was computed {}at {} of block {} (shard:{})",
                                step == key ? "" : "after " + to_string(step) + ", ",
                                version == base.end()
                                    ? "an unknown version"
                                    : fmt::format("version {}", version->second.value),
                                block.value, plan_->block(block).home.value);
        }
        text += ";";
    }
    text.back() = '.';
    return fail(ErrorCode::bad_message,
                text + " A ledger that a crash cut off replays no further than this");
}

// ---- applying ----

void Replay::updated(LiveBlock& block) {
    const auto used = uses_.find({block.plan->id, block.version});
    if (used != uses_.end()) kept_[used->first] = block.weight_payload();
}

Result<void> Replay::apply_alone(std::size_t shard, Time at, const VerdictRecord& push,
                                 const VerdictRecord::Row& row, const Payload& gradient) {
    if (row.verdict == Verdict::lost || row.reason == ErrorCode::wrong_epoch ||
        row.reason == ErrorCode::not_finite)
        return {};
    LiveBlock& block = live(row.block);
    Arrived arrived = stores_[shard].arrival(block, push.worker, push.step, row.staleness);
    arrived.at_s = as_seconds(at);
    // For what correct() reads; what becomes of the gradient is in the record.
    std::vector<PolicyOutcome> outcomes;
    block.policy->on(arrived, block.policy_state, outcomes);
    if (row.verdict != Verdict::applied) return {};
    Average one;
    one.version = row.version;
    one.step_scale = row.step_scale;
    one.scheduled_rate = row.scheduled_rate;
    one.samples = push.samples;
    one.parts.push_back({gradient.bytes.data(), 1, arrived, row.base, row.tasks});
    return apply(shard, row.block, one);
}

Result<void> Replay::fold(std::size_t shard, const VerdictRecord& push,
                          const VerdictRecord::Row& row, const Payload& gradient) {
    std::map<BlockId, Average>& open = places_[shard].open;
    const auto found = open.find(row.block);
    if (found != open.end() &&
        (found->second.decision != push.decision || found->second.version != row.version)) {
        const Average whole = std::move(found->second);
        open.erase(found);
        if (auto done = apply(shard, row.block, whole); done.has_error()) return done;
    }
    Average& average = open[row.block];
    average.decision = push.decision;
    average.version = row.version;
    average.denominator = push.denominator;
    average.step_scale = row.step_scale;
    average.scheduled_rate = row.scheduled_rate;
    average.samples += push.samples;
    BlockStore::Part part;
    part.gradient = gradient.bytes.data();
    part.weight = push.gradient_weight;
    part.base = row.base;
    part.arrived = stores_[shard].arrival(live(row.block), push.worker, push.step, row.staleness);
    average.parts.push_back(part);
    average.owners.push_back(gradient);
    return {};
}

Result<void> Replay::close(std::size_t shard) {
    for (const auto& [block, average] : std::exchange(places_[shard].open, {})) {
        if (auto done = apply(shard, block, average); done.has_error()) return done;
    }
    return {};
}

Result<void> Replay::apply(std::size_t shard, BlockId id, const Average& average) {
    LiveBlock& block = live(id);
    BlockStore& store = stores_[shard];
    const auto differs = [&](const std::string& what, const auto& recorded, const auto& here) {
        return fail(ErrorCode::internal,
                    fmt::format("shard:{}, entry {}: block {}: {} recorded as {}, here {}", shard,
                                places_[shard].next, id.value, what, recorded, here));
    };
    const double rate = store.learning_rate(block);
    if (average.scheduled_rate != rate) {
        return differs("its scheduled rate", average.scheduled_rate, rate);
    }
    if (next(block.version) != average.version) {
        return differs("its version", average.version.value, next(block.version).value);
    }
    store.reclaim();
    store.apply_parts(block, average.parts, average.denominator, average.step_scale,
                      average.samples);
    figures_.applied += average.parts.size();
    updated(block);
    return {};
}

std::optional<std::uint64_t> Replay::checkpoint() const {
    for (auto at = checkpoints_.rbegin(); at != checkpoints_.rend(); ++at) {
        if (at->second.size() == plan_->blocks.size()) return at->first;
    }
    return std::nullopt;
}

const std::map<BlockId, Payload>& Replay::checkpoint_weights() const {
    static const std::map<BlockId, Payload> none;
    const auto number = checkpoint();
    return number ? checkpoints_.at(*number) : none;
}

std::uint64_t Replay::digest() {
    WeightsDigest digest;
    for (BlockStore& store : stores_) {
        for (const LiveBlock& block : store.blocks()) digest.take(block);
    }
    return digest.value();
}

}  // namespace detente
