#include "worker/collectives/key_posts.h"

namespace detente {

KeyPosts::KeyPosts(Board& board, const CollectiveKey& key) : posts_(board.count()) {
    for (std::size_t i = 0; i < posts_.size(); ++i) {
        posts_[i] = board.find(i, key);
        if (posts_[i] == nullptr) missing_ |= std::uint64_t{1} << i;
    }
}

KeyOutcome KeyPosts::outcome() const {
    return posts_[0] != nullptr ? posts_[0]->outcome.load() : KeyOutcome::open;
}

std::vector<std::uint64_t> KeyPosts::elements() const {
    std::vector<std::uint64_t> elements;
    elements.reserve(posts_.size());
    for (const Post* post : posts_) elements.push_back(post->elements.load());
    return elements;
}

MeanShares KeyPosts::shares() const {
    std::vector<double> weights;
    weights.reserve(posts_.size());
    for (const Post* post : posts_) weights.push_back(post->weight.load());
    return mean_shares(weights);
}

bool KeyPosts::agree(Board& board, const CollectiveKey& key) const {
    const std::uint64_t others = disagreeing(elements());
    if (others != 0) board.break_group(others, BreakReason::disagrees, key);
    return others == 0;
}

void KeyPosts::finish(Board& board) const {
    for (std::size_t i = 0; i < posts_.size(); ++i) {
        board.finish(*posts_[i]);
        board.room_freed(i);
    }
}

KeyOutcome settle_broken(Board& board, const CollectiveKey& key) {
    // A first post that comes after this look finds the group broken, and cannot be settled as
    // done.
    Post* first = board.find(0, key);
    return first != nullptr ? board.settle(*first) : KeyOutcome::broken;
}

}  // namespace detente
