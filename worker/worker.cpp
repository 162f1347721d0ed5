#include "worker/worker.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/invariant.h"
#include "common/partition/layers.h"
#include "common/random.h"
#include "common/staleness/policy.h"

namespace detente {
namespace {

// How long a worker looks out for a batch before it lets the others' round pass.
constexpr Nanos kPassAfter = std::chrono::milliseconds(50);

}  // namespace

Result<std::unique_ptr<Worker>> Worker::create(WorkerSetup setup) {
    auto resolver = Resolver::create(*setup.job, setup.tasks.size());
    if (!resolver) return resolver.error();
    const bool trainable = std::any_of(setup.plan->blocks.begin(), setup.plan->blocks.end(),
                                       [](const Block& block) { return block.trainable(); });
    if (!trainable) {
        return fail(ErrorCode::bad_job,
                    "every tensor is frozen or owned by no task: there is nothing to train; see "
                    "model.frozen and [[task]] exclude");
    }
    if (setup.job->consistent_pulls && decides_steps(*setup.job) &&
        !ShardClient(kLeadShard, *setup.plan, *setup.job).takes_part()) {
        return fail(ErrorCode::bad_job,
                    "worker.consistent_pulls: the lead shard, shard 0, has no block that is "
                    "trained, and is never asked: use fewer shards or smaller blocks.bytes");
    }
    return std::unique_ptr<Worker>(new Worker(std::move(setup), std::move(*resolver)));
}

Worker::Worker(WorkerSetup setup, Resolver resolver)
    : setup_(std::move(setup)),
      resolver_(std::move(resolver)),
      rounds_(setup_.id, *setup_.plan, *setup_.job, setup_.tasks.size()),
      pull_spread_(*setup_.job) {
    verdict_first_ = decides_steps(*setup_.job);
    shares_ = sharing_pairs(*setup_.plan, setup_.tasks.size());
    for (std::uint32_t shard = 0; shard < setup_.job->shards(); ++shard) {
        clients_.emplace_back(ShardId{shard}, *setup_.plan, *setup_.job);
    }
    // A task that this worker never computed has no loss here.
    losses_.assign(setup_.tasks.size(),
                   of_all_tasks() ? 0.0 : std::numeric_limits<double>::quiet_NaN());
    loss_steps_.assign(setup_.tasks.size(), 0);
    if (of_all_tasks()) return;
    if (setup_.placement == nullptr) {
        setup_.placement =
            std::make_shared<TaskPlacement>(setup_.tasks, trained_tasks(*setup_.plan));
    }
    place_tasks(all_workers(setup_.job->workers));
}

void Worker::on(Event&& event, Time now, Effects& effects) {
    if (phase_ == Phase::done) return;
    now_ = now;
    effects_ = &effects;
    if (auto* received = std::get_if<Received>(&event)) {
        receive(std::move(received->message));
    } else if (std::holds_alternative<Started>(event)) {
        effects.after(setup_.job->heartbeat_interval, {kHeartbeat, 0});
        looked_overdue_ = now;
        effects.after(setup_.job->reply_deadline / 2, {kOverdue, 0});
    } else if (const auto* part = std::get_if<ComputePart>(&event)) {
        part_computed(*part);
    } else if (auto* ended = std::get_if<ComputeEnded>(&event)) {
        computed(std::move(*ended));
    } else if (const auto* fired = std::get_if<TimerFired>(&event)) {
        if (fired->tag.kind == kHeartbeat) heartbeat();
        if (fired->tag.kind == kOverdue) on_overdue();
        if (fired->tag.kind == kPass) pass_rounds();
    } else if (auto* reduced = std::get_if<Reduced>(&event)) {
        const auto round = rounds_.reduced(std::move(*reduced));
        measure_averages();
        if (round) round_ended(*round);
    } else if (const auto* formed = std::get_if<GroupFormed>(&event)) {
        group_formed(*formed);
    } else if (const auto* broken = std::get_if<GroupBroken>(&event)) {
        if (rounds_.broke(*broken)) group_lost(broken->broken.missing, broken->broken.error);
    } else if (const auto* stored = std::get_if<Stored>(&event)) {
        saving_stored(*stored);
    }
    if (phase_ != Phase::done) advance();
    effects_ = nullptr;
}

std::uint64_t Worker::credit_in_use() const {
    std::uint64_t bytes = 0;
    for (const ShardClient& client : clients_) bytes += client.credit_in_use();
    return bytes;
}

// Whatever the event made possible.
void Worker::advance() {
    if (phase_ == Phase::training) {
        if (batches_.size() <= 2) ask_for_batches(true);
        const bool idle = !computing_ && settling_.empty() && preparing_.empty();
        if (verdict_first_ && idle && !batches_.empty()) open_next_step();
        start_gradient();
        if (!pass_timer_ && idle_but_for_rounds()) {
            pass_timer_ = true;
            effects_->after(kPassAfter, {kPass, 0});
        }
        const bool nothing_left = no_more_ && batches_.empty() && !computing_ && settling_.empty();
        if (nothing_left) drain("every batch is done");
    }
    if (phase_ == Phase::settling || phase_ == Phase::leaving) leave();
}

Step Worker::new_preparing(std::size_t blocks) {
    const Step step = next_step_;
    next_step_ = next(next_step_);
    preparing_.push_back({step, blocks, {}});
    return step;
}

void Worker::open_next_step() {
    std::size_t blocks = 0;
    for (const ShardClient& client : clients_) {
        blocks += pulled_all_ ? client.trainable().size() : client.all_blocks().size();
    }
    const Step step = new_preparing(blocks);
    for (ShardClient& client : clients_) {
        client.pull(step, pulled_all_ ? client.trainable() : client.all_blocks(), now_, *effects_);
    }
    pulled_all_ = true;
}

// One answer that is long in coming stops the worker before it runs past what a shard remembers of
// unsettled steps (found by simulation: seeds 24 and 32 of "exactly once").
bool Worker::remembered(Step step) const {
    constexpr std::uint64_t kMostAhead = 6;
    return std::all_of(clients_.begin(), clients_.end(), [&](const ShardClient& client) {
        return !client.takes_part() || step.value - client.acknowledged().value <= kMostAhead;
    });
}

// Weights that were pulled ahead of a rejection are older than it: they are fetched anew, once the
// steps that opens are remembered.
void Worker::fetch_anew() {
    if (!ahead_is_old_ || preparing_.empty() || !remembered(preparing_.front().step)) return;
    ahead_is_old_ = false;
    const std::size_t ahead = preparing_.size();
    for (const Preparing& stale : preparing_) close_step(stale.step, CancelReason::dropped);
    preparing_.clear();
    for (std::size_t i = 0; i < ahead; ++i) open_next_step();
}

void Worker::start_gradient() {
    if (phase_ == Phase::training) fetch_anew();
    const bool ready = !computing_ && !preparing_.empty() && preparing_.front().missing == 0 &&
                       !batches_.empty() && (settling_.empty() || setup_.job->pull_ahead > 0) &&
                       remembered(preparing_.front().step) && rounds_.ready() && !rounds_.passes();
    if (!ready) {
        if (!computing_ && !waiting_since_) waiting_since_ = now_;
        return;
    }
    if (waiting_since_) wait_time_ += now_ - *waiting_since_;
    waiting_since_.reset();
    step_time_.gradient_begins(now_);
    Preparing prepared = std::move(preparing_.front());
    preparing_.pop_front();
    Computing computing;
    computing.step = prepared.step;
    computing.batch = take_batch();
    computing.began = now_;
    for (const WeightBlock& block : prepared.weights) {
        computing.base[block.block] = {block.epoch, block.version};
    }
    pull_spread_.note(prepared.weights, *setup_.plan);
    if (setup_.job->on_rejection == OnRejection::compensate) {
        computing.kept = std::make_shared<Kept>();
        for (const WeightBlock& block : prepared.weights) {
            computing.kept->weights[block.block] = block.weights;
        }
    }
    if (computing.batch.rejected != nullptr) {
        computing_ = std::move(computing);
        return compensate(prepared.weights);
    }
    GradientWork work;
    work.step = prepared.step;
    work.weights = std::move(prepared.weights);
    work.batch = computing.batch.range();
    work.batch_samples = setup_.job->batch_samples;
    // A function of the batch, not of who computes it or when: a recompute draws the same.
    work.random_key = random_key(setup_.job->seed, Purpose::task_stream,
                                 {computing.batch.data_epoch, computing.batch.index});
    work.tasks = tasks_of(work.batch, setup_.tasks.size());
    resolver_.prepare(work);
    if (joins_round(computing.batch)) {
        computing.in_step = true;
        work.in_step = true;
    }
    work.layers = records_conflicts() && setup_.job->ledger_conflicts == LedgerConflicts::layers;
    if (computing.in_step) {
        computing.measured = work;
        computing.measured.weights.clear();
    }
    computing.ticket = effects_->compute(std::move(work));
    computing_ = std::move(computing);
    if (computing_->in_step) open_round();
}

void Worker::computed(ComputeEnded&& event) {
    if (saving_computed(event)) return;
    if (phase_ == Phase::initialising && event.ticket == initial_ticket_) {
        if (!event.result) return fail_with(event.result.error());
        for (std::size_t i = 0; i < clients_.size(); ++i) {
            clients_[i].initialise(std::move(initial_[i]), now_, *effects_);
        }
        initial_.clear();
        return;
    }
    if (!computing_ || event.ticket != computing_->ticket) return;
    step_time_.computation_ends(now_);
    if (!event.result) {
        if (event.result.error().code != ErrorCode::cancelled) {
            return not_usable(event.result.error());
        }
        return end_cancelled();
    }
    if (auto* outcome = std::get_if<GradientOutcome>(&*event.result)) {
        if (computing_->cancelled) {  // the cancel came too late to stop it, not to stop the push
            return end_cancelled();
        }
        if (computing_->round.value != 0 && !computing_->own) {
            return own_gradient(std::move(*outcome));
        }
        resolve(std::move(*outcome));
        return;
    }
    if (const auto* made = std::get_if<CombineOutcome>(&*event.result)) record_result(*made);
    const bool opened = computing_->opens.value != 0;
    // Blocks in step are pulled when the node's push is judged, and not before.
    const bool later = computing_->in_step && setup_.job->pull_ahead == 0;
    computing_.reset();
    if (!opened && !later && !verdict_first_ && phase_ == Phase::training) open_next_step();
}

void Worker::end_cancelled() {
    const bool again = computing_->restarts && phase_ == Phase::training;
    record_share(0);
    rounds_.withdraw(computing_->round, *effects_);
    close_step(computing_->step, again ? CancelReason::dropped : CancelReason::stopping);
    if (again) {
        batches_.push_front(std::move(computing_->batch));
        ++restarted_steps_;
    }
    computing_.reset();
    while (again && preparing_.size() <= setup_.job->pull_ahead) open_next_step();
}

// What this step computes would be rejected: the sooner it starts anew the better, as long as
// shards remember the step that opens.
void Worker::restart(Step step) {
    if (phase_ != Phase::training || !remembered(step)) return;
    if (computing_ && computing_->step == step) {
        if (computing_->combining || computing_->cancelled) return;
        computing_->cancelled = true;
        computing_->restarts = true;
        effects_->cancel(computing_->ticket);
        return;
    }
    if (preparing_.empty() || preparing_.front().step != step) return;
    close_step(step, CancelReason::dropped);
    preparing_.pop_front();
    open_next_step();
}

void Worker::combine(CombineWork work) {
    work.layout = lay_out_push();
    step_time_.next_half_begins(now_);
    computing_->ticket = effects_->compute(std::move(work));
}

// The gradient of the last attempt, carried from its weights to these.
void Worker::compensate(const std::vector<WeightBlock>& weights) {
    const Kept& rejected = *computing_->batch.rejected;
    computing_->samples = rejected.samples;
    computing_->gradient_hash = rejected.gradient_hash;
    ++compensated_steps_;
    CompensateWork work;
    work.lambda = setup_.job->compensate_lambda;
    for (const WeightBlock& block : weights) {
        const auto gradient = rejected.gradient.find(block.block);
        if (gradient == rejected.gradient.end()) continue;
        work.rows[block.block] = {gradient->second, rejected.weights.at(block.block),
                                  block.weights};
    }
    work.layout = lay_out_push();
    computing_->ticket = effects_->compute(std::move(work));
}

std::vector<std::vector<BlockId>> Worker::lay_out_push() {
    const std::vector<BlockId>& only = computing_->batch.only;
    const auto& blocks = setup_.plan->blocks;
    const bool whole =
        only.empty() && std::all_of(blocks.begin(), blocks.end(), [this](const Block& block) {
            return !block.trainable() || of_step(block);
        });
    const bool reply_brings_blocks = setup_.job->push_pull && setup_.job->pull_ahead == 0 &&
                                     !setup_.job->consistent_pulls && whole &&
                                     phase_ == Phase::training && !(no_more_ && batches_.empty()) &&
                                     computing_->pushes_in_step;
    std::vector<std::vector<BlockId>> layout;
    Settling settling;
    settling.step = computing_->step;
    settling.batch = computing_->batch;
    settling.began = now_;
    settling.in_step = computing_->in_step;
    settling.round = computing_->round;
    settling.rejected = computing_->in_step_rejected;
    settling.dropped = computing_->in_step_dropped;
    std::size_t trainable = 0;
    for (std::size_t i = 0; i < clients_.size(); ++i) {
        const std::size_t before = computing_->places.size();
        std::size_t blocks_sent = 0;
        const auto add = [&](std::vector<BlockId>&& blocks, bool in_step) {
            if (blocks.empty()) return;
            blocks_sent += blocks.size();
            const auto number = static_cast<std::uint32_t>(computing_->places.size() - before);
            computing_->places.push_back({i, in_step, Part{number}, 0, blocks});
            if (in_step) settling.in_step_missing += blocks.size();
            layout.push_back(std::move(blocks));
        };
        for (const std::vector<BlockId>& part : clients_[i].layout()) {
            std::vector<BlockId> own;
            std::vector<BlockId> for_node;  // in parts of their own: other samples are behind them
            for (const BlockId block : part) {
                if (!only.empty() && std::find(only.begin(), only.end(), block) == only.end()) {
                    continue;
                }
                if (!of_step(setup_.plan->block(block))) continue;
                const bool in_step = computing_->in_step && setup_.plan->block(block).in_step;
                if (in_step && !computing_->pushes_in_step) continue;
                (in_step ? for_node : own).push_back(block);
            }
            add(std::move(own), false);
            add(std::move(for_node), true);
        }
        const auto parts = static_cast<std::uint32_t>(computing_->places.size() - before);
        for (std::size_t p = before; p < computing_->places.size(); ++p) {
            computing_->places[p].parts = parts;
        }
        if (blocks_sent < clients_[i].trainable().size()) {
            settling.partial_clients.push_back(i);
            if (blocks_sent == 0) settling.left_out.push_back(i);
        }
        trainable += clients_[i].trainable().size();
    }
    settling.parts_missing = layout.size() + (settling.round.value != 0 ? 1 : 0);
    if (computing_->kept != nullptr) {
        computing_->kept->samples = computing_->samples;
        computing_->kept->gradient_hash = computing_->gradient_hash;
        settling.kept = computing_->kept;
    }
    if (reply_brings_blocks) computing_->opens = new_preparing(trainable);
    computing_->combining = true;
    settling_.push_back(std::move(settling));
    if (settling_.back().parts_missing == 0) {  // all of it is the node's, which has settled it
        settle(settling_.back());
    } else if (settling_.back().in_step_missing == 0) {
        tell_node(settling_.back());
    }
    return layout;
}

void Worker::part_computed(const ComputePart& event) {
    if (saving_part(event)) return;
    if (phase_ == Phase::initialising && event.ticket == initial_ticket_) {
        const BlockId block{event.index};
        const std::size_t home = setup_.plan->block(block).home.value;
        initial_[home].push_back({block, Epoch{1}, Version{0}, event.payload, std::nullopt});
        return;
    }
    if (!computing_ || event.ticket != computing_->ticket) return;
    if (!computing_->combining) {
        rounds_.bring(computing_->round, TaskId{event.index}, event.payload, *effects_);
        computing_->brought.insert(TaskId{event.index});
        return;
    }
    const Computing::PartPlace& place = computing_->places[event.index];
    Push push;
    push.step = computing_->step;
    push.part = place.part;
    push.parts = place.parts;
    push.opens = computing_->opens;
    push.batch = computing_->batch.range();
    push.samples = place.in_step ? computing_->node_samples : computing_->samples;
    push.gradient_hash = computing_->gradient_hash;
    std::size_t at = 0;
    for (const BlockId id : place.blocks) {
        const Block& block = setup_.plan->block(id);
        const auto& [epoch, version] = computing_->base[id];
        const Payload gradient{event.payload.owner, event.payload.bytes.subspan(at, block.bytes())};
        if (computing_->kept != nullptr) computing_->kept->gradient[id] = gradient;
        const TaskSet tasks = push.batch.tasks.empty() ? block.owners : push.batch.tasks;
        push.blocks.push_back({id, tasks, epoch, version, gradient, std::nullopt});
        at += block.bytes();
    }
    clients_[place.client].push(std::move(push), now_, *effects_);
}

void Worker::finish_batch(const Batch& batch) {
    finished_.push_back(batch.range());
    lease_useless_ = false;
}

void Worker::settle(Settling& settling) {
    for (std::size_t i = 0; i < clients_.size(); ++i) {
        if (!clients_[i].takes_part()) continue;
        const auto& told = settling.left_out;
        if (settling.whole && std::find(told.begin(), told.end(), i) != told.end()) continue;
        const auto& partial = settling.partial_clients;
        if (std::find(partial.begin(), partial.end(), i) != partial.end()) {
            clients_[i].cancel(settling.step,
                               settling.in_step ? CancelReason::in_step : CancelReason::recompute,
                               now_, *effects_);
        } else {
            clients_[i].settled(settling.step);
        }
    }
    Batch batch = std::move(settling.batch);
    std::shared_ptr<Kept> kept = std::move(settling.kept);
    std::vector<BlockId> rejected =
        settling.in_step ? repairable(std::move(settling.rejected)) : std::move(settling.rejected);
    if (settling.whole && !settling.partial_clients.empty() && !rejected.empty()) {
        // In part it would be refused again: all of the batch is computed anew.
        rejected.clear();
        for (const ShardClient& client : clients_) {
            const auto& blocks = client.trainable();
            rejected.insert(rejected.end(), blocks.begin(), blocks.end());
        }
        kept.reset();
    }
    const bool dropped = settling.dropped;
    const bool opens = settling.in_step && setup_.job->pull_ahead == 0;
    std::erase_if(settling_, [&](const Settling& one) { return one.parts_missing == 0; });
    finish_or_repair(std::move(batch), rejected, std::move(kept), dropped);
    if (opens && preparing_.empty() && phase_ == Phase::training) open_next_step();
}

void Worker::finish_or_repair(Batch batch, const std::vector<BlockId>& rejected,
                              std::shared_ptr<Kept> kept, bool dropped) {
    if (dropped && phase_ == Phase::training) {  // no rejection: the node's push was never made
        batch.only = rounds_.blocks();
        if (setup_.job->on_rejection == OnRejection::recompute) {  // of its own blocks besides
            batch.only.insert(batch.only.end(), rejected.begin(), rejected.end());
        }
        return batches_.push_front(std::move(batch));
    }
    if (rejected.empty()) return finish_batch(batch);
    ++rejected_steps_;
    const bool repairs = setup_.job->on_rejection == OnRejection::recompute ||
                         setup_.job->on_rejection == OnRejection::compensate;
    const bool again =
        repairs && batch.recomputes < setup_.job->most_recomputes && phase_ == Phase::training;
    if (setup_.job->on_rejection != OnRejection::drop && setup_.job->pull_ahead > 0 &&
        phase_ == Phase::training) {
        ahead_is_old_ = !preparing_.empty();
        fetch_anew();
    }
    if (!again) return finish_batch(batch);
    if (kept == nullptr) ++recomputed_steps_;
    ++batch.recomputes;
    batch.rejected = std::move(kept);
    std::size_t trainable = 0;
    for (const ShardClient& client : clients_) trainable += client.trainable().size();
    batch.only = rejected;
    if (rejected.size() == trainable) batch.only.clear();
    batches_.push_front(std::move(batch));
}

void Worker::close_step(Step step, CancelReason reason) {
    for (ShardClient& client : clients_) {
        if (!client.takes_part()) continue;
        client.drop_pull(step, now_, *effects_);
        client.cancel(step, reason, now_, *effects_);
    }
}

void Worker::drain(const std::string& why) {
    if (phase_ != Phase::training) return;
    effects_->log(LogLevel::information, "draining: " + why);
    phase_ = Phase::settling;
    // In a round it is finished: the others may have its rows already.
    if (computing_ && !computing_->combining && !computing_->cancelled &&
        computing_->round.value == 0) {
        computing_->cancelled = true;
        effects_->cancel(computing_->ticket);
    }
}

// Settles everything that is open, gives the batches back, says farewell, and is done.
void Worker::leave() {
    if (computing_ || !settling_.empty()) return;
    for (const Preparing& unused : preparing_) close_step(unused.step, CancelReason::stopping);
    preparing_.clear();
    for (const ShardClient& client : clients_) {
        if (!client.idle()) return;
    }
    if (!last_word_saved()) return;
    step_time_.ends(now_);
    if (!final_lease_) {
        final_lease_ = true;
        ask_for_batches(false);
    }
    if (lease_) return;
    phase_ = Phase::leaving;
    if (!farewells_sent_) {
        farewells_sent_ = true;
        for (ShardClient& client : clients_) client.farewell(now_, *effects_);
        return;
    }
    Stopped last;
    last.last = status();
    last.method_state = method_state();
    Message message;
    message.body = std::move(last);
    effects_->send(kCoordinator, std::move(message));
    phase_ = Phase::done;
    effects_->finish({});
}

void Worker::fail_with(Error error) {
    if (phase_ == Phase::done) return;
    Stopped last;
    last.failed = true;
    last.code = error.code;
    last.error = error.text;
    last.last = status();
    last.method_state = method_state();
    Message message;
    message.body = std::move(last);
    effects_->send(kCoordinator, std::move(message));
    phase_ = Phase::done;
    effects_->finish({true, std::move(error)});
}

}  // namespace detente
