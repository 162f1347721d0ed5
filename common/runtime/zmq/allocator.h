// Page faults cost more than copies: libzmq allocates a buffer per large frame, and glibc would map
// and unmap each. Called first thing by a process that moves frames.
#pragma once

namespace detente {

// One arena, no mmap for large blocks, and freed memory kept for the next frame. Changes this
// process's allocator for good. Requires: called before threads are started.
void tune_allocator_for_frames();

}  // namespace detente
