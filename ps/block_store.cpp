#include "ps/block_store.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "common/checksum.h"
#include "common/invariant.h"
#include "common/rules/schedule.h"

namespace detente {
namespace {
constexpr std::uint32_t kNowhere = std::numeric_limits<std::uint32_t>::max();
}

Payload LiveBlock::weight_payload() const {
    return {weights, {weights->data(), static_cast<std::size_t>(plan->bytes())}};
}

std::uint64_t LiveBlock::weight_checksum() {
    if (!known_checksum) known_checksum = checksum_of(weight_payload().bytes);
    return *known_checksum;
}

Result<BlockStore> BlockStore::create(const Plan& plan, const Job& job, ShardId shard,
                                      Epoch epoch) {
    BlockStore store;
    store.workers_ = job.workers;
    store.across_ = job.across;
    store.admission_ = job.admission;
    std::vector<const RuleConfig*> rules{&job.rule};
    store.schedules_.push_back(job.schedule);
    for (const RuleFor& special : job.rule_for) {
        rules.push_back(&special.rule);
        store.schedules_.push_back(special.schedule);
    }
    for (const RuleConfig* config : rules) {
        auto rule = make_rule(*config);
        if (!rule) return rule.error();
        store.rules_.push_back(std::move(*rule));
    }
    std::vector<const PolicyConfig*> policies{&job.policy};
    for (const PolicyFor& special : job.policy_for) policies.push_back(&special.policy);
    for (const PolicyConfig* config : policies) {
        auto policy = make_policy(*config);
        if (!policy) return policy.error();
        store.policies_.push_back(std::move(*policy));
    }
    if (decides_steps(job.admission, *store.policies_.front())) {
        store.step_policy_ = store.policies_.front().get();
    }
    const bool mixed =
        store.step_policy_ != nullptr
            ? store.policies_.size() > 1
            : std::any_of(store.policies_.begin(), store.policies_.end(),
                          [](const auto& policy) { return policy->scope() == Scope::step; });
    if (mixed) {
        return fail(ErrorCode::bad_job,
                    "a staleness policy that decides whole steps decides for every tensor: remove "
                    "[[staleness.for]], or choose policies and an admission of scope block");
    }
    const bool unfit = job.across.method != AcrossMethod::off &&
                       (store.step_policy_ != nullptr ||
                        !std::all_of(store.policies_.begin(), store.policies_.end(),
                                     [](const auto& policy) { return fits_across(*policy); }));
    if (unfit) {
        return fail(ErrorCode::bad_job,
                    "across.method: needs staleness policies that decide per block and neither "
                    "change nor keep anything of a gradient");
    }
    store.index_of_.assign(plan.blocks.size(), kNowhere);
    store.ids_ = plan.by_shard[shard.value];
    store.blocks_.reserve(store.ids_.size());
    std::uint64_t largest = 0;
    for (const BlockId id : store.ids_) {
        const Block& planned = plan.block(id);
        LiveBlock block;
        block.plan = &planned;
        block.epoch = epoch;
        block.rule = store.rules_[planned.rule].get();
        block.schedule = &store.schedules_[planned.rule];
        block.policy = store.policies_[planned.policy].get();
        block.policy_state = block.policy->initial_state();
        block.base_learning_rate = rules[planned.rule]->learning_rate;
        block.clip_value = static_cast<float>(rules[planned.rule]->clip_value);
        store.index_of_[id.value] = static_cast<std::uint32_t>(store.blocks_.size());
        store.blocks_.push_back(std::move(block));
        if (!planned.frozen) ++store.trainable_;
        largest = std::max(largest, planned.bytes());
    }
    store.spare_limit_bytes_ = std::max<std::uint64_t>(kSpareBytes, 2 * largest);
    return store;
}

LiveBlock* BlockStore::find(BlockId id) {
    if (id.value >= index_of_.size() || index_of_[id.value] == kNowhere) return nullptr;
    return &blocks_[index_of_[id.value]];
}

Result<void> BlockStore::fill(LiveBlock& block, const BlockContents& contents) {
    const std::uint64_t bytes = block.plan->bytes();
    const auto wrong = [&](const char* what, std::size_t found) {
        return fail(ErrorCode::bad_length, std::string("block ") +
                                               std::to_string(block.plan->id.value) + ": " + what +
                                               " of " + std::to_string(found) +
                                               " bytes, expected " + std::to_string(bytes));
    };
    if (contents.weights.size() != bytes) return wrong("weights", contents.weights.size());
    if (!contents.slots.empty() &&
        contents.slots.size() != static_cast<std::size_t>(block.rule->slots())) {
        return fail(ErrorCode::bad_checkpoint,
                    "block " + std::to_string(block.plan->id.value) + ": " +
                        std::to_string(contents.slots.size()) +
                        " arrays of optimizer state, rule " + block.rule->name() + " keeps " +
                        std::to_string(block.rule->slots()) +
                        "; resume with the rule the checkpoint was made with");
    }
    for (const Payload& slot : contents.slots) {
        if (slot.size() != bytes) return wrong("optimizer state", slot.size());
    }
    if (block.weights == nullptr) ++initialised_;
    block.weights = std::make_shared<AlignedBuffer>(bytes);
    std::memcpy(block.weights->data(), contents.weights.bytes.data(), bytes);
    block.known_checksum.reset();
    const int slots = block.rule->slots();
    const std::uint64_t stride = block.slot_floats();
    block.slots =
        std::make_shared<AlignedBuffer>(static_cast<std::uint64_t>(slots) * stride * sizeof(float));
    for (int slot = 0; slot < slots; ++slot) {
        float* values = block.slots->floats().data() + static_cast<std::uint64_t>(slot) * stride;
        std::fill_n(values, stride, block.rule->initial_slot(slot));
        if (!contents.slots.empty()) {
            std::memcpy(values, contents.slots[static_cast<std::size_t>(slot)].bytes.data(), bytes);
        }
    }
    block.version = contents.version;
    block.updates = contents.updates;
    block.samples_applied = contents.samples_applied;
    if (auto filled = fill_memory(block, contents); !filled) return filled;
    return fill_policy(block, contents);
}

// Where the job no longer resolves across workers, what was remembered is left out.
Result<void> BlockStore::fill_memory(LiveBlock& block, const BlockContents& contents) const {
    if (!resolves(block)) return {};
    for (const SavedMemory::Task& one : contents.memory.tasks) {
        if (one.mean.size() == block.plan->bytes() && block.plan->owners.contains(one.task)) {
            continue;
        }
        return fail(ErrorCode::bad_checkpoint,
                    "block " + std::to_string(block.plan->id.value) +
                        ": what is remembered of task " + std::to_string(one.task.value) +
                        ": expected " + std::to_string(block.plan->bytes()) +
                        " bytes of one of the block's owners, found " +
                        std::to_string(one.mean.size()) + " of " +
                        (block.plan->owners.contains(one.task) ? "an owner" : "another task") +
                        "; resume with the [[task]] and [[mask]] entries the checkpoint was made "
                        "with, or with across.method = \"off\"");
    }
    block.memory.restore(contents.memory);
    return {};
}

// Vectors that do not fit the policy (a checkpoint of before they were saved, other parameters, a
// policy that has just begun) are left out, and its numbers begin anew with them.
Result<void> BlockStore::fill_policy(LiveBlock& block, const BlockContents& contents) {
    const PolicyNeeds needs = block.policy->needs();
    const bool whole =
        contents.vectors.block.size() == needs.block_vectors &&
        std::all_of(contents.vectors.workers.begin(), contents.vectors.workers.end(),
                    [&](const auto& one) { return one.second.size() == needs.worker_vectors; });
    if (!whole || contents.policy != block.policy->name()) return {};
    const auto fits = [&](const std::vector<Payload>& vectors) {
        return std::all_of(vectors.begin(), vectors.end(), [&](const Payload& vector) {
            return vector.size() == block.plan->bytes();
        });
    };
    const bool long_enough =
        fits(contents.vectors.block) &&
        std::all_of(contents.vectors.workers.begin(), contents.vectors.workers.end(),
                    [&](const auto& one) { return fits(one.second); });
    if (!long_enough) {
        return fail(ErrorCode::bad_length, "block " + std::to_string(block.plan->id.value) +
                                               ": vectors of policy '" + contents.policy +
                                               "' are not of " +
                                               std::to_string(block.plan->bytes()) + " bytes each");
    }
    block.policy_state = contents.policy_state;
    block.vectors.restore(contents.vectors);
    // Of a job that had more workers.
    for (const auto& [worker, vectors] : contents.vectors.workers) {
        if (worker.value >= workers_) forget(block, worker);
    }
    return {};
}

bool BlockStore::room_for(std::uint64_t bytes) const {
    return spare_bytes_ + bytes <= spare_limit_bytes_;
}

bool BlockStore::can_apply(const std::vector<LiveBlock*>& blocks) {
    reclaim();
    std::uint64_t needed = 0;
    std::unordered_map<std::uint64_t, std::size_t> wanted;
    for (const LiveBlock* block : blocks) {
        for (const SharedBuffer* buffer : {&block->weights, &block->slots}) {
            if (buffer->use_count() <= 1 || (*buffer)->size() == 0) continue;
            const std::uint64_t bytes = (*buffer)->size();
            const auto spares = spares_.find(bytes);
            const std::size_t have = spares == spares_.end() ? 0 : spares->second.size();
            if (++wanted[bytes] > have) needed += bytes;
        }
    }
    return needed == 0 || spare_bytes_ - idle_bytes() + needed <= spare_limit_bytes_ ||
           lent_.empty();
}

std::uint64_t BlockStore::idle_bytes() const {
    std::uint64_t idle = 0;
    for (const auto& [bytes, spares] : spares_) idle += bytes * spares.size();
    return idle;
}

std::uint64_t BlockStore::lent_bytes() const {
    std::uint64_t bytes = 0;
    for (const SharedBuffer& buffer : lent_) bytes += buffer->size();
    return bytes;
}

SharedBuffer BlockStore::take_spare(std::uint64_t bytes) {
    auto& spares = spares_[bytes];
    if (spares.empty()) {
        // Idle spares of other sizes make room first.
        for (auto other = spares_.begin(); other != spares_.end() && !room_for(bytes); ++other) {
            while (!other->second.empty() && !room_for(bytes)) {
                other->second.pop_back();
                spare_bytes_ -= other->first;
            }
        }
        spare_bytes_ += bytes;
        return std::make_shared<AlignedBuffer>(bytes);
    }
    SharedBuffer spare = std::move(spares.back());
    spares.pop_back();
    return spare;
}

double BlockStore::learning_rate(const LiveBlock& block) const {
    return block.base_learning_rate * schedule_factor(*block.schedule, block.samples_applied);
}

void BlockStore::apply(LiveBlock& block, const std::byte* gradient, float step_scale,
                       std::uint32_t samples) {
    invariant(block.weights != nullptr, "a block is initialised before it is updated");
    if (block.slots.use_count() > 1 && block.slots->size() > 0) {
        SharedBuffer copy = take_spare(block.slots->size());
        std::memcpy(copy->data(), block.slots->data(), copy->size());
        lent_.push_back(std::exchange(block.slots, std::move(copy)));
    }
    SharedBuffer target =
        block.weights.use_count() > 1 ? take_spare(block.weights->size()) : block.weights;
    const std::uint64_t elements = block.plan->elements;
    const std::uint64_t stride = block.slot_floats();
    RuleArrays arrays;
    arrays.weights_in = block.weights->floats().first(elements);
    arrays.weights_out = target->floats().first(elements);
    arrays.gradient = gradient;
    if (block.rule->slots() > 0) arrays.slot0 = block.slots->floats().subspan(0, elements);
    if (block.rule->slots() > 1) arrays.slot1 = block.slots->floats().subspan(stride, elements);
    RuleStep step;
    step.learning_rate = learning_rate(block) * static_cast<double>(step_scale);
    step.update = block.updates + 1;
    step.clip_value = block.clip_value;
    block.known_checksum.reset();
    block.rule->apply(step, arrays);
    if (target != block.weights) lent_.push_back(std::exchange(block.weights, std::move(target)));
    block.version = next(block.version);
    ++block.updates;
    block.samples_applied += samples;
}

Arrived BlockStore::arrival(const LiveBlock& block, WorkerId worker, Step step,
                            std::uint64_t staleness) const {
    Arrived arrived;
    arrived.worker = worker;
    arrived.step = step;
    arrived.staleness = staleness;
    arrived.updates = block.updates;
    arrived.samples_applied = block.samples_applied;
    arrived.members = workers_;  // the job's: who is up now, a replay cannot know
    arrived.learning_rate = learning_rate(block);
    return arrived;
}

bool BlockStore::can_correct(const LiveBlock& block, WorkerId worker, Version base) const {
    const Policy& policy = *block.policy;
    return !policy.needs().stale_weights || !block.vectors.copy_of(worker, base).empty();
}

Measured BlockStore::measure(LiveBlock& block, WorkerId worker, Version base,
                             const std::byte* gradient) {
    if (!block.vectors.has_block_vectors()) return {};
    const std::uint64_t elements = block.plan->elements;
    scratch_.resize(elements);
    std::memcpy(scratch_.data(), gradient, elements * sizeof(float));
    const BlockVectors vectors = block.vectors.of(block.policy->needs(), worker, base,
                                                  block.weights->floats().first(elements));
    return block.policy->measure(vectors, scratch_);
}

Result<void> BlockStore::change_policy(const PolicyConfig& config,
                                       std::optional<Admission> admission) {
    auto policy = make_policy(config);
    if (!policy) return policy.error();
    const bool steps = decides_steps(admission.value_or(admission_), **policy);
    if (steps && (policies_.size() > 1 || across_.method != AcrossMethod::off)) {
        return fail(ErrorCode::bad_job,
                    "staleness policy '" + config.name +
                        "' decides whole steps, which goes with neither [[staleness.for]] nor "
                        "across.method");
    }
    const std::unique_ptr<const Policy> former = std::move(policies_.front());
    policies_.front() = std::move(*policy);
    admission_ = admission.value_or(admission_);
    step_policy_ = steps ? policies_.front().get() : nullptr;
    for (LiveBlock& block : blocks_) {
        if (block.policy != former.get()) continue;
        block.policy = policies_.front().get();
        block.policy_state = block.policy->initial_state();
        block.vectors = {};
    }
    return {};
}

void BlockStore::apply_parts(LiveBlock& block, const std::vector<Part>& parts, double denominator,
                             float step_scale, std::uint32_t samples) {
    invariant(!parts.empty(), "an update folds at least one gradient");
    if (resolves(block) && parts.size() == 1 && parts[0].tasks.count() == 1) {
        return apply(block, resolved(block, parts[0]), step_scale, samples);
    }
    const Policy& policy = *block.policy;
    const PolicyNeeds needs = policy.needs();
    const std::uint64_t elements = block.plan->elements;
    const bool as_it_is = parts.size() == 1 && parts[0].weight == 1 && denominator == 1 &&
                          !needs.corrects && !needs.measures;
    const std::byte* gradient = parts[0].gradient;
    if (!as_it_is) {
        scratch_.resize(elements);
        const bool single = parts.size() == 1 && parts[0].weight == 1 && denominator == 1;
        if (!single) folded_.assign(elements, 0.0);
        for (const Part& part : parts) {
            std::memcpy(scratch_.data(), part.gradient, elements * sizeof(float));
            if (needs.measures) {
                policy.accepted(block.vectors.of(needs, part.arrived.worker, part.base,
                                                 block.weights->floats().first(elements)),
                                scratch_);
            }
            // Staged before a change of policy that keeps copies: as it is, there is none of its.
            if (needs.corrects && can_correct(block, part.arrived.worker, part.base)) {
                // The lead judged the step with a state of its own; what correct() reads is the
                // block's, on every shard, and learns of each arrival here.
                if (step_policy_ != nullptr) {
                    std::vector<PolicyOutcome> decided_by_lead;
                    policy.on(part.arrived, block.policy_state, decided_by_lead);
                }
                const BlockVectors vectors = block.vectors.of(
                    needs, part.arrived.worker, part.base, block.weights->floats().first(elements));
                policy.correct(part.arrived, block.policy_state, vectors, scratch_);
            }
            if (single) break;
            for (std::uint64_t i = 0; i < elements; ++i) {
                folded_[i] += static_cast<double>(part.weight) * scratch_[i];
            }
        }
        if (!single) {
            for (std::uint64_t i = 0; i < elements; ++i) {
                scratch_[i] = static_cast<float>(folded_[i] / denominator);
            }
        }
        gradient = reinterpret_cast<const std::byte*>(scratch_.data());
    }
    if (!needs.step_averages) return apply(block, gradient, step_scale, samples);
    const std::span<const float> weights = block.weights->floats().first(elements);
    before_.assign(weights.begin(), weights.end());
    const double rate = learning_rate(block) * static_cast<double>(step_scale);
    apply(block, gradient, step_scale, samples);
    policy.applied(rate, before_,
                   block.vectors.of(needs, parts[0].arrived.worker, parts[0].base,
                                    block.weights->floats().first(elements)));
}

const std::byte* BlockStore::resolved(LiveBlock& block, const Part& part) {
    const std::uint64_t elements = block.plan->elements;
    scratch_.resize(elements);
    std::memcpy(scratch_.data(), part.gradient, elements * sizeof(float));
    TaskMemory::Arrival arrival;
    arrival.task = TaskId{static_cast<std::uint32_t>(std::countr_zero(part.tasks.bits))};
    arrival.base = part.base;
    arrival.weights = block.weights->floats().first(elements);
    arrival.stale = block.memory.copies().copy_of(part.arrived.worker, part.base);
    block.memory.resolve(across_, arrival, scratch_, beside_, across_figures_);
    return reinterpret_cast<const std::byte*>(scratch_.data());
}

bool BlockStore::remembers_pulls(const LiveBlock& block) const {
    const PolicyNeeds needs = block.policy->needs();
    return needs.look_ahead || needs.stale_weights || (resolves(block) && across_.compensate > 0);
}

Payload BlockStore::hand_out(LiveBlock& block, WorkerId worker) {
    if (block.plan->frozen) return block.weight_payload();
    const Policy& policy = *block.policy;
    const PolicyNeeds needs = policy.needs();
    const std::span<const float> stored = block.weights->floats().first(block.plan->elements);
    if (resolves(block) && across_.compensate > 0) {
        block.memory.copies().keep_copy(worker, block.version, stored);
    }
    if (!needs.look_ahead) {
        if (needs.stale_weights) block.vectors.keep_copy(worker, block.version, stored);
        return block.weight_payload();
    }
    auto ahead = std::make_shared<AlignedBuffer>(block.plan->bytes());
    const std::span<float> values = ahead->floats().first(block.plan->elements);
    std::copy(stored.begin(), stored.end(), values.begin());
    policy.look_ahead(learning_rate(block), block.vectors.of(needs, worker, block.version, stored),
                      values);
    if (needs.stale_weights) block.vectors.keep_copy(worker, block.version, values);
    const std::size_t bytes = block.plan->bytes();
    return {ahead, {ahead->data(), bytes}};
}

bool BlockStore::forget(WorkerId worker) {
    bool any = false;
    for (LiveBlock& block : blocks_) any |= forget(block, worker);
    return any;
}

bool BlockStore::forget(LiveBlock& block, WorkerId worker) {
    const bool copies = block.memory.copies().knows(worker);
    block.memory.copies().forget(worker);
    if (!block.vectors.knows(worker)) return copies;  // nor may there be weights yet
    block.vectors.forget(*block.policy, worker, block.version,
                         block.weights->floats().first(block.plan->elements));
    return true;
}

void BlockStore::reclaim() {
    for (std::size_t i = 0; i < lent_.size();) {
        if (lent_[i].use_count() > 1) {
            ++i;
            continue;
        }
        spares_[lent_[i]->size()].push_back(std::move(lent_[i]));
        lent_[i] = std::move(lent_.back());
        lent_.pop_back();
    }
}

}  // namespace detente
