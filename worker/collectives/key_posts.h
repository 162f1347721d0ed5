// The posts of all members for one key, as one member finds them on the board, and what follows
// from them alike at every member. Thread: the collective's.
#pragma once

#include <cstdint>
#include <vector>

#include "common/collective/average.h"
#include "worker/collectives/board.h"

namespace detente {

class KeyPosts {
  public:
    KeyPosts(Board& board, const CollectiveKey& key);

    std::uint64_t missing() const { return missing_; }  // members without a post, as bits
    bool complete() const { return missing_ == 0; }
    std::size_t count() const { return posts_.size(); }
    Post& of(std::size_t member) const { return *posts_[member]; }
    Post* first() const { return posts_[0]; }  // nullptr: none yet
    KeyOutcome outcome() const;

    // Requires, as all below: complete().
    std::vector<std::uint64_t> elements() const;
    MeanShares shares() const;
    // Breaks the group if members disagree about the elements; then false.
    bool agree(Board& board, const CollectiveKey& key) const;
    // This member will not look at them again; wakes whoever waits for a slot.
    void finish(Board& board) const;

  private:
    std::vector<Post*> posts_;
    std::uint64_t missing_ = 0;
};

// How a key ends that nobody has settled, now that the group is broken.
KeyOutcome settle_broken(Board& board, const CollectiveKey& key);

}  // namespace detente
