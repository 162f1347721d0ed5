// What a shard keeps per worker: a table with a place per id, looked up several times for every
// message, also where there are ten thousand workers. Ids are small and dense (a job's places), so
// that the id is the place and nothing is searched. Iterates in the order of ids.
//
// Owner: the shard's loop. An iterator lives until the next insertion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/invariant.h"

namespace detente {

template <class T>
class ByWorker {
    using Entry = std::pair<WorkerId, T>;
    static constexpr WorkerId kNobody{~std::uint32_t{0}};

    template <class Value>
    class Iterator {
      public:
        using iterator_category = std::forward_iterator_tag;
        using value_type = Entry;
        using difference_type = std::ptrdiff_t;
        using pointer = Value*;
        using reference = Value&;

        Iterator() = default;
        Iterator(Value* at, Value* end) : at_(at), end_(end) {}
        Value& operator*() const { return *at_; }
        Value* operator->() const { return at_; }
        Iterator& operator++() {
            ++at_;
            skip();
            return *this;
        }
        Iterator operator++(int) {
            Iterator before = *this;
            ++*this;
            return before;
        }
        bool operator==(const Iterator& other) const { return at_ == other.at_; }
        void skip() {
            while (at_ != end_ && at_->first == kNobody) ++at_;
        }

      private:
        Value* at_ = nullptr;
        Value* end_ = nullptr;
    };

  public:
    // Ids are below it: more than any job has, and what a damaged file may make a shard allocate.
    static constexpr std::uint32_t kMostIds = 1U << 20U;
    using iterator = Iterator<Entry>;
    using const_iterator = Iterator<const Entry>;

    iterator find(WorkerId worker) { return found<iterator>(entries_, worker); }
    const_iterator find(WorkerId worker) const { return found<const_iterator>(entries_, worker); }
    bool contains(WorkerId worker) const { return find(worker) != end(); }
    // Requires: worker < kMostIds.
    T& operator[](WorkerId worker) {
        invariant(worker.value < kMostIds, "who keeps something of a worker has checked its id");
        if (worker.value >= entries_.size()) entries_.resize(worker.value + 1, {kNobody, T{}});
        Entry& entry = entries_[worker.value];
        if (entry.first == kNobody) {
            entry.first = worker;
            ++size_;
        }
        return entry.second;
    }
    std::size_t erase(WorkerId worker) {
        const iterator entry = find(worker);
        if (entry == end()) return 0;
        *entry = {kNobody, T{}};
        --size_;
        return 1;
    }

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    iterator begin() { return first<iterator>(entries_); }
    iterator end() { return last<iterator>(entries_); }
    const_iterator begin() const { return first<const_iterator>(entries_); }
    const_iterator end() const { return last<const_iterator>(entries_); }

  private:
    template <class It, class Entries>
    static It last(Entries& entries) {
        return {entries.data() + entries.size(), entries.data() + entries.size()};
    }
    template <class It, class Entries>
    static It first(Entries& entries) {
        It begin{entries.data(), entries.data() + entries.size()};
        begin.skip();
        return begin;
    }
    template <class It, class Entries>
    static It found(Entries& entries, WorkerId worker) {
        if (worker.value >= entries.size() || entries[worker.value].first == kNobody) {
            return last<It>(entries);
        }
        return {entries.data() + worker.value, entries.data() + entries.size()};
    }

    std::vector<Entry> entries_;
    std::size_t size_ = 0;
};

}  // namespace detente
