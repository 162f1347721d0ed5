// Effects of one on(), kept in order until it has returned. Owned by the loop's thread.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente {

struct SendEffect {
    NodeId to;
    Message message;
};
struct TimerEffect {
    TimerId id;
    Nanos delay;
    Tag tag;
};
struct CancelTimerEffect {
    TimerId id;
};
struct ComputeEffect {
    Ticket ticket;
    Work work;
};
struct CancelTicketEffect {
    Ticket ticket;
};
struct StoreEffect {
    Ticket ticket;
    StoreOp operation;
};
struct FormEffect {
    Group group;
    Nanos deadline;
};
struct ReduceEffect {
    CollectiveKey key;
    GradientShare share;
    Nanos deadline;
};
struct RecordEffect {
    LedgerEntry entry;
};
struct LogEffect {
    LogLevel level;
    std::string text;
};
struct FinishEffect {
    Outcome outcome;
};
using Effect =
    std::variant<SendEffect, TimerEffect, CancelTimerEffect, ComputeEffect, CancelTicketEffect,
                 StoreEffect, FormEffect, ReduceEffect, RecordEffect, LogEffect, FinishEffect>;

class BufferedEffects final : public Effects {
  public:
    void send(NodeId to, Message message) override {
        effects_.emplace_back(SendEffect{to, std::move(message)});
    }
    TimerId after(Nanos delay, Tag tag) override {
        const TimerId id{++last_timer_};
        effects_.emplace_back(TimerEffect{id, delay, tag});
        return id;
    }
    void cancel(TimerId timer) override { effects_.emplace_back(CancelTimerEffect{timer}); }
    Ticket compute(Work work) override {
        const Ticket ticket{++last_ticket_};
        effects_.emplace_back(ComputeEffect{ticket, std::move(work)});
        return ticket;
    }
    void cancel(Ticket ticket) override { effects_.emplace_back(CancelTicketEffect{ticket}); }
    Ticket store(StoreOp operation) override {
        const Ticket ticket{++last_ticket_};
        effects_.emplace_back(StoreEffect{ticket, std::move(operation)});
        return ticket;
    }
    void form(Group group, Nanos deadline) override {
        effects_.emplace_back(FormEffect{std::move(group), deadline});
    }
    void reduce(CollectiveKey key, GradientShare share, Nanos deadline) override {
        effects_.emplace_back(ReduceEffect{key, std::move(share), deadline});
    }
    void record(LedgerEntry entry) override {
        effects_.emplace_back(RecordEffect{std::move(entry)});
    }
    void log(LogLevel level, std::string text) override {
        effects_.emplace_back(LogEffect{level, std::move(text)});
    }
    void finish(Outcome outcome) override {
        effects_.emplace_back(FinishEffect{std::move(outcome)});
    }

    std::vector<Effect>& buffered() { return effects_; }

  private:
    std::vector<Effect> effects_;
    std::uint64_t last_timer_ = 0;
    std::uint64_t last_ticket_ = 0;  // 0 stands for the ledger: Stored{Ticket{0}}
};

}  // namespace detente
