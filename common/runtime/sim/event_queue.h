// What is due in a world, ordered by (time, sequence): a 4-ary heap of small keys over a pool of
// the events themselves. Nothing is allocated per event once the pool has grown.
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/ids.h"

namespace detente::sim {

template <class Event>
class EventQueue {
  public:
    // Names an event until it is taken: for cancelling. 0 names none.
    using Handle = std::uint64_t;

    Handle push(Time when, Event event) {
        std::uint32_t slot = 0;
        if (free_.empty()) {
            slot = static_cast<std::uint32_t>(slots_.size());
            slots_.emplace_back();
        } else {
            slot = free_.back();
            free_.pop_back();
        }
        Slot& place = slots_[slot];
        place.event = std::move(event);
        ++place.use;
        heap_.push_back({when, ++sequence_, slot});
        sift_up(heap_.size() - 1);
        return (std::uint64_t{place.use} << 32U) | slot;
    }

    // The event while it is due; nullptr afterwards. It may be overwritten, and is taken in its
    // turn all the same.
    Event* find(Handle handle) {
        const auto slot = static_cast<std::uint32_t>(handle);
        const auto use = static_cast<std::uint32_t>(handle >> 32U);
        if (slot >= slots_.size() || slots_[slot].use != use) return nullptr;
        return &slots_[slot].event;
    }

    bool empty() const { return heap_.empty(); }
    std::size_t size() const { return heap_.size(); }
    Time next_time() const { return heap_.front().when; }

    struct Due {
        Time when;
        Handle handle = 0;  // that it had
        Event event;
    };
    // Requires: not empty.
    Due pop() {
        const Key first = heap_.front();
        const Key last = heap_.back();
        heap_.pop_back();
        if (!heap_.empty()) sift_down(last);
        Slot& place = slots_[first.slot];
        Due due{first.when, (std::uint64_t{place.use} << 32U) | first.slot, std::move(place.event)};
        ++place.use;  // no handle names it any more
        free_.push_back(first.slot);
        return due;
    }

  private:
    struct Key {
        Time when;
        std::uint64_t sequence = 0;
        std::uint32_t slot = 0;
        bool before(const Key& other) const {
            return when != other.when ? when < other.when : sequence < other.sequence;
        }
    };
    struct Slot {
        Event event{};
        std::uint32_t use = 0;  // odd while it holds an event that is due
    };
    static constexpr std::size_t kArity = 4;

    void sift_up(std::size_t at) {
        const Key key = heap_[at];
        while (at > 0) {
            const std::size_t parent = (at - 1) / kArity;
            if (!key.before(heap_[parent])) break;
            heap_[at] = heap_[parent];
            at = parent;
        }
        heap_[at] = key;
    }
    // Puts `key` where the first one was.
    void sift_down(const Key& key) {
        std::size_t at = 0;
        const std::size_t size = heap_.size();
        for (;;) {
            const std::size_t first = at * kArity + 1;
            if (first >= size) break;
            std::size_t least = first;
            const std::size_t end = first + kArity < size ? first + kArity : size;
            for (std::size_t child = first + 1; child < end; ++child) {
                if (heap_[child].before(heap_[least])) least = child;
            }
            if (!heap_[least].before(key)) break;
            heap_[at] = heap_[least];
            at = least;
        }
        heap_[at] = key;
    }

    std::vector<Key> heap_;
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::uint64_t sequence_ = 0;
};

}  // namespace detente::sim
