// An intrusive lock-free stack: any thread pushes, one thread takes everything at once. Items bring
// their own `T* next`, so a push allocates nothing and may happen in a free callback.
#pragma once

#include <atomic>

namespace detente {

template <class T>
class MpscStack {
  public:
    // Thread: any. The item belongs to the stack until taken.
    void push(T* item) {
        T* head = head_.load(std::memory_order_relaxed);
        do {
            item->next = head;
        } while (!head_.compare_exchange_weak(head, item));
    }
    // Everything pushed so far, newest first, linked by `next`. Thread: the owner's.
    T* take_all() { return head_.exchange(nullptr); }
    // The same, oldest first.
    T* take_all_in_order() {
        T* reversed = nullptr;
        for (T* item = take_all(); item != nullptr;) {
            T* following = item->next;
            item->next = reversed;
            reversed = item;
            item = following;
        }
        return reversed;
    }
    bool empty() const { return head_.load() == nullptr; }

  private:
    std::atomic<T*> head_{nullptr};
};

}  // namespace detente
