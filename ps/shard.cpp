#include "ps/shard.h"

#include <algorithm>

#include "common/invariant.h"
#include "common/ledger_controls.h"
#include "common/partition/task_placement.h"
#include "ps/policy_saved.h"

namespace detente {
namespace {

std::uint32_t batches_of(const ShardSetup& setup) {
    const std::uint64_t batch = std::max(1U, setup.job->batch_samples);
    return static_cast<std::uint32_t>((setup.training_samples + batch - 1) / batch);
}

}  // namespace

std::string rules_of(const Job& job) {
    std::string rules = job.rule.name;
    for (const RuleFor& special : job.rule_for) {
        rules += ", " + special.rule.name + " for " + special.pattern;
    }
    return rules;
}

Result<std::unique_ptr<Shard>> Shard::create(ShardSetup setup) {
    auto store = BlockStore::create(*setup.plan, *setup.job, setup.id, setup.epoch);
    if (!store) return store.error();
    for (auto& [id, contents] : setup.restored) {
        LiveBlock* block = store->find(id);
        if (block == nullptr) continue;  // another shard's
        if (auto filled = store->fill(*block, contents); !filled) return filled.error();
    }
    if (!setup.restored_rules.empty() && setup.restored_rules != rules_of(*setup.job)) {
        return fail(ErrorCode::bad_checkpoint, "the checkpoint's optimizer state is of rule '" +
                                                   setup.restored_rules + "', the job says '" +
                                                   rules_of(*setup.job) +
                                                   "'; resume with the rules it was made with");
    }
    if (!setup.restored.empty() && !store->initialised()) {
        return fail(ErrorCode::bad_checkpoint, "the checkpoint lacks blocks of shard " +
                                                   std::to_string(setup.id.value) +
                                                   "; resume from another checkpoint");
    }
    setup.restored.clear();
    std::optional<PolicyState> policy;
    if (!setup.restored_policy.empty() && store->step_policy() != nullptr) {
        auto read = restored_policy(store->step_policy()->name(), setup.restored_policy);
        if (!read) return read.error();
        policy = std::move(*read);
    }
    const std::vector<FormerShard> former = std::exchange(setup.former, {});
    std::unique_ptr<Shard> shard(new Shard(std::move(setup), std::move(*store), policy));
    if (auto taken = shard->take_over(former); !taken) return taken.error();
    if (!shard->setup_.restored_leases.empty()) {
        auto restored = shard->leases_.restore(shard->setup_.restored_leases);
        if (!restored) return restored.error();
    }
    return shard;
}

Shard::Shard(ShardSetup setup, BlockStore store, const std::optional<PolicyState>& policy_before)
    : setup_(std::move(setup)),
      store_(std::move(store)),
      duplicates_(store_.trainable()),
      leases_(batches_of(setup_), setup_.job->data_epochs, setup_.job->lease_batches,
              setup_.job->workers,
              setup_.job->split_tasks ? trained_tasks(*setup_.plan) : TaskSet{}),
      admission_(setup_.job->admission) {
    for (std::uint32_t i = setup_.job->workers; i < setup_.job->most_workers(); ++i) {
        gone_.insert(WorkerId{i});
    }
    if (setup_.id != kLeadShard) return;
    if (!decides_steps()) {
        lead_ = std::make_unique<Lead>(nullptr, std::vector<ShardId>{}, setup_.job->shards(), 0,
                                       setup_.epoch);
        return;
    }
    auto policy = make_policy(setup_.job->policy);
    invariant(policy.has_value(), "the store has made the same policy already");
    lead_ = std::make_unique<Lead>(std::move(*policy), takes_part(), setup_.job->shards(),
                                   setup_.job->workers, setup_.epoch, policy_before);
}

void Shard::on(Event&& event, Time now, Effects& effects) {
    if (stopped_) return;
    now_ = now;
    effects_ = &effects;
    if (auto* received = std::get_if<Received>(&event)) {
        receive(std::move(received->message));
    } else if (std::holds_alternative<Started>(event)) {
        record_control("started");
        record_restored();
        if (decides_steps()) repeat_later();
        effects.after(setup_.job->heartbeat_interval, {kHeartbeat, 0});
    } else if (const auto* fired = std::get_if<TimerFired>(&event)) {
        if (fired->tag.kind == kHeartbeat) heartbeat();
        if (fired->tag.kind == kDeferredDeadline) deferred_too_long();
        if (fired->tag.kind == kRepeat) {
            repeats_ = false;
            repeat_unanswered();
            const bool unconfirmed = lead_ != nullptr && !lead_->all_confirmed();
            if (decides_steps() || unconfirmed) repeat_later();
        }
    } else if (std::holds_alternative<BuffersReturned>(event)) {
        store_.reclaim();
        retry_deferred();
        act();
    } else if (const auto* done = std::get_if<Stored>(&event)) {
        stored(*done);
    } else if (const auto* down = std::get_if<PeerDown>(&event)) {
        peer_down(*down);
    }
    lead_on();
    while (let_go()) lead_on();
    if (stopping_) try_to_stop();
    effects_ = nullptr;
}

void Shard::receive(Message&& message) {
    const Envelope& from = message.envelope;
    Body& body = message.body;
    if (from.from.role == Role::coordinator) {
        if (std::holds_alternative<Welcome>(body)) welcomed();
        if (auto* request = std::get_if<CheckpointRequest>(&body)) checkpoint(*request);
        if (auto* request = std::get_if<Stop>(&body)) stop(*request);
        if (auto* change = std::get_if<PolicyChange>(&body)) change_policy(*change);
        return;
    }
    // In block scope nothing is committed. After a change of scope what is late may still tell of
    // staged steps: decisions that this shard has acted on, notices of what it judges by itself.
    const auto* numbered = std::get_if<StageDecision>(&body);
    const bool for_all = std::holds_alternative<StageReply>(body) || scope_changed_ ||
                         (numbered != nullptr && numbered->commits.empty() &&
                          numbered->aborts.empty() && numbered->buffered.empty());
    if (from.from.role == Role::shard && (decides_steps() || for_all)) {
        if (auto* notice = std::get_if<StageNotice>(&body)) stage_notice(from, *notice);
        if (auto* decision = std::get_if<StageDecision>(&body)) {
            take_decision(from, std::move(*decision));
        }
        if (auto* done = std::get_if<StageReply>(&body); done != nullptr && lead_ != nullptr) {
            lead_->applied(ShardId{from.from.index}, done->sequence);
        }
        return;
    }
    if (from.from.role != Role::worker) {
        count_refused(from, fail(ErrorCode::bad_message,
                                 std::string("'") + kind_of(body) + "' of " + to_string(from.from) +
                                     ": in this job each shard decides alone"));
        return;
    }
    if (std::holds_alternative<Refusal>(body)) return;  // never answer a no with a no
    if (auto* request = std::get_if<Push>(&body)) {
        if (from_known_worker(from, request->step, request->part)) push(std::move(message));
    } else if (auto* pulled = std::get_if<PullRequest>(&body)) {
        if (from_known_worker(from, pulled->step, Part{})) pull(from, *pulled);
    } else if (!from_known_worker(from, Step{}, Part{})) {
        return;
    } else if (auto* first = std::get_if<Initialise>(&body)) {
        initialise(from, *first);
    } else if (auto* note = std::get_if<CancelNote>(&body)) {
        cancel(from, *note);
    } else if (auto* wanted = std::get_if<LeaseRequest>(&body)) {
        lease(from, *wanted);
    } else if (auto* last = std::get_if<Farewell>(&body)) {
        farewell(from, *last);
    } else {
        refuse(from,
               fail(ErrorCode::bad_message,
                    std::string("a shard does not take '") + kind_of(body) + "'"),
               Step{}, Part{});
    }
}

// Messages that wait for a spare have waited for a deadline: a buffer may have come back
// unannounced.
void Shard::deferred_too_long() {
    store_.reclaim();
    retry_deferred();
    if (deferred_.empty()) return;
    effects_->log(LogLevel::warning,
                  std::to_string(deferred_.size()) + " pushes wait for a spare buffer: " +
                      std::to_string(store_.lent()) + " are held by " +
                      (checkpoints_.empty() ? "replies that have not left yet"
                                            : "a checkpoint that is being written"));
    deferred_deadline_ = effects_->after(setup_.job->reply_deadline, {kDeferredDeadline, 0});
}

bool Shard::from_known_worker(const Envelope& envelope, Step step, Part part) {
    const WorkerId worker{envelope.from.index};
    if (worker.value >= setup_.job->most_workers()) {
        count_refused(envelope,
                      fail(ErrorCode::bad_message,
                           "there is no " + to_string(envelope.from) + " in this job of " +
                               std::to_string(setup_.job->most_workers()) + " places"));
        return false;
    }
    std::vector<Duplicates::Closed> lost;
    auto met = duplicates_.meet(worker, envelope.incarnation, lost);
    if (!met) {
        // An answer would reach whoever speaks for this worker now; only that one is to hear a no.
        const auto now_known = workers_.find(worker);
        const bool replaced =
            now_known != workers_.end() && envelope.incarnation < now_known->second;
        if (replaced) {
            count_refused(envelope, met.error());
        } else {
            refuse(envelope, met.error(), step, part);
        }
        return false;
    }
    // A late double of a worker that said farewell is answered, but does not bring it back.
    if (duplicates_.has_left(worker)) return true;
    note_gone(worker, false);
    Incarnation& known = workers_[worker];
    if (known < envelope.incarnation) {
        record_closed(worker, known, lost, true, "replaced by a newer incarnation");
        std::erase_if(deferred_, [&](const Message& held) {
            return held.envelope.from == envelope.from &&
                   held.envelope.incarnation < envelope.incarnation;
        });
        let_wait_.erase(worker);
        if (known.value != 0) {
            leases_.release(worker);
            answer_leases();
            drop_incomplete(worker, known);
            if (lead_ != nullptr) lead_->lost(worker, known);
            // Its vectors stay: a staged gradient may need them, and they are of the same worker.
        }
        known = envelope.incarnation;
    }
    return true;
}

void Shard::reply(const Envelope& to, Body body) {
    Message message;
    message.envelope.to = to.from;
    message.envelope.shard_epoch = setup_.epoch;
    message.envelope.request_class = to.request_class;
    message.body = std::move(body);
    effects_->send(to.from, std::move(message));
}

void Shard::count_refused(const Envelope& from, const Error& error) {
    ++refused_[error.code];
    // Whoever is not of this job shares one entry, so that the memory is bounded.
    const std::uint32_t peer = std::min(from.from.index, setup_.job->most_workers());
    bool& logged = refusal_logged_[{WorkerId{peer}, error.code}];
    if (logged) return;
    logged = true;
    effects_->log(LogLevel::warning, "refused a message of " + to_string(from.from) + ": " +
                                         name_of(error.code) + ": " + error.text +
                                         " (further ones of this kind are only counted)");
}

void Shard::refuse(const Envelope& to, Error error, Step step, Part part, std::uint32_t request) {
    count_refused(to, error);
    reply(to, Refusal{error.code, std::move(error.text), step, part, request});
}

void Shard::record_control(std::string what) {
    effects_->record({now_, ControlRecord{std::move(what)}});
}

void Shard::record_closed(WorkerId worker, Incarnation incarnation,
                          const std::vector<Duplicates::Closed>& closed, bool lost,
                          const std::string& reason) {
    for (const Duplicates::Closed& step : closed) {
        effects_->record(
            {now_, ClosedRecord{worker, incarnation, step.step, step.blocks, lost, reason}});
    }
}

Status Shard::status() const {
    const Books& books = duplicates_.books();
    Status status;
    status.activity = "applied " + std::to_string(books.applied) + " block updates";
    if (!store_.initialised()) status.waiting_for = "the first weights from a worker";
    if (lead_ != nullptr && lead_->undecided() > 0) {
        status.waiting_for = std::to_string(lead_->undecided()) + " staged pushes to be decided";
        for (const ShardId shard : lead_->awaited()) {
            status.waiting_for += ", " + to_string(node_of(shard)) + " to stage the oldest";
        }
    }
    if (gate_) status.waiting_for = whom_gate_waits_for();
    if (!deferred_.empty()) status.waiting_for = "spare buffers (held by replies on their way)";
    const auto add = [&](const char* name, double value) {
        status.values.push_back({name, value});
    };
    const auto count = [&](const char* name, std::uint64_t value) {
        add(name, static_cast<double>(value));
    };
    count("updates.computed", books.computed);
    count("updates.applied", books.applied);
    count("updates.rejected", books.rejected);
    count("updates.cancelled", books.cancelled);
    count("updates.lost", books.lost);
    count("updates.in_flight", books.in_flight);
    count("updates.taken_back", updates_taken_back_);
    count("pushes", pushes_);
    count("push_bytes", push_bytes_);
    count("pulls", pulls_);
    count("repeated", repeated_);
    add("staleness.sum", staleness_sum_);
    count("staleness.max", staleness_max_);
    count("spare_bytes", store_.spare_bytes());
    if (decides_steps()) count("staged_bytes", staged_bytes());
    for (const auto& [code, number] : refused_) {
        count((std::string("refused.") + name_of(code)).c_str(), number);
    }
    if (setup_.job->across.method != AcrossMethod::off) {
        const AcrossFigures& across = store_.across();
        count("across.arrived", across.arrived);
        count("across.projected", across.projected);
        const AcrossFigures::Cosines all = across.of_all_pairs();
        count("across.cosines", all.count);
        add("across.cosine_sum", all.sum);
        for (const auto& [tasks, pair] : across.pairs) {
            const std::string name = "across.pair." + std::to_string(tasks.first.value) + "." +
                                     std::to_string(tasks.second.value);
            count((name + ".cosines").c_str(), pair.count);
            count((name + ".negative").c_str(), pair.negative);
            add((name + ".cosine_sum").c_str(), pair.sum);
        }
    }
    if (setup_.id == kLeadShard) {
        count("batches.total", leases_.total());
        count("batches.finished", leases_.finished());
        count("batches.leased", leases_.leased());
        count("batches.returned", leases_.returned());
    }
    status.staleness = staleness_;
    return status;
}

void Shard::heartbeat() {
    Message message;
    message.body = status();
    effects_->send(kCoordinator, std::move(message));
    effects_->after(setup_.job->heartbeat_interval, {kHeartbeat, 0});
}

void Shard::stop(const Stop& body) {
    if (stopping_) {
        stopping_->drain = stopping_->drain && body.drain;
        return;
    }
    record_control("stop: " + body.reason);
    stopping_ = body;
    stop_by_ = now_ + setup_.job->stop_deadline / 2;
    effects_->after(setup_.job->stop_deadline / 2, {kStop, 0});
}

std::optional<std::string> Shard::leftover() const {
    const auto told = [](std::size_t count, const char* what) {
        return std::optional(std::to_string(count) + what);
    };
    if (!staged_.empty()) return told(staged_.size(), " staged steps");
    if (!deferred_.empty()) return told(deferred_.size(), " pushes that wait for a spare");
    if (!held_.empty()) return told(held_.size(), " held workers");
    if (!let_wait_.empty()) return told(let_wait_.size(), " workers that wait for their weights");
    if (!aborted_.empty()) return told(aborted_.size(), " tombstones of aborted steps");
    if (!cuts_.empty()) return told(cuts_.size(), " cuts kept for workers");
    // The end may overtake one that is not due, or whose forerunner did not come (a change of
    // policy is told then), but none on a push.
    const auto left = std::count_if(decisions_.begin(), decisions_.end(), [&](const auto& one) {
        const auto& [number, decision] = one;
        const bool on_pushes = !decision.commits.empty() || !decision.aborts.empty();
        return on_pushes || (number == acted_ + 1 && is_due(decision));
    });
    if (left > 0) return told(static_cast<std::size_t>(left), " decisions not acted on");
    if (!workers_.empty()) return told(workers_.size(), " workers that have not left");
    return std::nullopt;
}

// At once; but decisions may still be on their way from the lead, or from here to the others.
void Shard::try_to_stop() {
    const Stop& body = *stopping_;
    const bool settled = books().in_flight == 0 && (lead_ == nullptr || lead_->pushes_confirmed());
    if (body.drain && decides_steps() && !settled && now_ < stop_by_) return;
    for (const auto& [number, decision] : decisions_) {
        for (const PolicyChange& change : decision.changes) {
            const ControlRecord told = policy_change_overtaken(change, decision.sequence);
            record_control(told.what);
            effects_->log(LogLevel::warning, told.what);
        }
    }
    Stopped last;
    last.last = status();
    if (body.drain && books().in_flight != 0) {
        last.failed = true;
        last.code = ErrorCode::internal;
        last.error = to_string(node_of(setup_.id)) + ": " + std::to_string(books().in_flight) +
                     " updates of " + std::to_string(duplicates_.open_steps()) +
                     " steps are still in flight though every worker has left";
    }
    if (auto balanced = books().balance(to_string(node_of(setup_.id))); !balanced) {
        last.failed = true;
        last.code = balanced.error().code;
        last.error = balanced.error().text;
    }
    const Outcome outcome{last.failed, Error{last.code, last.error}};
    Message message;
    message.body = std::move(last);
    effects_->send(kCoordinator, std::move(message));
    stopped_ = true;
    effects_->finish(outcome);
}

}  // namespace detente
