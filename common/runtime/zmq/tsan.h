// ThreadSanitizer does not see the synchronisation inside libzmq (it is not instrumented). Where an
// object of ours crosses it, the giver says gives() and the taker takes(), on the same address;
// without the sanitizer both are nothing.
#pragma once

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
namespace detente {
inline void tsan_gives(void* object) { __tsan_release(object); }
inline void tsan_takes(void* object) { __tsan_acquire(object); }
}  // namespace detente
#else
namespace detente {
inline void tsan_gives(void*) {}
inline void tsan_takes(void*) {}
}  // namespace detente
#endif
