// A node's world in a test: effects are written down, virtual time moves when the test says so.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente::test {

class RecordedEffects final : public Effects {
  public:
    struct Timer {
        TimerId id;
        Time at;
        Tag tag;
    };
    explicit RecordedEffects(Node& node) : node_(node) {}

    void send(NodeId to, Message message) override {
        envelopes.push_back(message.envelope);
        sent.emplace_back(to, std::move(message.body));
    }
    TimerId after(Nanos delay, Tag tag) override {
        timers.push_back({{++last_timer_}, now + delay, tag});
        return timers.back().id;
    }
    void cancel(TimerId timer) override {
        timers.erase(std::remove_if(timers.begin(), timers.end(),
                                    [&](const Timer& t) { return t.id == timer; }),
                     timers.end());
    }
    Ticket compute(Work work) override {
        works.push_back(std::move(work));
        return {works.size()};  // the n-th work has ticket n, from 1
    }
    void cancel(Ticket /*ticket*/) override {}
    Ticket store(StoreOp operation) override {
        stored.push_back(std::move(operation));
        return {stored.size()};  // the n-th operation has ticket n, from 1
    }
    void form(Group group, Nanos /*deadline*/) override { formed.push_back(std::move(group)); }
    void reduce(CollectiveKey key, GradientShare share, Nanos /*deadline*/) override {
        reduced.emplace_back(key, std::move(share));
    }
    void record(LedgerEntry entry) override { recorded.push_back(std::move(entry.record)); }
    void log(LogLevel level, std::string text) override {
        logs.emplace_back(level, std::move(text));
    }
    void finish(Outcome outcome) override { finished = std::move(outcome); }

    void give(Event event) { node_.on(std::move(event), now, *this); }
    void receive(NodeId from, Body body, Incarnation incarnation = {1}) {
        Message message;
        message.envelope.from = from;
        message.envelope.incarnation = incarnation;
        message.body = std::move(body);
        give(Received{std::move(message)});
    }
    // Moves time on, firing what is due in order; `each` runs after every timer.
    template <class Each>
    void advance(Nanos duration, Each each) {
        const Time until = now + duration;
        while (!finished) {
            const auto next =
                std::min_element(timers.begin(), timers.end(),
                                 [](const Timer& a, const Timer& b) { return a.at < b.at; });
            if (next == timers.end() || next->at > until) break;
            const Timer timer = *next;
            timers.erase(next);
            now = std::max(now, timer.at);  // late, if the test let time jump
            give(TimerFired{timer.id, timer.tag});
            each();
        }
        now = until;
    }
    void advance(Nanos duration) {
        advance(duration, [] {});
    }
    // Bodies of type T sent so far, with receivers; forgets nothing.
    template <class T>
    std::vector<std::pair<NodeId, T>> of() const {
        std::vector<std::pair<NodeId, T>> found;
        for (const auto& [to, body] : sent) {
            if (const T* value = std::get_if<T>(&body)) found.emplace_back(to, *value);
        }
        return found;
    }

    // Ledger records of type T so far.
    template <class T>
    std::vector<T> records() const {
        std::vector<T> found;
        for (const auto& record : recorded) {
            if (const T* value = std::get_if<T>(&record)) found.push_back(*value);
        }
        return found;
    }

    Time now{};
    std::vector<std::pair<NodeId, Body>> sent;
    std::vector<Envelope> envelopes;  // of all that was ever sent
    std::vector<Work> works;
    std::vector<StoreOp> stored;
    std::vector<Group> formed;
    std::vector<std::pair<CollectiveKey, GradientShare>> reduced;
    std::vector<decltype(LedgerEntry::record)> recorded;
    std::vector<Timer> timers;
    std::vector<std::pair<LogLevel, std::string>> logs;
    std::optional<Outcome> finished;

  private:
    Node& node_;
    std::uint64_t last_timer_ = 0;
};

}  // namespace detente::test
