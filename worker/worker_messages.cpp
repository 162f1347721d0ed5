// What a worker is told, and what it tells about itself.
#include <algorithm>
#include <utility>

#include "common/checksum.h"
#include "common/ledger_controls.h"
#include "worker/worker.h"

namespace detente {

void Worker::receive(Message&& message) {
    Body& body = message.body;
    if (message.envelope.from.role == Role::coordinator) {
        if (const auto* welcome = std::get_if<Welcome>(&body)) begin(*welcome);
        if (std::holds_alternative<Go>(body) && phase_ == Phase::ready) {
            phase_ = Phase::training;
            for (std::uint32_t i = 0; i <= setup_.job->pull_ahead; ++i) open_next_step();
        }
        if (const auto* request = std::get_if<CheckpointRequest>(&body)) save_for(*request);
        if (const auto* form = std::get_if<FormGroup>(&body)) form_group(*form);
        if (const auto* stop = std::get_if<Stop>(&body)) {
            if (stop->drain && phase_ == Phase::training) {
                drain(stop->reason);
            } else if (!stop->drain || phase_ <= Phase::ready) {
                fail_with({ErrorCode::cancelled, stop->reason});
            }
        }
        return;
    }
    if (message.envelope.from.role != Role::shard) return;
    const std::size_t index = message.envelope.from.index;
    if (index >= clients_.size()) return;
    ShardClient& client = clients_[index];
    client.heard_from(message.envelope);
    const std::vector<WeightBlock>* blocks = nullptr;
    if (const auto* pulled = std::get_if<PullReply>(&body)) blocks = &pulled->blocks;
    if (const auto* pushed = std::get_if<PushReply>(&body)) blocks = &pushed->blocks;
    if (blocks != nullptr && !unaltered(*blocks))
        return;  // as if lost: asked for again when overdue
    if (auto* weights = std::get_if<PullReply>(&body)) {
        if (auto fresh = client.on(std::move(*weights), now_, *effects_)) {
            if (fresh->answered) {
                step_time_.answered(client.shard(), *fresh->answered, message.envelope.handled,
                                    now_);
            }
            weights_arrived(fresh->step, std::move(fresh->blocks));
        }
    } else if (auto* verdicts = std::get_if<PushReply>(&body)) {
        verdicts_arrived(index, std::move(*verdicts), message.envelope.handled);
    } else if (const auto* wait = std::get_if<Wait>(&body)) {
        if (client.shard() == kLeadShard && lease_waits(*wait)) return;
        if (const auto answered = client.on(*wait, now_, *effects_)) {
            step_time_.answered(client.shard(), *answered, message.envelope.handled, now_);
            if (wait->why == WaitFor::verdict) step_is_whole(wait->step);
        }
    } else if (const auto* anew = std::get_if<Restart>(&body)) {
        restart(anew->step);
    } else if (const auto* lease = std::get_if<LeaseReply>(&body)) {
        leased(*lease);
    } else if (const auto* cancelled = std::get_if<CancelReply>(&body)) {
        if (client.on(*cancelled)) client.settled(cancelled->step);
    } else if (const auto* initialised = std::get_if<InitialiseReply>(&body)) {
        client.on(*initialised, now_, *effects_);
        const bool all = std::all_of(clients_.begin(), clients_.end(),
                                     [](const ShardClient& one) { return one.idle(); });
        if (phase_ == Phase::initialising && initial_.empty() && all) {
            phase_ = Phase::ready;
            Message ready;
            ready.body = Ready{};
            effects_->send(kCoordinator, std::move(ready));
        }
    } else if (const auto* farewell = std::get_if<FarewellReply>(&body)) {
        client.on(*farewell);
    } else if (const auto* refusal = std::get_if<Refusal>(&body)) {
        if (auto taken = client.on(*refusal, *effects_); !taken) fail_with(taken.error());
    }
}

bool Worker::unaltered(const std::vector<WeightBlock>& blocks) {
    for (const WeightBlock& block : blocks) {
        if (!block.checksum || checksum_of(block.weights.bytes) == *block.checksum) continue;
        if (altered_++ == 0) {
            effects_->log(
                LogLevel::warning,
                "block " + std::to_string(block.block.value) +
                    " was altered on its way here (wrong checksum); it is asked for again "
                    "(further ones are only counted)");
        }
        return false;
    }
    return true;
}

void Worker::begin(const Welcome& welcome) {
    if (phase_ != Phase::joining) return;
    if (auto restored = resolver_.restore(welcome.method_state); !restored) {
        effects_->log(LogLevel::warning, restored.error().text + "; it begins anew");
    } else if (welcome.method_state.groups > 0) {
        effects_->record({now_, method_goes_on(welcome.method_state)});
    }
    if (records_conflicts()) {
        // Where one Gramian stands for all, or is of the trunk's output, it is no layer's.
        const bool by_layer = setup_.job->ledger_conflicts == LedgerConflicts::layers &&
                              setup_.job->conflict_space == ConflictSpace::parameters;
        effects_->record(
            {now_, NamesRecord{setup_.job->aggregator.name, setup_.tasks,
                               by_layer ? setup_.layers : std::vector<std::string>{}}});
    }
    if (welcome.initialise) {
        phase_ = Phase::initialising;
        initial_.resize(clients_.size());
        initial_ticket_ = effects_->compute(InitialWork{});
        return;
    }
    phase_ = Phase::ready;
    Message ready;
    ready.body = Ready{};
    effects_->send(kCoordinator, std::move(ready));
}

void Worker::weights_arrived(Step step, std::vector<WeightBlock> blocks) {
    const auto found = std::find_if(preparing_.begin(), preparing_.end(),
                                    [&](const Preparing& one) { return one.step == step; });
    if (found == preparing_.end()) return;
    found->missing -= std::min(found->missing, blocks.size());
    for (WeightBlock& block : blocks) found->weights.push_back(std::move(block));
}

void Worker::verdicts_arrived(std::size_t index, PushReply&& reply, Nanos handled) {
    const auto answered = clients_[index].on(reply, now_, *effects_);
    if (!answered) return;
    step_time_.answered(clients_[index].shard(), *answered, handled, now_);
    if (reply.opened.value != 0) weights_arrived(reply.opened, std::move(reply.blocks));
    const auto found = std::find_if(settling_.begin(), settling_.end(),
                                    [&](const Settling& one) { return one.step == reply.step; });
    if (found == settling_.end()) return;
    for (const BlockVerdict& verdict : reply.verdicts) {
        if (verdict.verdict == Verdict::applied || verdict.verdict == Verdict::buffered) continue;
        if (verdict.reason == ErrorCode::not_finite && not_finite_++ == 0) {
            effects_->log(LogLevel::warning,
                          "step " + std::to_string(reply.step.value) + ", block " +
                              std::to_string(verdict.block.value) +
                              ": the gradient has NaN or Inf and was not applied (further ones are "
                              "only counted)");
        }
        if (verdict.advice == Advice::drop) continue;
        const bool of_node = found->round.value != 0 && setup_.plan->block(verdict.block).in_step;
        (of_node ? found->in_step_rejected : found->rejected).push_back(verdict.block);
    }
    if (found->in_step_missing > 0 && setup_.plan->block(reply.verdicts.front().block).in_step) {
        found->in_step_missing -= std::min(found->in_step_missing, reply.verdicts.size());
        if (found->in_step_missing == 0) tell_node(*found);
    }
    if (--found->parts_missing == 0) settle(*found);
}

// Known by itself where the job began so; a live change is seen by this. Verdicts come first then.
// A step that repairs another is of some blocks only, which cannot be: the shards that get nothing
// of it say no as soon as they know.
void Worker::step_is_whole(Step step) {
    verdict_first_ = true;
    for (Settling& settling : settling_) {
        if (settling.step != step || std::exchange(settling.whole, true)) continue;
        for (const std::size_t client : settling.left_out) {
            clients_[client].cancel(step, CancelReason::recompute, now_, *effects_);
        }
    }
}

void Worker::leased(const LeaseReply& reply) {
    if (!lease_ || reply.request != lease_->request) return;
    // What this request reported finished is known to the lead shard now.
    std::set<BatchRange> reported;
    for (const BatchRange& range : lease_->finished) {
        for (std::uint32_t i = 0; i < range.count; ++i) {
            reported.insert({range.data_epoch, range.first + i, 1, range.tasks});
        }
    }
    std::erase_if(finished_, [&](const BatchRange& batch) { return reported.contains(batch); });
    for (const BatchRange& batch : reported) held_.erase(batch);
    if (!reply.members.empty()) place_tasks(reply.members);
    const bool asked_for_more = lease_->wants_more;
    lease_.reset();
    if (asked_for_more) take_granted(reply);
    forget_losses();
}

void Worker::take_granted(const LeaseReply& reply) {
    no_more_ = reply.no_more;
    bool news = false;
    const TaskSet trained = of_all_tasks() ? TaskSet{} : setup_.placement->tasks();
    for (const BatchRange& range : reply.granted) {
        const bool ours = of_all_tasks()
                              ? range.tasks.empty()
                              : range.tasks.count() == 1 && trained.contains_all(range.tasks);
        if (!ours) {
            return fail_with(fail(ErrorCode::bad_message,
                                  "shard:0 leased batches for tasks " +
                                      std::to_string(range.tasks.bits) + " (bits); expected " +
                                      (of_all_tasks() ? "0, all" : "one task that is trained")));
        }
        for (std::uint32_t i = 0; i < range.count; ++i) {
            const BatchRange batch{range.data_epoch, range.first + i, 1, range.tasks};
            if (!held_.insert(batch).second) continue;
            batches_.push_back({batch.data_epoch, batch.first, 0, {}, {}, batch.tasks});
            news = true;
        }
    }
    lease_useless_ = !news && finished_.empty();
}

void Worker::forgive_own_absence() {
    const Nanos away = now_ - std::exchange(looked_overdue_, now_);
    if (away < 2 * setup_.job->reply_deadline) return;
    lease_heard_ = std::min(now_, lease_heard_ + away);
    for (ShardClient& client : clients_) client.forgive(away, now_);
}

void Worker::on_overdue() {
    forgive_own_absence();
    for (ShardClient& client : clients_) {
        if (auto sent = client.send_overdue_again(now_, *effects_); !sent) {
            return fail_with(sent.error());
        }
    }
    give_up_overdue_savings();
    if (auto sent = send_overdue_lease_again(); !sent) return fail_with(sent.error());
    effects_->after(setup_.job->reply_deadline / 2, {kOverdue, 0});
}

void Worker::heartbeat() {
    Message message;
    message.body = status();
    effects_->send(kCoordinator, std::move(message));
    effects_->after(setup_.job->heartbeat_interval, {kHeartbeat, 0});
}

// The oldest of what it waits for.
void Worker::note_waiting(Status& status) const {
    Time since = Time::max();
    for (const ShardClient& client : clients_) {
        if (client.waiting_since() >= since) continue;
        since = client.waiting_since();
        status.waiting_for = client.waiting_for();
    }
    if (lease_ && lease_first_sent_ < since && batches_.empty()) {
        since = lease_first_sent_;
        status.waiting_for = "a lease of batches from shard:0 (other workers may hold the last)";
    }
    if (computing_ && computing_->own && !computing_->averaged && computing_->own_since < since) {
        since = computing_->own_since;
        status.waiting_for = rounds_.waiting_for();
    }
    for (const Settling& settling : settling_) {
        if (settling.round.value == 0 || settling.parts_missing > 1 || settling.began >= since) {
            continue;
        }
        since = settling.began;
        status.waiting_for = "word of the push of " + rounds_.waiting_for();
    }
    if ((!rounds_.ready() || rounds_.passes()) && waiting_since_ && *waiting_since_ < since) {
        since = *waiting_since_;
        status.waiting_for = rounds_.waiting_for();
    }
    for (const Saving& saving : savings_) {
        // One that leaves waits for nothing else.
        if (saving.told || (!last_word_ && saving.since >= since)) continue;
        since = saving.since;
        status.waiting_for =
            (saving.storing ? "the disk to write " : "its computer to write ") + saving.path;
    }
    if (!status.waiting_for.empty()) status.waited = now_ - since;
}

Status Worker::status() const {
    Status status;
    note_waiting(status);
    const char* const phases[] = {"joining",  "initialising", "ready", "training",
                                  "settling", "leaving",      "done"};
    status.activity = phases[static_cast<std::size_t>(phase_)];
    if (computing_) status.activity = "computing step " + std::to_string(computing_->step.value);
    const auto add = [&](const char* name, double value) {
        status.values.push_back({name, value});
    };
    std::uint64_t again = 0;
    for (const ShardClient& client : clients_) again += client.sent_again();
    add("steps", static_cast<double>(steps_computed_));
    add("samples", static_cast<double>(samples_));
    add("steps.rejected", static_cast<double>(rejected_steps_));
    add("steps.recomputed", static_cast<double>(recomputed_steps_));
    add("steps.compensated", static_cast<double>(compensated_steps_));
    add("steps.restarted", static_cast<double>(restarted_steps_));
    add("steps.skipped", static_cast<double>(skipped_steps_));
    pull_spread_.report(status);
    if (rounds_.designated()) {
        add("sync.rounds", static_cast<double>(rounds_.ended()));
        add("sync.groups_lost", static_cast<double>(groups_lost_));
    }
    add("cosine.sum", cosine_sum_);
    add("cosine.count", static_cast<double>(cosine_count_));
    add("cosine.conflict_steps", static_cast<double>(conflict_steps_));
    add("interference.opposed", interference_.opposed());
    add("interference.norms", interference_.norms());
    add("steps.reused", static_cast<double>(reused_steps_));
    add("steps.degenerate", static_cast<double>(undecided_steps_));
    const std::size_t tasks = setup_.tasks.size();
    for (std::size_t i = 0; cosine_count_ > 0 && i < tasks; ++i) {
        for (std::size_t j = i + 1; j < tasks; ++j) {
            if (!shares_[i * tasks + j]) continue;
            const std::string name = "cosine.sum." + setup_.tasks[i] + "." + setup_.tasks[j];
            add(name.c_str(), pair_cosine_sums_[i * tasks + j]);
        }
    }
    const auto add_per_task = [&](const char* name, const std::vector<double>& sums) {
        for (std::size_t i = 0; i < sums.size(); ++i) {
            add((name + setup_.tasks[i]).c_str(), sums[i]);
        }
    };
    add_per_task("norm.sum.", norm_sums_);
    add_per_task("weight.sum.", weight_sums_);
    add("sent_again", static_cast<double>(again));
    const auto milliseconds = [](Nanos duration) {
        return std::chrono::duration<double, std::milli>(duration).count();
    };
    add("not_finite", static_cast<double>(not_finite_));
    add("altered", static_cast<double>(altered_));
    add("compute_ms", milliseconds(compute_time_));
    add("wait_ms", milliseconds(wait_time_));
    add("step_time.steps", static_cast<double>(step_time_.steps()));
    add("step_time.compute_ms", milliseconds(step_time_.total().compute));
    add("step_time.wait_ms", milliseconds(step_time_.total().wait));
    add("step_time.wire_ms", milliseconds(step_time_.total().wire));
    add("step_time.queue_ms", milliseconds(step_time_.total().queue));
    add("step_time.apply_ms", milliseconds(step_time_.total().apply));
    if (rounds_.designated()) add("sync.wait_ms", milliseconds(round_time_));
    status.losses = losses_;
    status.cosine_bins = cosine_bins_;
    return status;
}

}  // namespace detente
