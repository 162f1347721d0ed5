#include "common/runtime/zmq/allocator.h"

#include <malloc.h>

namespace detente {

void tune_allocator_for_frames() {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 1 << 20);
}

}  // namespace detente
