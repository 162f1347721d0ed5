// Over what a method resolves conflicts: all shared blocks at once, or layer by layer, or block by
// block, each with weights and state of its own; and which gradients it sees.
#pragma once

namespace detente {

enum class ConflictScope {
    global,
    layer,  // tensors whose names agree up to their last '.'
    block,
};

enum class ConflictSpace {
    parameters,      // of the shared blocks
    representation,  // at the trunk's output (Sener and Koltun 2018, section 3.3)
};

}  // namespace detente
